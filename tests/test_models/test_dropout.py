"""Drop-out that draws its random numbers 64 bits at a time."""

import pytest
import torch
from torch import nn

from mmsoc.models.layers import dropout as module
from mmsoc.models.layers.dropout import Dropout, ReLUDropout, dropout
from mmsoc.models.layers.transformer import DetrTransformerEncoder


@pytest.fixture(params=[2**19, 64], ids=['at once', 'in parts'])
def at_once(request, monkeypatch):
    monkeypatch.setattr(module, '_AT_ONCE', request.param)


FUNCTIONS = [('dropout', Dropout, lambda x: x), ('ReLU and drop-out', ReLUDropout, torch.relu)]


@pytest.fixture(params=FUNCTIONS, ids=[name for name, *_ in FUNCTIONS])
def function(request):
    """A class of modules, and what it does without drop-out."""
    return request.param[1:]


def run(build, p, x, seed=1):
    """Output, gradient of the input, gradient of the output."""
    torch.manual_seed(seed)
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    output = build(p=p).train()(leaf)
    grad = torch.randn(x.shape, dtype=x.dtype)
    output.backward(grad)
    return output.detach(), leaf.grad, grad


@pytest.mark.parametrize('layout', ['contiguous', 'transposed'])
def test_what_is_kept_is_scaled_and_so_is_its_gradient(at_once, function, layout, seeded):
    build, expected = function
    x = torch.randn(50, 43, dtype=torch.float64)
    x = x.t() if layout == 'transposed' else x
    output, grad_x, grad = run(build, 0.3, x)
    kept = output != 0
    assert kept.any() and not kept.all()
    torch.testing.assert_close(output, expected(x) / 0.7 * kept, rtol=1e-15, atol=0)
    torch.testing.assert_close(grad_x, grad / 0.7 * kept, rtol=1e-15, atol=0)


@pytest.mark.parametrize('p', [0.1, 0.3, 0.9])
def test_how_much_is_kept(function, p, seeded):
    count = 2_000_000
    output, *_ = run(function[0], p, torch.ones(count))
    kept = (output != 0).float()
    sigma = (p * (1 - p) / count) ** 0.5
    assert abs(kept.mean().item() - (1 - p)) < 4 * sigma + 2**-16  # the probability is a multiple of 2^-16
    # Four numbers share a draw of 64 bits: they are dropped independently of each other.
    kept = kept - (1 - p)
    for distance in (1, 2, 3, 4):
        correlation = (kept[:-distance] * kept[distance:]).mean().item() / (p * (1 - p))
        assert abs(correlation) < 5 / count**0.5, distance


def test_the_seed_says_what_is_dropped(at_once, function, seeded):
    x = torch.rand(1001) + 1
    (first, *_), (again, *_), (other, *_) = (run(function[0], 0.5, x, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_without_drop_out(function, seeded):
    build, expected = function
    x = torch.randn(30, 20)
    with torch.no_grad():
        assert torch.equal(build(p=0.5).eval()(x.clone()), expected(x))
        assert torch.equal(build(p=0.0).train()(x.clone()), expected(x))
        assert not build(p=1.0).train()(x.clone()).any()
    assert torch.equal(build(p=0.5).eval()(x.clone().requires_grad_()), expected(x))


@pytest.mark.parametrize('p', [0.0, 0.3])
def test_gradients(function, p):
    layer = function[0](p=p).train()

    def seeded(x):
        torch.manual_seed(1)
        return layer(x)

    x = torch.randn(5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(seeded, x.where(x.abs() > 0.1, 0.5).requires_grad_())


def test_relu_and_drop_out_leave_a_leaf_as_it_was(seeded):
    x = torch.randn(30, 20)
    before = x.clone()
    ReLUDropout(p=0.5).train()(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize('p', [0.0, 1e-7])
def test_little_drop_out_is_none(function, p, seeded):
    x = torch.randn(1000)
    torch.testing.assert_close(function[0](p=p).train()(x.clone()), function[1](x))
    torch.testing.assert_close(dropout(x, p), x)


def test_the_transformer_s_layers_have_it(seeded):
    attention = dict(embed_dims=32, num_heads=4, dropout=0.3, batch_first=True)
    encoder = DetrTransformerEncoder(
        num_layers=1,
        layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=dict(embed_dims=32, feedforward_channels=64, ffn_drop=0.3)),
    )
    kinds = {type(layer) for layer in encoder.modules()}
    assert {Dropout, ReLUDropout} <= kinds and nn.Dropout not in kinds
    linear, relu_and_dropout = encoder.layers[0].ffn.layers[0].train()
    hidden = linear(torch.randn(50, 32))
    positive = hidden > 0
    kept = relu_and_dropout(hidden) != 0
    assert not (kept & ~positive).any() and abs(kept.sum() / positive.sum() - 0.7) < 0.05
