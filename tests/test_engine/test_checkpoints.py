"""Checkpoints: plain, complete at any moment, refused where they do not fit, and enough to go on from."""

import os
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import get_file_backend

from mmsoc.engine.hooks import SafeCheckpointHook, StrictLoadHook
from mmsoc.engine.hooks.plain_checkpoint_hook import plain
from mmsoc.engine.hooks.safe_checkpoint_hook import AtomicLocalBackend
from mmsoc.utils.files import atomic_path


def weights(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def test_plain_values():
    found = plain(
        OrderedDict(
            a=np.float64(1.5),
            b=(np.int64(2), [True]),
            c=np.array([[1, 2]]),
            d=Counter({3: 1}),
            e={2, 1},
            f=Path('x'),
            g=torch.float32,
            h=None,
            i=np.str_('s'),
        ),
        '',
    )
    assert found == OrderedDict(
        a=1.5, b=(2, [True]), c=[[1, 2]], d={3: 1}, e=[1, 2], f='x', g='torch.float32', h=None, i='s'
    )
    assert (
        type(found['a']) is float
        and type(found['b'][0]) is int
        and type(found['d']) is dict
        and type(found['i']) is str
    )
    assert plain({}, '') == {}
    with pytest.raises(ValueError, match=r'checkpoint\[meta\.a\[1\]\] is a builtins\.object'):
        plain(dict(a=[0, object()]), 'meta')


def test_checkpoint_is_plain_and_resumes_as_if_unbroken(run, tmp_path):
    unbroken = run('unbroken', **{'train_cfg.max_epochs': 3, 'train_dataloader.num_workers': 2})
    unbroken.train()

    first = run('broken', **{'train_cfg.max_epochs': 2, 'train_dataloader.num_workers': 2})
    first.train()
    file = tmp_path / 'broken' / 'epoch_2.pth'
    checkpoint = torch.load(file, weights_only=True)
    assert {'meta', 'state_dict', 'message_hub', 'optimizer', 'param_schedulers'} <= set(checkpoint)
    assert checkpoint['meta']['dataset_meta'] == dict(classes=('referred',), palette=[[1, 2, 3]])
    assert type(checkpoint['message_hub']['runtime_info']['best_score']) is float
    assert checkpoint['message_hub']['runtime_info']['keep_ckpt_ids'] == [1, 2]
    assert checkpoint['state_dict']._metadata  # the modules' versions are kept

    second = run('broken', **{'train_cfg.max_epochs': 3, 'train_dataloader.num_workers': 2})
    second._load_from, second._resume = str(file), True
    second.train()
    assert second.epoch == 3
    # The drop after epoch 2 comes from the resumed scheduler: .01 * .1 * .1, and .1 again for the backbone.
    rates = [group['lr'] for group in second.optim_wrapper.optimizer.param_groups]
    assert sorted(set(np.round(rates, 9))) == [1e-5, 1e-4]
    # Same draws in the third epoch (8 samples), though not the same as in the second.
    assert second.model.seen == unbroken.model.seen[16:]
    assert set(second.model.seen).isdisjoint(unbroken.model.seen[:16])
    for name, value in weights(unbroken).items():
        torch.testing.assert_close(value, weights(second)[name], rtol=0, atol=0)


def test_what_has_no_plain_form_is_named(run):
    runner = run('odd', **{'train_cfg.max_epochs': 1})
    runner.message_hub.update_info('odd', object())
    runner.train()  # the hub's odd value is left out
    runner.train_dataloader.dataset.metainfo['odd'] = object()
    with pytest.raises(ValueError, match=r'meta\.dataset_meta\.odd'):
        runner.save_checkpoint(runner.work_dir, 'odd.pth')


def test_keeps_the_newest_and_the_best(run, tmp_path):
    run('keep', **{'train_cfg.max_epochs': 4, 'default_hooks.checkpoint.max_keep_ckpts': 2}).train()
    names = sorted(path.name for path in (tmp_path / 'keep').glob('*.pth'))
    best = [name for name in names if name.startswith('best_')]
    assert [name for name in names if name.startswith('epoch')] == ['epoch_3.pth', 'epoch_4.pth']
    assert len(best) == 1 and best[0].startswith('best_toy_JF_epoch_')  # without the & of toy/J&F
    assert (tmp_path / 'keep' / 'last_checkpoint').read_text().endswith('epoch_4.pth')
    assert not list((tmp_path / 'keep').glob('.*'))


def test_old_checkpoint_goes_last(run, tmp_path, monkeypatch):
    """With one checkpoint kept, the old file is there whenever the new one is not yet complete."""
    runner = run('one', **{'train_cfg.max_epochs': 3, 'default_hooks.checkpoint.max_keep_ckpts': 1})
    folder = tmp_path / 'one'
    complete = []
    replace = os.replace

    def spy(source, target):
        complete.append((Path(target).name, sorted(path.name for path in folder.glob('epoch_*.pth'))))
        replace(source, target)

    monkeypatch.setattr(os, 'replace', spy)
    runner.train()
    assert ('epoch_2.pth', ['epoch_1.pth']) in complete and ('epoch_3.pth', ['epoch_2.pth']) in complete
    assert [path.name for path in folder.glob('epoch_*.pth')] == ['epoch_3.pth']


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    backend = get_file_backend(backend_args=dict(backend='mmsoc_atomic'))
    assert isinstance(backend, AtomicLocalBackend)
    file = tmp_path / 'a.pth'
    backend.put(b'old', file)

    def full(_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'No space left on device while writing .*a\.pth'):
        backend.put(b'new', file)
    assert file.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.pth']


def test_half_written_file_of_a_killed_run_is_removed(run, tmp_path):
    runner = run('left', **{'train_cfg.max_epochs': 1})
    killed = atomic_path(tmp_path / 'left' / 'epoch_1.pth')
    half = killed.__enter__()  # and never left
    half.write_bytes(b'half')
    runner.train()
    assert not half.exists() and not list((tmp_path / 'left').glob('.*'))


def test_better_is_greater_for_our_scores():
    for key in ('rvos/J&F', 'J&F', 'rvos/J', 'rvos/F', 'a2d/mIoU', 'a2d/P@0.5'):
        assert SafeCheckpointHook(save_best=key).rules == ['greater']
    assert SafeCheckpointHook(save_best='loss_focal').rules == ['less']


def test_unknown_score_is_named(run):
    runner = run('unknown', **{'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.save_best': 'rvos/J&F'})
    with pytest.raises(ValueError, match=r"save_best names \['rvos/JF'\].*\['toy/JF'\]"):
        runner.train()


def test_strict_load(run, tmp_path):
    file = tmp_path / 'other.pth'
    state = weights(run('a'))
    state['module.backbone.weight'] = state.pop('backbone.weight')  # saved from a wrapped model
    torch.save(dict(state_dict=state), file)
    run('b').load_checkpoint(str(file))

    del state['head.bias']
    state['extra'] = torch.zeros(2)
    state['head.weight'] = torch.zeros(1, 5)
    torch.save(dict(state_dict=state), file)
    runner = run('c')
    runner._load_from = str(file)
    with pytest.raises(ValueError) as error:
        runner.load_or_resume()
    message = str(error.value)
    assert str(file) in message and "2 of the model's 4 tensors fit" in message
    assert '1 missing from the checkpoint:\n    head.bias (1,)' in message
    assert '1 not in the model:\n    extra (2,)' in message
    assert 'head.weight: (1, 4) in the model, (1, 5) in the checkpoint' in message
    assert 'allow_missing' in message and 'allow_unexpected' in message

    hook = StrictLoadHook(allow_missing=[r'^head\.'], allow_unexpected=['^extra$', r'^head\.weight$'])
    assert hook.mismatch(weights(runner), state) == ''
    # Another shape needs both lists.
    assert 'head.weight' in StrictLoadHook(allow_missing=[r'^head\.'], allow_unexpected=['extra']).mismatch(
        weights(runner), state
    )


def test_checkpoint_of_another_architecture_is_summarised():
    expected = {f'backbone.{i}': torch.zeros(1) for i in range(500)}
    problem = StrictLoadHook().mismatch(expected, {f'layer{i}': torch.zeros(1) for i in range(300)})
    assert '... and 490 more' in problem and '... and 290 more' in problem and 'another architecture' in problem
    assert len(problem.splitlines()) < 30
    assert 'holds no tensors' in StrictLoadHook().mismatch(expected, {})
    assert 'holds no tensors' in StrictLoadHook().mismatch(expected, dict(model=dict(a=torch.zeros(1))))
    assert (
        StrictLoadHook().mismatch(
            {'bn.num_batches_tracked': torch.zeros(()), 'a': torch.zeros(1)}, dict(a=torch.zeros(1))
        )
        == ''
    )
    with pytest.raises(ValueError, match='list of regular expressions'):
        StrictLoadHook(allow_missing='head')


def test_non_finite_loss_stops_training(run):
    with pytest.raises(FloatingPointError, match='loss is nan at iteration 3'):
        run('nan', **{'model.explode_at': 3}).train()
