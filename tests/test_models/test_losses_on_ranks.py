"""Losses of two processes with unequal numbers of sentences are those of one process with all of them."""

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmsoc.models.layers.deformable_attention import MultiScaleDeformableAttention
from mmsoc.models.losses import mean_over_processes
from tests.conftest import ROOT
from tests.helpers import make_sample, random_clip, small_model, stack_clips
from tests.ranks import assert_ended_well, run_on_ranks

SHARES = ([0], [1, 2, 3])  # the clips of each rank, with one sentence each
SIZES = [(64, 96), (64, 96), (45, 77), (64, 96)]  # of the clips; padded ones have fewer cells with a category
TEXTS = ['a red car', 'the dog', 'a person on a bench', 'the left box']


def build_model() -> nn.Module:
    heads = [dict(type='FusionMaskHead', embed_dims=128), dict(type='CategoryMapHead', embed_dims=128, num_classes=6)]
    model = small_model(ROOT, auxiliary_heads=heads)
    for module in model.modules():
        if isinstance(module, MultiScaleDeformableAttention):
            # Fresh weights sample at the centres of pixels, where the gradient jumps and rounding decides on its value.
            nn.init.normal_(module.sampling_offsets.bias)
    return model


def losses_and_gradients(model: nn.Module, clips: list[int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Each loss of these clips, and its gradient with respect to all parameters, joined."""
    videos, samples = [], []
    for i in clips:
        video, masks = random_clip(2, SIZES[i], seed=i)
        videos.append(video)
        samples.append(make_sample(SIZES[i], [TEXTS[i]], masks, padded=(64, 96)))
    losses = model.loss(stack_clips(videos), samples)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = {}
    for name, loss in losses.items():
        if 'loss' in name:
            gradients = torch.autograd.grad(
                loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            found[name] = loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])
    return found


def work(rank, folder):
    import torch.distributed as dist

    dist.init_process_group('gloo')
    init_default_scope('mmsoc')
    all_reduce, calls = dist.all_reduce, []
    dist.all_reduce = lambda *args, **kwargs: calls.append(1) or all_reduce(*args, **kwargs)
    found = losses_and_gradients(build_model(), SHARES[rank])
    dist.all_reduce = all_reduce
    for values in found.values():
        for value in values:  # as DDP does with gradients
            dist.all_reduce(value)
            value /= 2
    counts = mean_over_processes(rank, torch.tensor(3 * rank), 7, device=torch.device('cpu'))
    torch.save((found, len(calls), [float(count) for count in counts]), folder / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Of both ranks: losses and gradients, averaged; the number of all-reduces that they needed; means of counts."""
    folder = tmp_path_factory.mktemp('ranks')
    ended = run_on_ranks(work, folder, folder=folder, seconds=300)
    assert_ended_well(ended)
    return [torch.load(folder / f'{rank}.pth') for rank in range(2)]


def test_every_loss_is_that_of_one_process_with_all_sentences(results):
    found = results[0][0]
    expected = losses_and_gradients(build_model(), [0, 1, 2, 3])
    layers = ('', 'd0.')
    names = ('loss_cls', 'loss_mask', 'loss_dice', 'loss_bbox', 'loss_giou', 'loss_contrastive')
    auxiliary = {'aux.loss_fusion_bce', 'aux.loss_fusion_dice', 'aux.loss_category'}
    assert expected.keys() == found.keys() == {layer + name for layer in layers for name in names} | auxiliary
    errors = {}
    for name, (loss, gradient) in expected.items():
        assert gradient.abs().max() > 0, name
        errors[name] = (
            float((found[name][0] - loss).abs() / loss),
            float((found[name][1] - gradient).abs().max() / gradient.abs().max()),
        )
    print({name: f'{loss:.0e} {gradient:.0e}' for name, (loss, gradient) in errors.items()})
    assert max(max(pair) for pair in errors.values()) < 1e-4, errors


def test_one_all_reduce_for_the_criterion_and_one_for_each_auxiliary_head(results):
    assert [calls for _, calls, _ in results] == [3, 3]


def test_means_of_counts(results):
    # Counts of ranks 0 and 1: (0, 1), (0, 3), (7, 7); the first mean is below 1.
    assert [counts for *_, counts in results] == [[1, 1.5, 7]] * 2
    assert mean_over_processes(0, 5, device=torch.device('cpu')) == (1, 5)
    (count,) = mean_over_processes(torch.tensor(0), device=torch.device('cpu'))
    assert count == 1
