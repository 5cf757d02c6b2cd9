"""`predict_clips` beyond what tests/test_models/test_soc.py asks of `SOC.predict`; and predictions that are not finite."""

import copy
from dataclasses import replace

import pytest
import torch
from pycocotools import mask as coco_mask

from mmsoc.inference import (
    A2DMasks,
    AllQueries,
    LivePredictor,
    MasksAndLogits,
    QueryPerFrame,
    StreamPredictor,
    predict_clips,
)
from tests.helpers import make_sample, random_clip, set_test_cfg, small_model
from tests.test_inference.conftest import ORI, SIZE, TEXTS, predict_whole


@pytest.fixture(scope='module')
def small(root):
    return small_model(root)


def test_a_config_of_its_own(small, monkeypatch):
    """In the place of the model's, which stays."""
    video = random_clip(6, (64, 96))[0][None]

    def sample():
        return make_sample((64, 96), ['a red car', 'the dog'], num_frames=6)

    config = replace(small.test_cfg, selector=QueryPerFrame(), output=MasksAndLogits(0.6))
    before = small.test_cfg
    (found,) = predict_clips(small, video, [sample()], config)
    assert small.test_cfg is before and 'pred_logits' not in predict_clips(small, video, [sample()])[0]
    set_test_cfg(small, monkeypatch, selector=QueryPerFrame(), output=MasksAndLogits(0.6))
    (expected,) = small(video, [sample()], mode='predict')
    assert found.pred_masks == expected.pred_masks and torch.equal(found.pred_queries, expected.pred_queries)
    assert all(torch.equal(a, b) for a, b in zip(found.pred_logits, expected.pred_logits, strict=True))


def test_all_queries_and_logits(small):
    """The logits are those of the query with the highest score, and its masks are thresholded as the output has it."""
    video = random_clip(3, (64, 96))[0][None]
    sample = make_sample((64, 96), ['a red car', 'the dog'], num_frames=3, ori_shape=(70, 101))
    sample.key_frames_inds = [1]
    (found,) = predict_clips(
        small, video, [sample], replace(small.test_cfg, selector=AllQueries(), output=MasksAndLogits())
    )
    best = found.pred_scores_all.argmax(1).tolist()
    assert found.pred_queries.tolist() == [[query] for query in best] and len(found.pred_masks_all[0]) == 8
    for index, query in enumerate(best):
        assert found.pred_logits[index].shape == (1, 16, 24)
        full = torch.nn.functional.interpolate(found.pred_logits[index][None], (70, 101), mode='bilinear')[0, 0]
        assert found.pred_masks[index] == [found.pred_masks_all[index][query]]
        assert torch.equal(torch.from_numpy(coco_mask.decode(found.pred_masks[index][0])).bool(), full > 0)


def test_all_queries_of_a_video_that_is_cut(small):
    """Clips of one frame are not a clip with one annotated frame: all but the first would be lost."""
    config = replace(small.test_cfg, selector=AllQueries(), output=A2DMasks(), frames_per_clip=1)
    sample = make_sample((64, 96), ['a red car'], num_frames=3)
    with pytest.raises(
        ValueError, match=r'selector=AllQueries: expected clips with one annotated frame .*, found 3 \(v'
    ):
        predict_clips(small, random_clip(3, (64, 96))[0][None], [sample], config)


# ------------------------------------------------------------------------------------------------ not finite


@pytest.fixture(scope='module', params=['mask logits', 'scores'])
def broken(request, model):
    """A model one of whose weights is not a number, and what of its predictions is not."""
    model = copy.deepcopy(model)
    branch = model.head.kernel_branch if request.param == 'mask logits' else model.head.cls_branches[-1]
    branch.layers[-1].bias.data[0] = float('nan')
    return model, request.param


def test_a_clip_that_is_not_finite(broken, video):
    model, what = broken
    with pytest.raises(
        FloatingPointError, match=rf"the {what} are not finite \(video video: \['a red car', .*fp32 help"
    ):
        predict_whole(model, video[:2])


def test_a_stream_that_is_not_finite(broken, video):
    model, what = broken
    with StreamPredictor(model, TEXTS, frame_size=SIZE, ori_shape=ORI) as stream:
        stream.feed(video[:2])
        with pytest.raises(FloatingPointError, match=f'the {what} are not finite'):
            scores = stream.finish()
            assert torch.isfinite(scores.scores).all()
            next(stream.masks())


def test_a_live_source_that_is_not_finite(broken, video):
    model, what = broken
    predictor = LivePredictor(model, TEXTS, frame_size=SIZE, ori_shape=ORI, chunk_frames=2)
    with pytest.raises(FloatingPointError, match=f'the {what} are not finite'):
        predictor.feed(video[:2])
