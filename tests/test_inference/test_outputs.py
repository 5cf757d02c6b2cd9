"""From mask logits to masks of the original size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures.mask import encode_mask_results

from mmsoc.inference import A2DMasks, MasksAndLogits, MaskSizes, ThresholdedMasks, outputs
from mmsoc.inference.clips import _encode

WHOLE = MaskSizes(input=(64, 96), image=(64, 96), original=(101, 53))
PADDED = MaskSizes(input=(64, 96), image=(45, 77), original=(101, 53))


@pytest.mark.parametrize('threshold', [0.5, 0.7])
@pytest.mark.parametrize('limit', [None, 2 * 101 * 53], ids=['at once', 'two frames at a time'])
def test_masks_are_those_of_mmdet_s_code(monkeypatch, threshold, limit, seeded):
    """Of two sentences, whose codes leave the device together."""
    if limit:
        monkeypatch.setattr(outputs, 'MAX_PIXELS', limit)
    shapes = (5, (53, 101)), (2, (37, 20))
    logits = [3 * torch.randn(n, 16, 24) for n, _ in shapes]
    output = ThresholdedMasks(threshold)
    made = [output(logit, WHOLE._replace(original=size)) for logit, (_, size) in zip(logits, shapes, strict=True)]
    found = _encode(made, torch.zeros(1), [])
    for codes, logit, (_, size) in zip(found, logits, shapes, strict=True):
        full = F.interpolate(logit[None], size=size, mode='bilinear', align_corners=False)[0]
        masks = (full > torch.tensor(threshold).logit()).numpy()
        assert codes == encode_mask_results(masks) and masks.any() and not masks.all()


def test_masks_of_a2d_are_those_of_mmdet_s_code(seeded):
    logits = 3 * torch.randn(8, 16, 24)  # of a batch of 64x96
    (found,) = _encode([A2DMasks()(logits, PADDED)], logits, [])
    inside = F.interpolate(logits[None], size=(64, 96), mode='bilinear')[..., :45, :77] > 0
    masks = F.interpolate(inside.float(), size=(101, 53), mode='nearest')[0].bool().numpy()
    assert found == encode_mask_results(masks) and len(found) == 8


def test_by_hand():
    """Logits 3 and -1 side by side, 1x2, of a frame of 1x4 pixels, which has 1x8 in the file."""
    sizes = MaskSizes(input=(1, 4), image=(1, 4), original=(1, 8))
    logits = torch.tensor([[[3.0, -1.0]]])
    # Centres of 8 pixels on a line from 3 (at 1/4) to -1 (at 3/4): 3, 3, 2.5, 1.5, 0.5, -0.5, -1, -1.
    assert ThresholdedMasks()(logits, sizes).masks[0, :, 0].tolist() == [True] * 5 + [False] * 3
    # Of 0.75 the logit is 1.0986.
    assert ThresholdedMasks(0.75).logit_threshold == pytest.approx(1.0986, abs=1e-4)
    assert ThresholdedMasks(0.75)(logits, sizes).masks[0, :, 0].tolist() == [True] * 4 + [False] * 4
    # At the input's size: 3, 2, 0, -1, of which two are above 0, each of two pixels of the file.
    assert A2DMasks()(logits, sizes).masks[0, :, 0].tolist() == [True] * 4 + [False] * 4
    assert A2DMasks(0.1)(logits, sizes).masks[0, :, 0].tolist() == [True] * 8  # -2.2


@pytest.mark.parametrize('sizes', [WHOLE, PADDED], ids=['whole', 'padded'])
@pytest.mark.parametrize('output', [ThresholdedMasks(), MasksAndLogits(), A2DMasks()], ids=lambda o: type(o).__name__)
def test_rows_first(output, sizes, seeded):
    logits = 3 * torch.randn(3, 16, 24)
    columns_first, rows_first = output(logits, sizes).masks, output(logits, sizes, rows_first=True).masks
    assert columns_first.shape == (3, 53, 101) and columns_first.dtype == torch.bool
    assert torch.equal(rows_first, columns_first.transpose(1, 2)) and rows_first.any()


@pytest.mark.parametrize(('sizes', 'shape'), [(WHOLE, (16, 24)), (PADDED, (45, 77))], ids=['whole', 'padded'])
def test_kept_logits_are_what_was_thresholded(sizes, shape, seeded):
    logits = 3 * torch.randn(2, 16, 24)
    found = MasksAndLogits(0.6)(logits, sizes, rows_first=True)
    assert found.logits.shape == (2, *shape)
    full = F.interpolate(found.logits[:, None], size=(101, 53), mode='bilinear', align_corners=False)[:, 0]
    assert torch.equal(found.masks, full > torch.tensor(0.6).logit())
    assert torch.equal(found.masks, ThresholdedMasks(0.6)(logits, sizes, rows_first=True).masks)


def test_only_one_keeps_logits():
    logits = torch.zeros(1, 16, 24)
    for output in (ThresholdedMasks(), A2DMasks()):
        assert not output.keeps_logits and output(logits, WHOLE).logits is None
    assert MasksAndLogits.keeps_logits


@pytest.mark.parametrize('threshold', [0, 1, -0.1, 1.5])
def test_thresholds_are_probabilities(threshold):
    for kind in (ThresholdedMasks, MasksAndLogits, A2DMasks):
        with pytest.raises(ValueError, match=f'mask_threshold={threshold}: expected a number between 0 and 1'):
            kind(threshold)


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
def test_logits_that_are_not_finite(number):
    logits = torch.zeros(2, 16, 24)
    logits[1, 2, 3] = number
    with pytest.raises(FloatingPointError, match=r'the mask logits are not finite.*precision=fp32'):
        _encode([ThresholdedMasks()(logits, WHOLE)], logits, [])
    (codes,) = _encode([ThresholdedMasks()(logits[:1], WHOLE)], logits[:1], [])
    assert np.array_equal(codes[0]['size'], (101, 53))
