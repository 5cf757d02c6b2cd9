"""The whole model on a device that is not the CPU; `test_models/test_devices.py` runs this file in a process of its own.

python -m pytest tests/on_pretend_device.py -rP    # with the counts of waits
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmdet.structures import TrackDataSample
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from mmsoc.inference import (
    A2DMasks,
    AllQueries,
    LivePredictor,
    MasksAndLogits,
    QueryPerFrame,
    RecentFrames,
    StreamPredictor,
)
from mmsoc.models.layers import deformable_attention
from mmsoc.registry import MODELS
from tests.conftest import ROOT
from tests.helpers import make_sample, random_clip, set_test_cfg, small_model
from tests.pretend_device import DEVICE, PretendDevice, PretendTensor

CONFIGS = ROOT / 'configs'
SIZE = (64, 96)
TEXTS = ['a red car', 'the dog', 'a person on a very long and narrow wooden bench']
# Those that build other modules than soc_swin-t_ytvos.py; numbers of frames and queries make no difference here.
ABLATIONS = sorted(
    path.stem for path in (CONFIGS / 'soc' / 'ablations').glob('*.py') if path.stem.startswith(('fusion', 'voc', 'vl'))
)
WAITS_PER_STEP = 1
WAITS_PER_PREDICTION = 4


@pytest.fixture
def device():
    with PretendDevice() as device:
        yield device


@pytest.fixture(scope='module')
def model():
    return small_model(ROOT)


# ------------------------------------------------------------------------------------------------------------- helpers


def make_batch(*clips: tuple[Tensor, TrackDataSample]) -> dict:
    """What a data loader gives."""
    inputs, samples = zip(*clips, strict=True)
    return dict(inputs=list(inputs), data_samples=list(samples))


def make_clip(
    num_frames: int,
    texts: Sequence[str],
    size: tuple[int, int] = SIZE,
    seed: int = 0,
    train: bool = True,
    **fields: Any,
) -> tuple[Tensor, TrackDataSample]:
    """uint8 (T, 3, h, w) and its sample, in which each sentence has the same object; without it if not ``train``."""
    video, masks = random_clip(num_frames, size, seed)
    video = (video * 50 + 120).clamp(0, 255).byte()
    if train:
        sample = make_sample(size, texts, masks)
        for frame in sample:
            frame.gt_instances = frame.gt_instances.cat([frame.gt_instances] * len(texts))
    else:
        sample = make_sample(size, texts, num_frames=num_frames, ori_shape=(70, 101))
    for key, value in fields.items():
        setattr(sample, key, value)
    return video, sample


def on_both(model: nn.Module, call: Callable) -> tuple:
    """What ``call(model)`` gives on the pretend device and on the CPU, each with the same weights and random numbers."""
    for module in model.modules():
        if isinstance(module, deformable_attention.MultiScaleDeformableAttention):
            # Fresh weights sample at the centres of pixels, where the gradient jumps and rounding decides on its value.
            torch.nn.init.normal_(module.sampling_offsets.bias)
    torch.manual_seed(0)
    with PretendDevice():
        found = call(copy.deepcopy(model).to(DEVICE))
    torch.manual_seed(0)
    return found, call(copy.deepcopy(model))


def assert_close(found: Tensor, expected: Tensor, name: str, rtol: float = 1e-4, atol: float = 1e-7) -> None:
    """``rtol``: of the largest number."""
    tolerance = rtol * expected.abs().max().item() + atol
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=tolerance, msg=lambda text: f'{name}: {text}')


def losses_and_gradients(model: nn.Module, batch: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of one step; the gradients lie where the model does."""
    losses = model(**model.data_preprocessor(copy.deepcopy(batch), True), mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    place = next(model.parameters()).device
    elsewhere = [name for name, gradient in gradients.items() if gradient.device != place]
    assert not elsewhere, f'gradients that are not on {place}'
    return losses, gradients


def assert_it_trains_as_on_the_cpu(model: nn.Module, batch: dict) -> None:
    for found, expected in zip(*on_both(model, lambda model: losses_and_gradients(model, batch)), strict=True):
        assert found.keys() == expected.keys()
        largest = max(value.abs().max().item() for value in expected.values())
        for name, value in expected.items():
            # Some gradients are zero but for rounding: that of a key's bias, which the softmax takes out.
            assert_close(found[name].detach(), value.detach(), name, rtol=1e-3, atol=1e-6 * largest)


def assert_same_masks(found: Sequence[dict], expected: Sequence[dict], pixels: int = 2) -> None:
    """Run-length codes; a sum in another order can move a pixel on a mask's border."""
    for a, b in zip(found, expected, strict=True):
        assert (coco_mask.decode(a) != coco_mask.decode(b)).sum() <= pixels


def assert_it_predicts_as_on_the_cpu(model: nn.Module, batch: dict) -> list[TrackDataSample]:
    """Returns the samples of the pretend device, whose tensors must be on the CPU."""
    found, expected = on_both(model, lambda model: model.test_step(copy.deepcopy(batch)))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        names = [name for name in theirs.keys() if name.startswith('pred_')]  # noqa: SIM118 (it is no dict)
        for name in names:
            for part, expected_part in zip(ours.get(name), theirs.get(name), strict=True):  # of each sentence
                if isinstance(part, list):
                    assert_same_masks(part, expected_part)
                else:
                    assert not isinstance(part, PretendTensor), f'{name} is on the device'
                    assert_close(part, expected_part, name)
    return found


def ablation(name: str) -> nn.Module:
    """An ablation of the paper's, in which all that it leaves as it was has the sizes of soc_tiny.py."""
    base, changed = (
        Config.fromfile(CONFIGS / 'soc' / f'{path}.py').model.to_dict()
        for path in ('soc_swin-t_ytvos', f'ablations/{name}')
    )
    small = Config.fromfile(CONFIGS / '_base_' / 'models' / 'soc_tiny.py').model.to_dict()
    small['backbone']['arch']['depths'] = [1, 1, 1, 1]  # other tests run all of it
    small['text_encoder']['config']['num_hidden_layers'] = 1

    def shrink(changed, base, small):
        if changed == base:
            return small
        if isinstance(changed, dict) and isinstance(base, dict) and changed.get('type') == base.get('type'):
            return {key: shrink(value, base.get(key), small.get(key)) for key, value in changed.items()}
        if isinstance(changed, dict) and 'embed_dims' in changed:
            return dict(changed, embed_dims=small['embed_dims'])
        return changed

    torch.manual_seed(0)
    return MODELS.build(shrink(changed, base, small)).eval()


def from_config(path: str, **backbone: Any) -> nn.Module:
    cfg = Config.fromfile(CONFIGS / path).model
    cfg.backbone.update(backbone)
    torch.manual_seed(0)
    return MODELS.build(cfg).eval()


# ------------------------------------------------------------------------------------------------------------ training

TRAINING = {
    'one clip': [make_clip(4, TEXTS[:1])],
    'padded clips with several sentences': [make_clip(2, TEXTS), make_clip(2, TEXTS[:1], (45, 77), seed=1)],
    'one annotated frame': [make_clip(3, TEXTS[:1], key_frames_inds=[1])],
}


@pytest.mark.parametrize('clips', TRAINING.values(), ids=TRAINING)
def test_losses_and_gradients(model, clips):
    assert_it_trains_as_on_the_cpu(model, make_batch(*clips))


def test_recomputation():
    model = from_config('soc/soc_tiny_moving-shapes.py', with_cp=True)
    assert_it_trains_as_on_the_cpu(model, make_batch(make_clip(2, TEXTS[:1])))


def test_two_steps_with_clipped_gradients():
    cfg = Config.fromfile(CONFIGS / 'soc' / 'soc_tiny_moving-shapes.py')
    batch = make_batch(make_clip(2, TEXTS[:1]), make_clip(2, TEXTS[1:2], seed=1))

    def train(model):
        optim_wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
        logs = [model.train_step(copy.deepcopy(batch), optim_wrapper) for _ in range(3)]
        place = next(model.parameters()).device
        for state in optim_wrapper.optimizer.state.values():
            assert state['exp_avg'].device == state['exp_avg_sq'].device == place
        return logs

    found, expected = on_both(MODELS.build(cfg.model).train(), train)
    for step in range(3):  # the third one sees what two steps made of the weights
        assert found[step].keys() == expected[step].keys()
        for name in found[step].keys() - {'aux.acc_category'}:
            assert float(found[step][name]) == pytest.approx(float(expected[step][name]), rel=1e-3), (step, name)
    assert abs(float(expected[2]['loss']) - float(expected[0]['loss'])) > 1e-2, 'no step: the test tests nothing'


def test_auxiliary_heads():
    model = from_config('soc/soc_tiny_moving-shapes.py')
    assert [type(head).__name__ for head in model.auxiliary_heads] == ['FusionMaskHead', 'CategoryMapHead']
    assert_it_trains_as_on_the_cpu(
        model, make_batch(make_clip(2, TEXTS[:1]), make_clip(2, TEXTS[1:2], (45, 77), seed=1))
    )


def test_frame_position():
    model = from_config('soc/soc_tiny_moving-shapes_frame-position.py')
    assert model.sim.cluster.frame_position
    assert_it_trains_as_on_the_cpu(model, make_batch(make_clip(3, TEXTS[:1])))
    assert_it_predicts_as_on_the_cpu(model, make_batch(make_clip(3, TEXTS[:2], train=False)))


def test_pretraining_of_the_backbone():
    model = from_config('pretrain/video-swin-mini_moving-shapes.py')
    assert_it_trains_as_on_the_cpu(
        model, make_batch(make_clip(1, TEXTS[:1]), make_clip(1, TEXTS[:1], (45, 77), seed=1))
    )


@pytest.mark.parametrize('name', ABLATIONS)
def test_ablations(name):
    model = ablation(name)
    assert_it_trains_as_on_the_cpu(model, make_batch(make_clip(2, TEXTS[:1])))
    assert_it_predicts_as_on_the_cpu(model, make_batch(make_clip(2, TEXTS[:2], train=False)))


# ---------------------------------------------------------------------------------------------------------- prediction

PREDICTIONS = {
    'several sentences': (dict(), [make_clip(4, TEXTS, train=False)]),
    'sentences one by one': (dict(frames_per_pass=1), [make_clip(2, TEXTS[:2], train=False)]),
    'padded clips': (
        dict(),
        [make_clip(2, TEXTS[:2], train=False), make_clip(2, TEXTS, (45, 77), seed=1, train=False)],
    ),
    'all queries of the annotated frame': (
        dict(selector=AllQueries(), output=A2DMasks()),
        [make_clip(3, TEXTS[:2], train=False, key_frames_inds=[1])],
    ),
    'a query for each frame': (dict(selector=QueryPerFrame()), [make_clip(4, TEXTS[:2], train=False)]),
    'logits': (dict(output=MasksAndLogits()), [make_clip(2, TEXTS[:2], train=False)]),
    'long video in clips': (dict(frames_per_clip=2), [make_clip(5, TEXTS[:2], train=False)]),
}


@pytest.mark.parametrize(('test_cfg', 'clips'), PREDICTIONS.values(), ids=PREDICTIONS)
def test_predictions(model, monkeypatch, test_cfg, clips):
    set_test_cfg(model, monkeypatch, **test_cfg)
    found = assert_it_predicts_as_on_the_cpu(model, make_batch(*clips))
    assert any(coco_mask.area(code) for sample in found for codes in sample.pred_masks for code in codes), (
        'empty masks only'
    )


def test_streams(model):
    video, _ = make_clip(9, TEXTS)

    def predict(model):
        with StreamPredictor(model, TEXTS, frame_size=SIZE, ori_shape=(70, 101), chunk_frames=4, overlap=2) as stream:
            for piece in video.split(3):
                stream.feed(piece)
            scores = stream.finish()
            masks = torch.cat(list(stream.masks()), 1)
        assert not any(isinstance(tensor, PretendTensor) for tensor in (*scores, masks))
        return scores, masks

    (scores, masks), (expected_scores, expected_masks) = on_both(model, predict)
    for name, value in expected_scores._asdict().items():
        assert_close(getattr(scores, name), value, name)
    assert (masks != expected_masks).sum() <= 2 * len(TEXTS) * len(video) and masks.any()


def test_live_sources(model, monkeypatch):
    set_test_cfg(model, monkeypatch, memory=RecentFrames(2))
    video, _ = make_clip(9, TEXTS)

    def predict(model):
        live = LivePredictor(model, TEXTS, frame_size=SIZE, ori_shape=(70, 101), chunk_frames=2, overlap=2)
        chunks = [*live.feed(video), *live.finish()]
        assert not any(isinstance(tensor, PretendTensor) for chunk in chunks for tensor in chunk)
        return [torch.cat(parts, 1) for parts in zip(*chunks, strict=True)]

    (masks, scores, queries), (expected_masks, expected_scores, expected_queries) = on_both(model, predict)
    assert_close(scores, expected_scores, 'scores')
    assert torch.equal(queries, expected_queries)
    assert (masks != expected_masks).sum() <= 2 * len(TEXTS) * len(video) and masks.any()


@pytest.mark.parametrize('compiled', [True, False], ids=['compiled', 'PyTorch'])
def test_more_frames_than_the_compiled_attention_takes(monkeypatch, compiled):
    """mmcv's CUDA code takes at most ``im2col_step`` (64) frames, or a multiple; where it was not built, PyTorch takes all."""
    monkeypatch.setattr(deformable_attention, '_has_compiled_op', lambda: compiled)
    torch.manual_seed(0)
    attention = deformable_attention.MultiScaleDeformableAttention(
        embed_dims=16, num_heads=2, num_levels=2, num_points=2, batch_first=True
    )
    shapes = torch.tensor([(3, 4), (2, 2)])
    value = torch.randn(70, 16, 16)
    reference = torch.rand(70, 16, 2, 2)

    def attend(attention):
        place = next(attention.parameters()).device
        query = value.to(place).requires_grad_()
        output = attention(
            query,
            value=query,
            reference_points=reference.to(place),
            spatial_shapes=shapes.to(place),
            level_start_index=torch.tensor([0, 12], device=place),
        )
        output.square().sum().backward()
        return output.detach(), query.grad

    for found, expected in zip(*on_both(attention.eval(), attend), strict=True):
        assert_close(found, expected, 'attention')


# --------------------------------------------------------------------------------------------------------------- waits


STEPS = {
    'one sentence': [make_clip(8, TEXTS[:1], (72, 104))],
    'padded clips with several sentences': [make_clip(8, TEXTS, (72, 104)), make_clip(8, TEXTS[:1], (45, 77), seed=1)],
}


@pytest.mark.parametrize('clips', STEPS.values(), ids=STEPS)
def test_waits_of_a_training_step(device, model, clips):
    """From the arrival of the batch to the end of the backward pass; of a size that no step had before, and again."""
    model = copy.deepcopy(model).to(DEVICE).train()
    counts = []
    for step in ('first', 'second'):
        device.waits.clear()
        batch = model.data_preprocessor(copy.deepcopy(make_batch(*clips)), True)
        print(f'{step} step, data preprocessor: {device.report()}')
        device.waits.clear()
        losses = model(**batch, mode='loss')
        sum(losses.values()).backward()
        print(f'{step} step, losses and backward pass: {device.report()}')
        counts.append(device.waits.total())
    assert max(counts) <= WAITS_PER_STEP


def test_waits_of_a_prediction(device, model):
    """Three sentences, eight frames; likewise."""
    model = copy.deepcopy(model).to(DEVICE)
    counts = []
    for number in ('first', 'second'):
        batch = model.data_preprocessor(make_batch(make_clip(8, TEXTS, (72, 120), train=False)))
        device.waits.clear()
        model(**batch, mode='predict')
        print(f'{number} prediction: {device.report()}')
        counts.append(device.waits.total())
    assert max(counts) <= WAITS_PER_PREDICTION


# ------------------------------------------------------------------------------------------------ the harness catches it


def here(line: str) -> str:
    """The place 'file:line' of the only line of this file with this comment."""
    (number,) = [n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith(f'# {line}')]
    return f'tests/on_pretend_device.py:{number}'


def test_planted_a_tensor_on_the_cpu_in_the_criterion(device, model, monkeypatch):
    model = copy.deepcopy(model).to(DEVICE)
    loss = model.criterion.loss_cls.forward

    def planted(prediction, *args, **kwargs):
        return loss(prediction + torch.zeros(prediction.shape), *args, **kwargs)  # planted on the CPU

    monkeypatch.setattr(model.criterion.loss_cls, 'forward', planted)
    with pytest.raises(RuntimeError, match=f'a CPU tensor .* at {here("planted on the CPU")}'):
        losses_and_gradients(model, make_batch(make_clip(2, TEXTS[:1])))


def test_planted_an_item_in_the_encoder(device, model):
    model = copy.deepcopy(model).to(DEVICE)
    layers = model.sim.encoder.layers
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: (output.sum().item(), None)[1])  # planted item
    losses_and_gradients(model, make_batch(make_clip(2, TEXTS[:1])))
    assert device.waits['item', here('planted item')] == len(layers)


@pytest.mark.parametrize(
    ('batch', 'change', 'message'),
    [
        (64, None, None),
        (65, None, 'a batch of 65 is no multiple of im2col_step, 64'),
        (128, None, None),
        (2, 'transposed', 'value is not contiguous'),
        (2, 'double', 'float64 is neither'),
        (2, 'half', None),
        (2, 'int32', 'shapes is torch.int32'),
    ],
)
def test_planted_arguments_of_the_compiled_attention(device, batch, change, message):
    """Through mmcv's autograd function, forward and backward."""
    shapes, starts = torch.tensor([(3, 4), (2, 2)], device=DEVICE), torch.tensor([0, 12], device=DEVICE)
    value = torch.randn(batch, 16, 2, 8, device=DEVICE)
    locations = torch.rand(batch, 5, 2, 2, 3, 2, device=DEVICE)
    weights = torch.rand(batch, 5, 2, 2, 3, device=DEVICE)
    if change == 'transposed':
        value = torch.randn(batch, 2, 16, 8, device=DEVICE).transpose(1, 2)
    elif change == 'double':
        value, locations, weights = value.double(), locations.double(), weights.double()
    elif change == 'half':
        value = value.half()
    elif change == 'int32':
        shapes = shapes.int()
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]

    def attend():
        output = MultiScaleDeformableAttnFunction.apply(leaves[0], shapes, starts, leaves[1], leaves[2], 64)
        output.sum().backward()
        assert all(leaf.grad.device == DEVICE and leaf.grad.abs().sum() > 0 for leaf in leaves)

    if message is None:
        attend()
    else:
        with pytest.raises(RuntimeError, match=message):
            attend()


COUNTS = {
    'item': (lambda x, mask: x[0].item(), 1),
    'bool': (lambda x, mask: bool(mask.any()), 1),
    'tolist': (lambda x, mask: x.tolist(), 1),
    'cpu': (lambda x, mask: x.cpu(), 1),
    'nonzero': (lambda x, mask: mask.nonzero(), 1),
    'masked_select': (lambda x, mask: x.masked_select(mask), 1),
    'unique': (lambda x, mask: x.unique(), 1),
    'bincount': (lambda x, mask: x.long().bincount(), 1),
    'index by bool': (lambda x, mask: x[mask], 1),
    'index by a list': (lambda x, mask: x[[0, 2]], 1),
    'index on the CPU': (lambda x, mask: x[torch.tensor([0, 2])], 1),
    'index on the device': (lambda x, mask: x[mask.long()], 0),
    'a number where a mask is true': (lambda x, mask: x.__setitem__(mask, 0.0), 0),
    'a number at an index': (lambda x, mask: x.__setitem__(mask.long(), 0.0), 1),
    'a slice': (lambda x, mask: x[1:].fill_(2.0), 0),
    'tensor': (lambda x, mask: torch.tensor([1.0, 2.0], device=DEVICE), 1),
    'to': (lambda x, mask: torch.ones(2).to(DEVICE), 1),
    'to, non-blocking': (lambda x, mask: torch.ones(2).pin_memory().to(DEVICE, non_blocking=True), 0),
    'copy_, non-blocking': (lambda x, mask: x.copy_(torch.ones(3), non_blocking=True), 0),
    'zeros': (lambda x, mask: torch.zeros(3, device=DEVICE) + x, 0),
    'a number without a dimension': (lambda x, mask: x * torch.tensor(2.0), 0),
    'repeat_interleave': (lambda x, mask: x.repeat_interleave(mask.long()), 1),
    'repeat_interleave of a known size': (lambda x, mask: x.repeat_interleave(mask.long(), output_size=2), 0),
    'synchronize': (lambda x, mask: torch.accelerator.synchronize(), 1),
}


@pytest.mark.parametrize(('call', 'expected'), COUNTS.values(), ids=COUNTS)
def test_what_is_a_wait(device, call, expected):
    x, mask = (tensor.to(DEVICE) for tensor in (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True])))
    device.waits.clear()
    call(x, mask)
    assert device.waits.total() == expected, device.report()


def test_copies_that_arrive_later(device):
    """They hold garbage until the host waits, once for all of them."""
    x = torch.arange(3.0).to(DEVICE)
    device.waits.clear()
    first, second = x.to('cpu', non_blocking=True), torch.empty(3).copy_(2 * x, non_blocking=True)
    flags = (x > 0).to('cpu', non_blocking=True)
    assert first.isnan().all() and second.isnan().all() and flags.tolist() == [True, False, False]
    torch.get_device_module(DEVICE).synchronize()
    assert first.tolist() == [0, 1, 2] and second.tolist() == [0, 2, 4] and flags.tolist() == [False, True, True]
    assert device.waits.total() == 1, device.report()


@pytest.mark.parametrize(
    'call',
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3) * x,
        lambda x: torch.cat([x, torch.ones(3)]),
        lambda x: torch.ones(3).add_(x),
        lambda x: torch.ones(2, 3) @ x,
        lambda x: torch.ones(3)[x.long()],
        lambda x: nn.functional.linear(x, torch.ones(2, 3)),
    ],
)
def test_what_mixes_devices(device, call):
    x = torch.zeros(3, device=DEVICE)
    with pytest.raises(RuntimeError, match='a CPU tensor'):
        call(x)
    assert np.array_equal(x.cpu().numpy(), np.zeros(3)), 'the device is of no use afterwards'
