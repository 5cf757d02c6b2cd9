"""`model.test_cfg`: what is checked, and what becomes of the keys of earlier versions."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from mmengine.config import Config

from mmsoc.inference import (
    A2DMasks,
    AllQueries,
    MasksAndLogits,
    PredictionConfig,
    QueryByLength,
    QueryPerFrame,
    RecentFrames,
    ThinnedFrames,
    ThresholdedMasks,
    config,
)
from mmsoc.registry import MODELS, TASK_UTILS
from tests.helpers import small_model

from_dict = PredictionConfig.from_dict


@pytest.fixture
def said(monkeypatch):
    """What is logged."""
    messages = []
    monkeypatch.setattr(config, 'print_log', lambda message, **_: messages.append(message))
    return messages


def kinds(found):
    return type(found.selector), type(found.output), type(found.memory)


@pytest.mark.parametrize('given', [None, {}])
def test_defaults(given, said):
    found = from_dict(given)
    assert kinds(found) == (QueryByLength, ThresholdedMasks, ThinnedFrames) and found.output.mask_threshold == 0.5
    assert (found.predict_layer, found.frames_per_pass, found.frames_per_clip) == (-1, 32, None)
    assert (found.precision, found.compile, found.memory.num_frames) == ('fp32', False, 96) and not said


def test_slots(said):
    found = from_dict(
        dict(
            selector=dict(type='QueryPerFrame'),
            output=dict(mask_threshold=0.7),  # of the default type
            memory=dict(type='RecentFrames', num_frames=5),
        )
    )
    assert kinds(found) == (QueryPerFrame, ThresholdedMasks, RecentFrames) and not said
    assert found.output.mask_threshold == 0.7 and found.memory.num_frames == 5


@pytest.mark.parametrize(
    ('test_cfg', 'message'),
    [
        (dict(frames_per_pass=0), r'model\.test_cfg\.frames_per_pass=0: expected at least 1'),
        (dict(frames_per_clip=0), r'model\.test_cfg\.frames_per_clip=0: expected at least 1, or None'),
        (dict(precision='half'), r"precision='half': expected one of \('fp32', 'tf32', 'bf16', 'fp16'\)"),
        (dict(treshold=0.4), r"model\.test_cfg: unknown \['treshold'\]; expected some of \['predict_layer', "),
        (
            dict(output=dict(mask_threshold=0)),
            r'model\.test_cfg\.output\.mask_threshold=0: expected .* between 0 and 1',
        ),
        (dict(output=dict(mask_threshold=1)), r'mask_threshold=1: expected'),
        (dict(output=dict(type='A2DMasks', mask_threshold=-3)), r'mask_threshold=-3: expected'),
        (dict(mask_threshold=1.5), r'mask_threshold=1\.5: expected'),
        (
            dict(selector=dict(type='QueryByLength', max_frames=0)),
            r'model\.test_cfg\.selector\.max_frames=0: expected at least 1',
        ),
        (dict(memory=dict(num_frames=0)), r'model\.test_cfg\.memory\.num_frames=0: expected at least 1'),
        (dict(memory=dict(type='RecentFrames', num_frames=-1)), r'num_frames=-1: expected'),
        (
            dict(selector=dict(type='QueryPerVidoe')),
            r"model\.test_cfg\.selector: there is no type 'QueryPerVidoe'; there are \['AllQueries', 'QueryByLength', ",
        ),
        (dict(output=dict(type='Thresholded')), r"model\.test_cfg\.output: .*'Thresholded'; .*'ThresholdedMasks'\]"),
        (dict(memory=dict(type='AllFrames')), r"model\.test_cfg\.memory: .*\['RecentFrames', 'ThinnedFrames'\]"),
        (
            dict(selector=dict(type='A2DMasks')),
            r'model\.test_cfg\.selector=.*expected dict\(type=\.\.\.\) of a QuerySel',
        ),
        (dict(selector='QueryPerFrame'), r"model\.test_cfg\.selector='QueryPerFrame': expected dict\(type=\.\.\.\)"),
        (dict(output=None), r'model\.test_cfg\.output=None: expected dict\(type=\.\.\.\) of a MaskOutput'),
        (dict(memory=dict(type='QueryPerFrame')), r'expected dict\(type=\.\.\.\) of a FrameMemory'),
        (
            dict(all_queries=True, return_logits=True),
            'all_queries and return_logits do not go together; expected at most one of them',
        ),
    ],
)
def test_wrong_values(test_cfg, message):
    with pytest.raises(ValueError, match=message):
        from_dict(test_cfg)


def test_a_function_in_the_registry_does_not_hide_an_unknown_type(monkeypatch):
    monkeypatch.setitem(TASK_UTILS.module_dict, 'some_function', lambda: None)
    with pytest.raises(ValueError, match='there is no type'):
        from_dict(dict(selector=dict(type='QueryPerVidoe')))


def test_the_layer_that_predicts(root):
    assert [from_dict(dict(predict_layer=layer)).layer_of(3) for layer in (-3, -1, 0, 2)] == [0, 2, 0, 2]
    for layer in (-4, 3):
        with pytest.raises(ValueError, match=f'predict_layer={layer}: the decoder has 3 layers'):
            from_dict(dict(predict_layer=layer)).layer_of(3)
    with pytest.raises(ValueError, match='predict_layer=2: the decoder has 2 layers'):
        small_model(root, test_cfg=dict(predict_layer=2))
    with pytest.raises(ValueError, match=r"unknown \['treshold'\]"):
        small_model(root, test_cfg=dict(treshold=0.4))


def test_it_does_not_change():
    found = PredictionConfig()
    with pytest.raises(FrozenInstanceError):
        found.precision = 'bf16'
    other = replace(found, precision='bf16')
    assert (found.precision, other.precision) == ('fp32', 'bf16') and other.selector is found.selector
    with pytest.raises(ValueError, match='frames_per_pass=0'):
        replace(found, frames_per_pass=0)
    assert [found.sentences_at_once(frames) for frames in (1, 16, 17, 33)] == [32, 2, 1, 1]


@pytest.mark.parametrize(('precision', 'dtype'), [('fp32', None), ('bf16', torch.bfloat16)])
def test_the_device_of_autocast(precision, dtype):
    with PredictionConfig(precision=precision).autocast(torch.device('cpu')):
        assert torch.mm(*torch.ones(2, 1, 1)).dtype == (dtype or torch.float32)
    assert not torch.is_autocast_enabled('cpu')


# ------------------------------------------------------------------------------------------------ keys of mmsoc 0.2

OLD = {
    'query_per_frame': (True, "selector=dict(type='QueryPerFrame')", (QueryPerFrame, ThresholdedMasks)),
    'all_queries': (True, "selector=dict(type='AllQueries'), output=dict(type='A2DMasks')", (AllQueries, A2DMasks)),
    'return_logits': (True, "output=dict(type='MasksAndLogits')", (QueryByLength, MasksAndLogits)),
    'mask_threshold': (0.7, 'output=dict(mask_threshold=0.7)', (QueryByLength, ThresholdedMasks)),
}


@pytest.mark.parametrize('key', OLD)
def test_an_old_key(key, said):
    value, new, expected = OLD[key]
    found = from_dict({key: value})
    assert said == [f'model.test_cfg.{key} is now {new}']
    assert kinds(found)[:2] == expected and found.output.mask_threshold == (0.7 if key == 'mask_threshold' else 0.5)


@pytest.mark.parametrize('key', ['query_per_frame', 'all_queries', 'return_logits'])
def test_an_old_key_that_is_off(key, said):
    assert kinds(from_dict({key: False})) == kinds(PredictionConfig()) and not said


def test_several_old_keys(said):
    found = from_dict(dict(all_queries=True, mask_threshold=0.3, frames_per_pass=4))
    assert kinds(found)[:2] == (AllQueries, A2DMasks)
    assert found.output.mask_threshold == 0.3 and found.frames_per_pass == 4 and len(said) == 2
    found = from_dict(dict(query_per_frame=True, return_logits=True, mask_threshold=0.3))
    assert kinds(found)[:2] == (QueryPerFrame, MasksAndLogits) and found.output.mask_threshold == 0.3
    # All queries were predicted whatever query_per_frame was.
    assert kinds(from_dict(dict(query_per_frame=True, all_queries=True)))[:2] == (AllQueries, A2DMasks)


def test_old_and_new_keys_together(said):
    """The base config has the new ones: the old key of a config that inherits from it counts, and leaves the rest."""
    base = dict(selector=dict(type='QueryPerVideo'), output=dict(type='ThresholdedMasks', mask_threshold=0.4))
    found = from_dict(base | dict(query_per_frame=True, return_logits=True))
    assert kinds(found)[:2] == (QueryPerFrame, MasksAndLogits) and found.output.mask_threshold == 0.4
    of_length = base | dict(selector=dict(type='QueryByLength'))
    assert kinds(from_dict(of_length | dict(query_per_frame=True)))[0] is QueryPerFrame
    found = from_dict(base | dict(all_queries=True))
    assert kinds(found)[:2] == (AllQueries, A2DMasks) and found.output.mask_threshold == 0.4
    found = from_dict(dict(output=dict(type='A2DMasks')) | dict(mask_threshold=0.7))
    assert type(found.output) is A2DMasks and found.output.mask_threshold == 0.7
    assert len(said) == 5 and base['output'] == dict(type='ThresholdedMasks', mask_threshold=0.4), 'it was changed'


def test_a_new_type_named_on_purpose_counts(said):
    """As ``--query-per-frame`` does for a checkpoint whose config has an old key."""
    found = from_dict(dict(selector=dict(type='QueryPerFrame'), all_queries=True))
    assert kinds(found)[:2] == (QueryPerFrame, A2DMasks)
    assert any("selector.type='QueryPerFrame' counts, not all_queries" in message for message in said)


def test_a_config_file_with_old_keys(root, tmp_path, said):
    path = tmp_path / 'old.py'
    path.write_text(
        f'_base_ = {str(root / "configs/_base_/models/soc_tiny.py")!r}\n'
        'model = dict(test_cfg=dict(query_per_frame=True, mask_threshold=0.7))\n'
    )
    found = MODELS.build(Config.fromfile(path).model).test_cfg
    assert kinds(found)[:2] == (QueryPerFrame, ThresholdedMasks) and found.output.mask_threshold == 0.7
    assert len(said) == 2 and found.predict_layer == -1
