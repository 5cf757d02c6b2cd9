"""Attention in few operations is that of PyTorch's and mmcv's modules."""

import mmcv.cnn.bricks.transformer
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmsoc.models import VideoSwin
from mmsoc.models.backbones import video_swin
from mmsoc.models.layers import attention as module
from mmsoc.models.layers import recompute
from mmsoc.models.layers.attention import MultiheadAttention, attend_with_bias, multi_head_attention
from mmsoc.models.layers.recompute import linear_of_gelu

ARCH = dict(embed_dims=16, depths=[2, 2, 2, 1], num_heads=[1, 2, 4, 8])


def outputs_and_gradients(function, *leaves, parameters=()):
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    output = function(*leaves)
    return output, *torch.autograd.grad(output.pow(3).sum(), [*leaves, *parameters])


def assert_same(found, expected, **tolerance):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


def heads(**kwargs):
    attention = nn.MultiheadAttention(16, 4, batch_first=True, dtype=torch.float64, **kwargs)
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    return attention


# Three inputs as (query, key, value) of two or three tensors.
INPUTS = {
    'self-attention': lambda x, y, z: (x, x, x),
    'query is key': lambda x, y, z: (x, x, y),
    'key is value': lambda x, y, z: (x, z, z),
    'query is value': lambda x, y, z: (x, y, x),
    'all different': lambda x, y, z: (x, y, y + 1),
}


@pytest.mark.parametrize('masked', [False, True], ids=['', 'masked'])
@pytest.mark.parametrize('choose', INPUTS.values(), ids=INPUTS)
def test_multi_head_attention_is_pytorch_s(choose, masked, seeded):
    attention = heads()
    x, y, z = (torch.randn(3, length, 16, dtype=torch.float64) for length in (5, 5, 7))
    mask = None
    if masked:
        mask = torch.zeros(3, choose(x, y, z)[1].shape[1], dtype=torch.bool)
        mask[0, 3:], mask[2, 1:] = True, True
    given = (x, z) if choose is INPUTS['key is value'] else (x,) if choose is INPUTS['self-attention'] else (x, y)

    def run(attend):
        def function(*leaves):
            return attend(*choose(leaves[0], *(leaves[1:] * 2 or (None, None))))

        return outputs_and_gradients(function, *given, parameters=attention.parameters())

    assert_same(
        run(lambda q, k, v: multi_head_attention(attention, q, k, v, mask)),
        run(lambda q, k, v: attention(q, k, v, key_padding_mask=mask)[0]),
    )


def test_drop_out_of_attention_weights(seeded):
    """Equal weights of the identity: the output is what was kept of them."""
    num_tokens, p = 400, 0.3
    q, k, v = torch.zeros(2, 1, 300, 8), torch.zeros(2, 1, num_tokens, 8), torch.eye(num_tokens).expand(2, 1, -1, -1)
    found = module._attend(q, k, v, None, p)
    kept = (found != 0).float()
    torch.testing.assert_close(found, kept / num_tokens / (1 - p))
    assert abs(kept.mean().item() - (1 - p)) < 4 * (p * (1 - p) / kept.numel()) ** 0.5 + 2**-16


def test_drop_out_in_training_only(seeded):
    attention, x = heads(dropout=0.3), torch.randn(2, 9, 16, dtype=torch.float64)
    expected = attention.eval()(x, x, x)[0]
    torch.testing.assert_close(multi_head_attention(attention, x, x, x, None), expected)
    attention.train()
    found = torch.stack([multi_head_attention(attention, x, x, x, None).detach() for _ in range(2000)])
    assert not torch.equal(found[0], found[1])
    assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / 2000**0.5).all()


@pytest.mark.parametrize('masked', [False, True], ids=['', 'masked'])
def test_little_drop_out_is_none(masked, seeded):
    """Without the kernel, with and without a mask; 2^-16 is the least probability."""
    leaves = [torch.randn(2, 3, 6, 5, dtype=torch.float64) for _ in range(3)]
    mask = None
    if masked:
        mask = torch.ones(2, 1, 1, 6, dtype=torch.bool)
        mask[1, ..., 4:] = False
    torch.manual_seed(1)
    found = outputs_and_gradients(lambda q, k, v: module._attend(q, k, v, mask, 2**-16), *leaves)
    expected = outputs_and_gradients(lambda q, k, v: module._attend(q, k, v, mask, 0.0), *leaves)
    assert_same(found, expected, atol=1e-3, rtol=1e-3)


CALLS = {
    'query alone': lambda x, y, p, r: dict(query=x),
    'query with its position': lambda x, y, p, r: dict(query=x, query_pos=p),
    'self-attention': lambda x, y, p, r: dict(query=x, key=x, value=x, query_pos=p, key_pos=p),
    'another position of the keys': lambda x, y, p, r: dict(query=x, key=x, value=x, query_pos=p, key_pos=2 * p),
    'a position of the queries alone': lambda x, y, p, r: dict(query=x, key=x, value=x, query_pos=p),
    'a position of the keys alone': lambda x, y, p, r: dict(query=x, key=x, value=x, key_pos=p),
    'cross-attention': lambda x, y, p, r: dict(query=x, key=y, value=y, query_pos=p, key_pos=r),
    'cross-attention with a position of the queries': lambda x, y, p, r: dict(
        query=x, key=x + 1, value=x + 1, query_pos=p
    ),
    'cross-attention with values of their own': lambda x, y, p, r: dict(query=x, key=y, value=y + 1, identity=2 * x),
}


@pytest.mark.parametrize('call', CALLS.values(), ids=CALLS)
def test_mmcv_s_module(call, seeded):
    theirs = mmcv.cnn.bricks.transformer.MultiheadAttention(16, 4, dropout=0.0, batch_first=True).double()
    nn.init.normal_(theirs.attn.in_proj_bias)
    ours = MultiheadAttention(16, 4, dropout=0.0, batch_first=True).double()
    ours.load_state_dict(theirs.state_dict())
    x, y, p, r = (torch.randn(2, length, 16, dtype=torch.float64) for length in (5, 7, 5, 7))
    given = call(x, y, p, r)
    torch.testing.assert_close(ours(**given), theirs(**given))


def test_what_mmcv_s_module_can_and_ours_cannot():
    x = torch.randn(2, 5, 16)
    for settings, given in ((dict(batch_first=True), dict(attn_mask=torch.zeros(5, 5))), (dict(batch_first=False), {})):
        with pytest.raises(NotImplementedError, match='batch_first=True and no attn_mask'):
            MultiheadAttention(16, 4, **settings)(x, **given)


# ------------------------------------------------------------------------------------------------------------- windows


def attend_by_hand(qkv, bias, scale):
    q, k, v = qkv
    return ((q @ k.transpose(-2, -1) * scale + bias).softmax(-1) @ v).transpose(1, 2).flatten(2)


@pytest.fixture(params=[None, 2 * 3 * 7**2], ids=['at once', 'in chunks'])
def chunks(request, monkeypatch):
    """The backward pass on two windows at a time."""
    if request.param:
        monkeypatch.setattr(module, 'MAX_WEIGHTS_IN_CACHE', request.param)


@pytest.mark.parametrize('shape', [(3, 7, 7), (5, 3, 7, 7)], ids=['a bias for all windows', 'a bias for each window'])
def test_attention_in_windows(chunks, shape, seeded):
    qkv, bias = torch.randn(3, 5, 3, 7, 4, dtype=torch.float64), 2 * torch.randn(shape, dtype=torch.float64)
    found = outputs_and_gradients(lambda *given: attend_with_bias(*given, 0.6), qkv, bias)
    expected = outputs_and_gradients(lambda *given: attend_by_hand(*given, 0.6), qkv, bias)
    assert found[0].shape == (5, 7, 3 * 4) and found[2].abs().sum() > 0
    assert_same(found, expected)
    small = bias[:3, :2] if len(shape) == 4 else bias[:2]
    leaves = [tensor.clone().requires_grad_() for tensor in (qkv[:, :3, :2, :4, :2], small[..., :4, :4])]
    assert torch.autograd.gradcheck(lambda *given: attend_with_bias(*given, 0.6), leaves)


@pytest.mark.parametrize('shape', [(3, 7, 7), (5, 3, 7, 7)], ids=['a bias for all windows', 'a bias for each window'])
def test_attention_in_windows_in_half_precision(chunks, shape, seeded):
    """Under autocast queries, keys and values are bfloat16, and the bias is a float32 parameter."""
    qkv, bias = torch.randn(3, 5, 3, 7, 4), torch.randn(shape)
    found = outputs_and_gradients(lambda qkv, bias: attend_with_bias(qkv.bfloat16(), bias, 0.6), qkv, bias)
    expected = outputs_and_gradients(lambda *given: attend_by_hand(*given, 0.6), qkv, bias)
    assert found[2].dtype == torch.float32
    assert_same([found[0].float(), *found[1:]], expected, rtol=0.1, atol=0.1)


def test_attention_in_windows_with_masks(chunks, seeded):
    """Two windows without a mask, three with one; as if each group were alone with the mask in its bias."""
    qkv, bias = torch.randn(3, 5, 3, 7, 4, dtype=torch.float64), torch.randn(3, 7, 7, dtype=torch.float64)
    mask = torch.where(torch.rand(7, 7) < 0.4, -100.0, 0.0).double()

    def by_hand(qkv, bias):
        return torch.cat([attend_by_hand(qkv[:, :2], bias, 0.6), attend_by_hand(qkv[:, 2:], bias + mask, 0.6)])

    found = outputs_and_gradients(lambda *given: attend_with_bias(*given, 0.6, masks=[(2, None), (3, mask)]), qkv, bias)
    assert_same(found, outputs_and_gradients(by_hand, qkv, bias))
    with torch.no_grad():
        assert (found[0] - attend_with_bias(qkv, bias, 0.6)).abs().max() > 1e-3, 'the mask makes no difference'


def test_drop_out_in_windows(seeded):
    qkv = torch.zeros(3, 4, 2, 60, 60)
    qkv[2] = torch.eye(60)
    bias = torch.zeros(2, 60, 60, requires_grad=True)
    found = attend_with_bias(qkv, bias, 1.0, dropout=0.3)
    found.pow(2).sum().backward()
    share = (found != 0).float().mean().item()
    assert abs(share - 0.7) < 4 * (0.21 / found.numel()) ** 0.5 and bias.grad.abs().sum() > 0


@pytest.mark.parametrize('with_gradient', [True, False], ids=['training', 'prediction'])
@pytest.mark.parametrize('large', [False, True], ids=['', 'large'])
def test_the_bias_of_windows_is_as_gpus_need_it(monkeypatch, with_gradient, large, seeded):
    """PyTorch's kernels for GPUs refuse a bias that is not contiguous in its last dimension."""
    if large:
        monkeypatch.setattr(video_swin, 'SMALL', 0)
    seen, direct = [], F.scaled_dot_product_attention

    def kernel(q, k, v, bias, *args, **kwargs):
        seen.append(bias)
        return direct(q, k, v, bias, *args, **kwargs)

    attend = video_swin.attend_with_bias
    monkeypatch.setattr(F, 'scaled_dot_product_attention', kernel)
    monkeypatch.setattr(
        video_swin, 'attend_with_bias', lambda qkv, bias, *given: seen.append(bias) or attend(qkv, bias, *given)
    )
    model = VideoSwin(arch=ARCH).train(with_gradient)
    with torch.set_grad_enabled(with_gradient):
        model(torch.randn(1, 9, 3, 45, 77))  # shifted and padded windows
    assert len(seen) >= 7 and {bias.dim() for bias in seen} >= {4}
    assert all(bias.stride(-1) == 1 for bias in seen)


# ---------------------------------------------------------------------------------------------------------------- GELU


@pytest.mark.parametrize('limit', [None, 8 * 6 * 4], ids=['at once', 'in chunks'])
@pytest.mark.parametrize('with_bias', [True, False], ids=['', 'no bias'])
@pytest.mark.parametrize('approximate', ['none', 'tanh'])
def test_linear_of_gelu(monkeypatch, limit, with_bias, approximate, seeded):
    """Four rows at a time."""
    if limit:
        monkeypatch.setattr(recompute, 'MAX_ELEMENTS_IN_CACHE', limit)
    leaves = [torch.randn(shape, dtype=torch.float64) for shape in ((3, 5, 6), (4, 6), (4,))[: 3 if with_bias else 2]]

    def ours(x, weight, bias=None):
        return linear_of_gelu(x, weight, bias, approximate)

    def theirs(x, weight, bias=None):
        return F.linear(F.gelu(x, approximate=approximate), weight, bias)

    assert_same(outputs_and_gradients(ours, *leaves), outputs_and_gradients(theirs, *leaves))
    assert torch.autograd.gradcheck(ours, [leaf.requires_grad_() for leaf in leaves])


def test_linear_of_gelu_under_autocast(seeded):
    leaves = [torch.randn(shape) for shape in ((5, 6), (4, 6), (4,))]
    with torch.autocast('cpu', torch.bfloat16):
        found = outputs_and_gradients(linear_of_gelu, *leaves)
        expected = outputs_and_gradients(lambda x, *linear: F.linear(F.gelu(x), *linear), *leaves)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05 * theirs.abs().max().item())
