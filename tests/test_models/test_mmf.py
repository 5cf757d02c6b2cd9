import math

import torch

from mmsoc.models import MMF
from mmsoc.models.layers import sine_positional_encoding_1d

GATE = dict(type='CrossAttentionGate', embed_dims=16, num_heads=4)
THROUGH = dict(type='PassThrough')


def inputs(num_words=5, padded=0):
    torch.manual_seed(1)
    sizes = [(8, 6), (4, 3), (2, 2), (1, 1)]
    words = torch.randn(2, num_words + padded, 16)
    pad = torch.zeros(2, num_words + padded, dtype=torch.bool)
    if padded:
        pad[:, -padded:] = True
    torch.manual_seed(2)
    return dict(
        levels=[torch.randn(6, 16, *size) for size in sizes],
        words=words,
        word_pad_mask=pad,
        pad_masks=[torch.zeros(2, *size, dtype=torch.bool) for size in sizes],
        positions=[torch.randn(2, 16, *size) for size in sizes],
    )


def test_slots_that_pass_through():
    given = inputs()
    fused = MMF(l2v=THROUGH, v2l=THROUGH)(**given)
    assert all(torch.equal(found, expected) for found, expected in zip(fused.levels, given['levels'], strict=True))
    assert torch.allclose(fused.guidance, given['words'].mean(1), atol=1e-6)


def test_gates_multiply_by_the_attention():
    given = inputs()
    mmf = MMF(l2v=GATE, v2l=GATE)
    fused = mmf(**given)
    # Level 1 of sentence 0, frames 0..2: q = vision, k = words + positions, v = words; nothing is added.
    tokens = given['levels'][1][:3].permute(0, 2, 3, 1).reshape(1, -1, 16)
    words = given['words'][:1]
    keys = words + sine_positional_encoding_1d(given['word_pad_mask'][:1], words.shape, words.device)
    expected = (tokens * mmf.l2v.attn(tokens, keys, words)[0]).view(3, 4, 3, 16).permute(0, 3, 1, 2)
    assert torch.allclose(fused.levels[1][:3], expected, atol=1e-6)
    # Guidance: words against the UN-fused stride-32 tokens (level 2) with their positions.
    tokens = given['levels'][2][:3].permute(0, 2, 3, 1).reshape(1, -1, 16)
    position = given['positions'][2][:1].permute(0, 2, 3, 1).reshape(1, 1, 4, 16).expand(1, 3, 4, 16).reshape(1, -1, 16)
    expected = (words * mmf.v2l.attn(words, tokens + position, tokens)[0]).mean(1)
    assert torch.allclose(fused.guidance[:1], expected, atol=1e-6)


def test_padded_words_change_nothing():
    given, longer = inputs(), inputs(padded=3)
    longer['words'][:, :5] = given['words']
    mmf = MMF(l2v=GATE, v2l=GATE)
    expected, found = mmf(**given), mmf(**longer)
    assert torch.allclose(found.guidance, expected.guidance, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found.levels, expected.levels, strict=True))


def test_padded_pixels_give_no_guidance():
    given = inputs()
    given['pad_masks'][2][:, :, 1] = True
    mmf = MMF(l2v=GATE, v2l=GATE)
    expected = mmf(**given).guidance
    given['levels'][2][..., 1] = 100.0
    assert torch.allclose(mmf(**given).guidance, expected, atol=1e-6)


def test_word_positions_by_hand():
    # Two words, then padding: positions 1/2 and 2/2 of a turn; channels are sin, cos at wave length 1, then sin, cos at 100.
    encoding = sine_positional_encoding_1d(torch.tensor([[False, False, True]]), (1, 3, 4), torch.device('cpu'))
    half, slow = math.pi, math.pi / 100
    expected = torch.tensor([math.sin(half), math.cos(half), math.sin(slow), math.cos(slow)])
    assert torch.allclose(encoding[0, 0], expected, atol=1e-4)
    assert torch.allclose(encoding[0, 1, :2], torch.tensor([0.0, 1.0]), atol=1e-4)
    assert torch.equal(encoding[0, 2], encoding[0, 1])  # padding does not count on


def test_no_mask_is_a_mask_of_nothing():
    given = inputs()
    without = dict(given, word_pad_mask=None, pad_masks=None)
    mmf = MMF(l2v=GATE, v2l=GATE)
    found, expected = mmf(**without), mmf(**given)
    torch.testing.assert_close(found.guidance, expected.guidance)
    for level, expected_level in zip(found.levels, expected.levels, strict=True):
        torch.testing.assert_close(level, expected_level)
    encodings = [
        sine_positional_encoding_1d(mask, given['words'].shape, torch.device('cpu'))
        for mask in (None, given['word_pad_mask'])
    ]
    torch.testing.assert_close(encodings[0].expand(2, -1, -1), encodings[1])
