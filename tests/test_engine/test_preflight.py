"""What is found before a run starts."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmsoc.engine import preflight as module
from mmsoc.engine.preflight import Finding, preflight, report, without_unscored_validation
from mmsoc.preparation.moving_shapes import Settings, generate
from mmsoc.utils.errors import UserError
from tests.conftest import ROOT


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    out = tmp_path_factory.mktemp('preflight') / 'moving-shapes'
    generate(out, Settings(train_videos=4, valid_videos=4), workers=1)
    return out


@pytest.fixture
def cfg(videos, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/soc/soc_tiny_moving-shapes.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(videos)
        cfg[f'{split}_dataloader'].dataset.indices = None
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


def texts(found, level):
    return [finding.text for finding in found if finding.level == level]


def test_nothing_is_missing(cfg):
    found = preflight(cfg, 'train', processes=2)
    assert not texts(found, 'error') and not texts(found, 'warning')
    assert not texts(preflight(cfg, 'test', checkpoint=__file__), 'error')
    assert not Path(cfg.work_dir).exists()


def test_everything_at_once(cfg, monkeypatch, tmp_path):
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'absent')
    cfg.val_dataloader.dataset.ann_file = 'nothing.json'
    cfg.model.backbone.pretrained = 'backbone.pth'
    cfg.load_from = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.train_cfg.max_epochs = 10**8
    found = preflight(cfg, 'train', processes=3)
    errors = '\n'.join(texts(found, 'error'))
    assert 'train data: data_root: there is no folder' in errors and 'val data: ' in errors and 'nothing.json' in errors
    assert 'model.backbone.pretrained: there is no file backbone.pth' in errors
    assert 'work_dir: the checkpoints need about' in '\n'.join(texts(found, 'warning'))
    assert '3 processes x batch_size 4 = 12, but the learning rate is for 8' in '\n'.join(texts(found, 'warning'))
    assert [finding.level for finding in found] == sorted(
        (f.level for f in found), key=['error', 'warning', 'note'].index
    )
    assert all(finding.remedy for finding in found if finding.level == 'error' and 'data: ' in finding.text)


def test_the_roberta_of_the_full_configs(monkeypatch, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/soc/soc_swin-t_ytvos.py')
    cfg.work_dir = str(tmp_path)
    monkeypatch.setattr('huggingface_hub.try_to_load_from_cache', lambda *_: None)
    for offline, level in ((False, 'note'), (True, 'error')):
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', offline)
        said = '\n'.join(texts(preflight(cfg, 'train'), level))
        assert 'model.text_encoder.pretrained: roberta-base is not in the cache' in said
    monkeypatch.setattr('huggingface_hub.try_to_load_from_cache', lambda *_: '/some/file')
    assert not any('text_encoder' in finding.text for finding in preflight(cfg, 'train'))
    monkeypatch.setattr(
        'huggingface_hub.try_to_load_from_cache', lambda _, file: '/a' if file == 'vocab.json' else None
    )
    (said,) = [finding.text for finding in preflight(cfg, 'train') if 'text_encoder' in finding.text]
    assert said.startswith('model.text_encoder.pretrained: roberta-base is not in the cache')
    assert not any('text_encoder' in finding.text for finding in preflight(cfg, 'test'))  # it needs the tokenizer alone
    cfg.model.text_encoder.pretrained = str(tmp_path)
    assert not any('text_encoder' in finding.text for finding in preflight(cfg, 'test'))


def test_names_of_weights(cfg, monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    cfg.load_from = 'video-swin-tiny'
    assert "load_from: there is no file 'video-swin-tiny'" in texts(preflight(cfg, 'train'), 'error')[0]
    cfg.load_from = None
    cfg.model.backbone.pretrained = 'video-swin-t'
    assert texts(preflight(cfg, 'train'), 'note')[0].startswith(
        'model.backbone.pretrained: video-swin-t is downloaded first'
    )


def test_gpus(cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    found = preflight(cfg, 'test', processes=8)
    assert '8 processes, but PyTorch shows 2 GPUs' in texts(found, 'error')
    assert any('built without CUDA' in text for text in texts(found, 'warning'))
    assert not any('GPU' in finding.text for finding in preflight(cfg, 'test', processes=0))


def test_no_gpu_and_many_processes(cfg, monkeypatch):
    monkeypatch.setattr(module.os, 'sched_getaffinity', lambda _: {0, 1})
    assert texts(preflight(cfg, 'test', processes=8), 'warning') == [
        'no GPU: 8 processes share 2 cores, and wait for each other'
    ]


def test_memory(monkeypatch, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/soc/soc_swin-t_ytvos.py')
    cfg.work_dir = str(tmp_path)

    def said(processes):
        found = texts(preflight(cfg, 'train', processes=processes), 'warning')
        return [text for text in found if 'a training step may need' in text]

    monkeypatch.setattr(module.psutil, 'virtual_memory', lambda: SimpleNamespace(available=12e9))
    assert not said(1)  # docs/benchmarks.md measures 9.6 GB
    assert said(2) == ['a training step may need about 19 GB of memory, and this machine has 12 GB']
    cfg.model.backbone.with_cp = True
    assert not said(2)


def test_an_earlier_run(cfg):
    folder = Path(cfg.work_dir)
    folder.mkdir()
    (folder / 'epoch_3.pth').touch()
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
    (said,) = [text for text in texts(preflight(cfg, 'train', processes=2), 'warning') if 'epoch_3' in text]
    assert 'already holds a run (epoch_3.pth)' in said
    assert not [
        text for text in texts(preflight(cfg, 'train', processes=2, resume=True), 'warning') if 'epoch_3' in text
    ]


@pytest.fixture
def without_masks(cfg, videos, tmp_path):
    """The public download: the validation sentences have no objects, and there are no masks."""
    root = tmp_path / 'public'
    shutil.copytree(videos, root)
    shutil.rmtree(root / 'valid' / 'Annotations')
    path = root / 'meta_expressions' / 'valid' / 'meta_expressions.json'
    content = json.loads(path.read_text())
    for video in content['videos'].values():
        for expression in video['expressions'].values():
            del expression['obj_id']
    path.write_text(json.dumps(content))
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(root)
    return cfg


def test_validation_without_masks_is_a_warning_and_is_left_out(without_masks):
    cfg = without_masks
    found = preflight(cfg, 'train', processes=2)
    assert not texts(found, 'error')
    assert texts(found, 'warning')[0].startswith('the val split has no masks, so nothing is validated')
    reason = without_unscored_validation(cfg)
    assert reason.startswith('require_masks: ')
    assert cfg.val_dataloader is cfg.val_evaluator is cfg.val_cfg is None
    assert cfg.default_hooks.checkpoint.save_best is None
    # The final scoring says what to do.
    (error,) = texts(preflight(cfg, 'test'), 'error')
    assert 'require_masks: ' in error and 'Add them' in error


def test_validation_with_masks_stays(cfg):
    assert without_unscored_validation(cfg) is None and cfg.val_dataloader is not None
    cfg.val_dataloader = None
    assert without_unscored_validation(cfg) is None


def test_a_half_unpacked_data_set_is_an_error(cfg, videos, tmp_path):
    root = tmp_path / 'half'
    shutil.copytree(videos, root)
    shutil.rmtree(next((root / 'train' / 'JPEGImages').iterdir()))
    cfg.train_dataloader.dataset.data_root = str(root)
    (error,) = texts(preflight(cfg, 'train', processes=2), 'error')
    assert error.startswith('train data: ') and 'JPEGImages' in error


def test_the_report(capsys):
    report([Finding('note', 'a'), Finding('warning', 'b', 'c')], 'x.py')
    assert capsys.readouterr().err == 'note: a\nwarning: b\n    -> c\n'
    with pytest.raises(UserError, match='x.py: 1 of the above is an error; nothing was started'):
        report([Finding('error', 'a')], 'x.py')


def test_on_other_machines_errors_are_warnings(cfg, tmp_path):
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'absent')
    found = preflight(cfg, 'train', processes=0)
    assert not texts(found, 'error') and any(text.endswith('(on this machine)') for text in texts(found, 'warning'))


def test_a_resumed_run_needs_no_load_from(cfg):
    cfg.load_from = 'gone.pth'
    assert any('gone.pth' in text for text in texts(preflight(cfg, 'train', processes=2), 'error'))
    assert not texts(preflight(cfg, 'train', processes=2, resume=True), 'error')
    assert any('gone.pth' in text for text in texts(preflight(cfg, 'train', 2, 'gone.pth', resume=True), 'error'))


def test_what_cannot_be_inspected_is_left_alone(cfg):
    cfg.train_dataloader.dataset = dict(type='RefYouTubeVOSDataset', no_such_argument=1)
    cfg.val_dataloader = [dict(dataset=dict(type='NoSuchDataset'))]
    cfg.model = dict(type='NoSuchModel')
    assert not texts(preflight(cfg, 'train', processes=2), 'error')
    assert without_unscored_validation(cfg) is None


def test_a_scaled_learning_rate_and_several_nodes(cfg, monkeypatch):
    assert not any('learning rate' in text for text in texts(preflight(cfg, 'train', processes=2), 'warning'))
    monkeypatch.setenv('NNODES', '2')
    assert any('= 16, but the learning rate' in text for text in texts(preflight(cfg, 'train', processes=2), 'warning'))
    cfg.auto_scale_lr.enable = True
    assert not any('learning rate' in text for text in texts(preflight(cfg, 'train', processes=2), 'warning'))
