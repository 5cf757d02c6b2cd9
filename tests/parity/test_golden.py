"""Parity with the released implementation, on every golden file under MMSOC_REFERENCE."""

import numpy as np
import pytest
import torch

from mmsoc.conversion import ReleasedStateDictAdapter
from tests.conftest import reference_path
from tests.parity.golden import LOSSES, golden_batch, golden_model, loss_weights

GOLDEN = sorted((reference_path() / 'golden').glob('*.npz'))
# The released code adds 1e-6 to numerators and denominators of the GIoU, mmdet does not: up to 1e-3 at a box side of 0.03.
LOSS_TOLERANCE = dict(loss_contrastive=1e-5, loss_giou=1e-3)

pytestmark = pytest.mark.skipif(not GOLDEN, reason=f'no golden files under {reference_path()} (set MMSOC_REFERENCE)')


def relative(found, expected) -> float:
    """Largest difference over largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_golden(path, root, reference, tmp_path, record_property):
    case = dict(np.load(path))
    model = golden_model(case, reference / 'golden', root, tmp_path)
    inputs, samples = golden_batch(case)
    errors = {}
    if path.stem.startswith('eval'):
        model.eval()
        with torch.no_grad():
            (output,) = model(inputs, samples, mode='tensor')
        _compare_outputs(output, case, 'out_', errors)
    else:
        model.train()
        with torch.no_grad():
            outputs = model(inputs, samples, mode='tensor')
        for layer, output in enumerate(outputs):
            _compare_outputs(output, case, f'out_l{layer}_', errors)
        _compare_losses(model, inputs, samples, case, errors)
    for name, value in errors.items():
        record_property(name, value)
    print(path.stem, {name: f'{value:.1e}' for name, value in errors.items()})


def _compare_outputs(output, case, prefix, errors):
    expected = dict(masks='pred_masks', logits='pred_cls', boxes='pred_boxes')
    for name, golden_name in expected.items():
        _expect(
            errors,
            f'outputs {prefix}{golden_name}',
            relative(output[name].transpose(0, 1).numpy(), case[prefix + golden_name]),
            1e-4,
        )
    _expect(
        errors,
        f'outputs {prefix}pred_logit',
        relative(output['video_queries'].numpy(), case[f'{prefix}pred_logit']),
        1e-4,
    )
    _expect(errors, 'outputs guidance', relative(output['guidance'].numpy(), case['out_text_sentence_feature']), 1e-4)


def _compare_losses(model, inputs, samples, case, errors):
    recorded = []
    match = type(model.criterion).match

    def recording(*args, **kwargs):
        recorded.append(match(model.criterion, *args, **kwargs))
        return recorded[-1]

    model.criterion.match = recording
    losses = model(inputs, samples, mode='loss')
    (matched_DM,) = recorded
    for layer, indices in enumerate(matched_DM):
        assert indices.tolist() == case[f'match_l{layer}'].tolist(), f'matches of layer {layer}'

    weights = loss_weights(model)
    assert len(losses) == 3 * len(LOSSES)
    for name, golden_name in LOSSES.items():
        for prefix, suffix in (('d0.', '_0'), ('d1.', '_1'), ('', '')):
            expected = float(case[f'loss_{golden_name}{suffix}'])
            found = losses[prefix + name].item() / weights[name]
            _expect(
                errors, f'loss {prefix}{name}', abs(found - expected) / abs(expected), LOSS_TOLERANCE.get(name, 1e-4)
            )
    total = sum(losses.values())
    expected = float(case['loss_total_official_weights'])
    _expect(errors, 'loss total', abs(total.item() - expected) / expected, 1e-4)

    total.backward()
    _compare_gradients(model, case, errors)


def _compare_gradients(model, case, errors):
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    golden = {key.removeprefix('gradnorm_'): float(value) for key, value in case.items() if key.startswith('gradnorm_')}
    names = ReleasedStateDictAdapter.mmsoc_names(golden)
    largest = max(golden.values())
    compared = set()
    for released_name, expected in golden.items():
        name = names[released_name]
        gradient = gradients[name]
        compared.add(name)
        found = 0.0 if gradient is None else gradient.norm().item()
        _expect(errors, f'gradient {released_name}', abs(found - expected) / largest, 5e-4)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained <= compared, f'no golden gradient for {sorted(trained - compared)[:5]}'


def _expect(errors, name, error, tolerance):
    kind = name.split()[0] if name.split()[0] != 'loss' else 'loss ' + name.split()[-1].split('.')[-1]
    errors[kind] = max(errors.get(kind, 0.0), error)
    assert error < tolerance, f'{name}: error {error:.2e}, tolerance {tolerance:.0e}'
