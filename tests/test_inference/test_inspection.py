"""What the network knows of each query."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmsoc.inference import inspect_clips, predict_clips
from mmsoc.registry import MODELS
from tests.conftest import ROOT
from tests.helpers import make_sample
from tools.analysis_tools import inspect_queries


def model_of():
    torch.manual_seed(0)
    return MODELS.build(Config.fromfile(ROOT / 'configs/soc/soc_tiny_moving-shapes.py').model).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    sample = make_sample((64, 96), ['a red car', 'the dog'], num_frames=3)
    return torch.randn(1, 3, 3, 64, 96), [sample]


def recorded(function, results):
    def call(*args, **kwargs):
        results[function.__name__] = function(*args, **kwargs)
        return results[function.__name__]

    return call


def test_it_is_what_the_prediction_uses(batch, monkeypatch):
    model, seen = model_of(), {}
    for module, name in ((model, 'run_frames'), (model, 'run_video'), (model.head, 'decode_masks')):
        monkeypatch.setattr(module, name, recorded(getattr(module, name), seen))
    found = inspect_clips(model, *batch)
    objects, _ = seen['run_video']
    logits = seen['decode_masks']
    monkeypatch.undo()
    with torch.no_grad():
        (predicted,) = predict_clips(model, *batch)
    assert len(found) == 2
    for index, of_text in enumerate(found):
        assert of_text.scores.shape == (3, 8) and of_text.masks.shape == (3, 8, 16, 24)
        assert of_text.chosen.tolist() == predicted.pred_queries[index].tolist()
        chosen = of_text.scores.gather(1, of_text.chosen[:, None])[:, 0]
        torch.testing.assert_close(chosen, predicted.pred_frame_scores[index])
        torch.testing.assert_close(of_text.attention.sum(1), torch.ones(8))
        assert torch.equal(of_text.masks, logits[index] > 0)
        # The contrastive loss of a query is minus the logarithm of its similarity.
        queries, guidance = objects.video_queries[0][index], seen['run_frames'].fused.guidance[index]
        losses = [
            model.criterion.loss_contrastive(queries[None], guidance[None], torch.tensor([query])) for query in range(8)
        ]
        weight = model.criterion.loss_contrastive.loss_weight
        torch.testing.assert_close(-weight * of_text.similarity.log(), torch.stack(losses).detach())


def test_attention_is_that_of_the_cluster(batch):
    """PyTorch's own attention map of the same call."""
    model = model_of()
    module, calls = model.sim.cluster.decoder.layers[-1].cross_attn, []
    forward = module.forward
    module.forward = lambda *args, **kwargs: calls.append(kwargs) or forward(*args, **kwargs)
    found = inspect_clips(model, *batch)
    (call,) = calls
    with torch.no_grad():
        inputs = (call['query'] + call['query_pos'], call['key'] + call['key_pos'], call['value'])
        _, expected = module.attn(*(x.transpose(0, 1) for x in inputs), average_attn_weights=True)  # sequence first
    expected = expected.unflatten(-1, (3, 8)).sum(-1)
    for index, of_text in enumerate(found):
        torch.testing.assert_close(of_text.attention, expected[index])
    assert not module._forward_pre_hooks


def test_networks_without_a_cluster_or_the_contrastive_loss(batch):
    cfg = Config.fromfile(ROOT / 'configs/soc/soc_tiny_moving-shapes.py').model
    cfg.sim.cluster = dict(type='NoCluster')
    cfg.criterion.loss_contrastive = None
    model = MODELS.build(cfg).eval()
    (found, _) = inspect_clips(model, *batch)
    assert found.attention is None and found.similarity is None


@pytest.mark.parametrize('num_frames', [1, 3, 9])
def test_the_picture(num_frames, tmp_path):
    model = model_of()
    torch.manual_seed(1)
    sample = make_sample((64, 96), ['a red car'], num_frames=num_frames)
    (found,) = inspect_clips(model, torch.randn(1, num_frames, 3, 64, 96), [sample])
    frames = [np.full((64, 96, 3), 200, np.uint8)] * num_frames
    inspect_queries.draw(frames, 'a red car', found, 4, tmp_path / 'a.png')
    assert (tmp_path / 'a.png').stat().st_size > 5000
