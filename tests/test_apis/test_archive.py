"""Many videos: what is done, broken, interrupted."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmsoc.apis import SOCInferencer, archive
from mmsoc.registry import MODELS
from mmsoc.utils.errors import UserError
from mmsoc.visualization import write_video
from mmsoc.weights.publishing import publish
from tests.conftest import ROOT


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / 'configs/soc/soc_tiny_moving-shapes.py')
    return str(publish(MODELS.build(cfg.model).state_dict(), cfg, tmp_path_factory.mktemp('weights'), 'tiny'))


def write(path, seed, num_frames=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(seed).integers(0, 255, (num_frames, 64, 96, 3), dtype=np.uint8)
    write_video(path, list(frames))
    return path


@pytest.fixture
def videos(tmp_path):
    """Four videos, of which one is none."""
    found = [write(tmp_path / 'videos' / f'{name}.mp4', seed) for seed, name in enumerate(('a', 'b', 'd'))]
    (tmp_path / 'videos' / 'c.mp4').write_bytes(b'no video')
    return sorted([*found, tmp_path / 'videos' / 'c.mp4'])


def manifest(tmp_path, rows, header=('video', 'text')):
    path = tmp_path / 'manifest.csv'
    with path.open('w', newline='') as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def test_a_manifest(tmp_path):
    path = manifest(
        tmp_path, [('a.mp4', 'x'), ('b.mp4', 'y'), ('a.mp4', 'z'), ('a.mp4', 'x'), ('s3://bucket/c.mp4', 'w')]
    )
    found = archive.read_manifest(path)
    assert [(task.video, task.texts) for task in found] == [
        (str(tmp_path / 'a.mp4'), ('x', 'z')),
        (str(tmp_path / 'b.mp4'), ('y',)),
        ('s3://bucket/c.mp4', ('w',)),
    ]


@pytest.mark.parametrize(
    'rows, header, message',
    [
        ([], ('video', 'text'), 'there are no rows'),
        ([('a', 'b')], ('file', 'text'), 'expected the columns video and text, found file, text'),
        ([('a.mp4', 'x'), ('b.mp4', ' ')], ('video', 'text'), 'line 3: expected a video and a text'),
    ],
)
def test_manifests_with_faults(tmp_path, rows, header, message):
    with pytest.raises(UserError, match=message):
        archive.read_manifest(manifest(tmp_path, rows, header))
    (tmp_path / 'latin.csv').write_bytes('video,text\na.mp4,caf\xe9\n'.encode('latin-1'))
    with pytest.raises(UserError, match='latin.csv: expected a csv file in UTF-8'):
        archive.read_manifest(tmp_path / 'latin.csv')
    with pytest.raises(FileNotFoundError, match='manifest no.csv: there is no such file'):
        archive.read_manifest('no.csv')


def test_folders_and_globs(tmp_path, videos):
    folder = str(tmp_path / 'videos')
    for sources in ([folder], [f'{folder}/*.mp4'], list(map(str, videos)), [folder, f'{folder}/a.mp4']):
        assert [task.video for task in archive.tasks_of(sources, ['x'])] == list(map(str, videos))
    frames = tmp_path / 'frames'
    frames.mkdir()
    Image.new('RGB', (96, 64)).save(frames / '0.png')
    assert [task.video for task in archive.tasks_of([str(frames)], ['x'])] == [str(frames)]
    Image.new('RGB', (96, 64)).save(tmp_path / 'videos' / 'cover.jpg')
    with pytest.raises(
        UserError, match=r'expected a folder of videos or a folder of frames, found both \(cover.jpg, a.mp4\)'
    ):
        archive.tasks_of([folder], ['x'])
    with pytest.raises(UserError, match='expected a manifest .* found nothing'):
        archive.tasks_of([f'{folder}/*.avi'], ['x'])
    with pytest.raises(UserError, match='--text: expected at least one sentence'):
        archive.tasks_of([str(frames)], [])


def test_names_of_folders_are_unique():
    tasks = [archive.Task(video, texts) for video in ('/x/a b.mp4', '/y/a b.mp4') for texts in (('u',), ('u', 'v'))]
    names = {task.folder for task in tasks}
    assert len(names) == 4 and all(name.startswith('a_b-') for name in names)


def outcomes_of(videos, out, weights, **kwargs):
    tasks = [archive.Task(str(video), ('a red car', 'the dog')) for video in videos]
    load = dict(weights=weights, device='cpu')
    return {
        Path(outcome.task.video).stem: outcome
        for outcome in archive.run_on_workers(tasks, out, [load], dict(formats=['png']), **kwargs)
    }


def masks_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob('masks/*/*.png'))}


def test_a_broken_video_does_not_stop_the_rest(videos, weights, tmp_path):
    out = tmp_path / 'out'
    found = outcomes_of(videos, out, weights)
    assert {name: outcome.status for name, outcome in found.items()} == dict(a='done', b='done', c='broken', d='done')
    assert 'c.mp4' in found['c'].reason
    record = json.loads((out / found['c'].task.folder / archive.BROKEN).read_text())
    assert record['reason'] == found['c'].reason and record['texts'] == ['a red car', 'the dog']
    # the same masks as one by one
    inferencer = SOCInferencer(weights=weights, device='cpu', show_progress=False)
    for name in ('a', 'd'):
        inferencer(tmp_path / 'videos' / f'{name}.mp4', ['a red car', 'the dog'], out_dir=tmp_path / name)
        assert masks_of(out / found[name].task.folder) == masks_of(tmp_path / name) != {}
    # Finished videos are known, with these weights only.
    load, call = dict(weights=weights, device='cuda'), dict(formats=['png'])
    settings = archive.settings_of(load, call)  # those of the run but for the device
    assert archive.earlier(out, found['a'].task, settings).status == 'earlier'
    assert archive.earlier(out, found['c'].task, settings) is None
    for other in (
        archive.settings_of(load, dict(formats=['coco'])),
        archive.settings_of(dict(load, config='c.py'), call),
    ):
        assert archive.earlier(out, found['a'].task, other) is None
    (out / found['a'].task.folder / 'scores.json').write_text('{')
    assert archive.earlier(out, found['a'].task, settings) is None
    # The broken one is repaired.
    write(tmp_path / 'videos' / 'c.mp4', 7)
    again = outcomes_of([tmp_path / 'videos' / 'c.mp4'], out, weights)
    assert again['c'].status == 'done' and not (out / again['c'].task.folder / archive.BROKEN).exists()


def test_a_worker_that_is_killed_is_replaced(videos, weights, tmp_path):
    pids, found = [], {}
    tasks = [archive.Task(str(video), ('x',)) for video in videos if video.stem != 'c']
    load = dict(weights=weights, device='cpu')
    for outcome in archive.run_on_workers(tasks, tmp_path / 'out', [load], {}, started=lambda _, pid: pids.append(pid)):
        found[Path(outcome.task.video).stem] = outcome
        if len(found) == 1:
            os.kill(pids[0], signal.SIGKILL)
    assert {name: outcome.status for name, outcome in found.items()} == dict(a='done', b='done', d='done')
    assert len(pids) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_on_ray_that_is_killed_is_replaced(videos, weights, tmp_path):
    ray = pytest.importorskip('ray')
    ray.init('local', num_cpus=2, log_to_driver=False, include_dashboard=False)
    try:
        found = {}
        tasks = [archive.Task(str(video), ('a red car', 'the dog')) for video in videos]
        tasks += [archive.Task(str(video), (f'sentence {number}',)) for video in videos[:2] for number in range(6)]
        load = dict(weights=weights, device='cpu')
        killed = []
        for outcome in archive.run_on_ray(tasks, tmp_path / 'out', load, dict(formats=['png']), workers=2):
            assert outcome.task not in found
            found[outcome.task] = outcome
            if not killed:
                killed = [process for process in psutil.process_iter(['cmdline']) if is_ray_actor(process)]
                os.kill(killed[0].pid, signal.SIGKILL)
        assert len(killed) == 2
    finally:
        ray.shutdown()
    assert set(found) == set(tasks)
    assert [task.video for task, outcome in found.items() if outcome.status != 'done'] == [
        str(tmp_path / 'videos/c.mp4')
    ]
    inferencer = SOCInferencer(weights=weights, device='cpu', show_progress=False)
    for number, task in enumerate(tasks):
        if found[task].status == 'done':
            inferencer(task.video, list(task.texts), out_dir=tmp_path / str(number))
            assert masks_of(tmp_path / 'out' / task.folder) == masks_of(tmp_path / str(number)) != {}


def is_ray_actor(process):
    return bool(process.info['cmdline']) and process.info['cmdline'][0].startswith('ray::Actor')


def test_a_full_disk_ends_the_run(monkeypatch, tmp_path):
    def full(*args, **kwargs):
        def segment(task):
            raise OSError(errno.ENOSPC, 'No space left on device', 'mask.png')

        return segment

    monkeypatch.setattr(archive, 'Segmenter', full)
    monkeypatch.setattr(archive.signal, 'signal', lambda *_: None)
    sent = []
    connection = SimpleNamespace(send=sent.append, recv=lambda: archive.Task('a.mp4', ('x',)))
    archive._work(connection, str(tmp_path), {}, {}, threads=torch.get_num_threads())
    # A text: the parent raises it.
    assert sent == [None, "[Errno 28] No space left on device: 'mask.png'"]


@pytest.mark.parametrize('fault', [EOFError, BrokenPipeError, ConnectionResetError])
def test_a_worker_whose_parent_is_killed_ends_without_a_traceback(monkeypatch, tmp_path, fault):
    monkeypatch.setattr(archive, 'Segmenter', lambda *args: lambda task: archive.Outcome(task, 'done'))
    monkeypatch.setattr(archive.signal, 'signal', lambda *_: None)

    def send(message):
        if message is not None:
            raise fault

    def recv():
        if fault is EOFError:
            raise fault
        return archive.Task('a.mp4', ('x',))

    archive._work(SimpleNamespace(send=send, recv=recv), str(tmp_path), {}, {}, threads=torch.get_num_threads())


def test_the_summary(tmp_path):
    done = archive.Outcome(archive.Task('a.mp4', ('x', 'y')), 'done', 1.5, 3, [0.25, 0.5])
    broken = archive.Outcome(archive.Task('b.mp4', ('z',)), 'broken', reason='no video')
    archive.write_summary(tmp_path / 's.csv', [done, broken])
    rows = list(csv.DictReader((tmp_path / 's.csv').open()))
    assert [(row['video'], row['text'], row['status'], row['score']) for row in rows] == [
        ('a.mp4', 'x', 'done', '0.25'),
        ('a.mp4', 'y', 'done', '0.5'),
        ('b.mp4', 'z', 'broken', ''),
    ]
    assert rows[2]['reason'] == 'no video'


def test_an_address(videos, tmp_path):
    with archive._local(f'file://{videos[0]}') as path:
        assert Path(path).read_bytes() == videos[0].read_bytes() and path != str(videos[0])
    assert not Path(path).exists()


@pytest.mark.slow
def test_the_tool_goes_on_where_it_was(videos, weights, tmp_path):
    command = [
        *(sys.executable, str(ROOT / 'tools/infer_many.py'), str(tmp_path / 'videos'), '--text', 'x', '--jobs', '1'),
        *('--weights', weights, '--out', str(tmp_path / 'out')),
    ]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert first.returncode == 1 and '3 videos segmented, 0 earlier, 1 broken' in first.stdout, (
        first.stdout + first.stderr
    )
    write(tmp_path / 'videos' / 'c.mp4', 7)
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert again.returncode == 0 and '1 videos segmented, 3 earlier, 0 broken' in again.stdout, (
        again.stdout + again.stderr
    )


def test_weights_that_cannot_be_loaded(tmp_path, videos):
    tasks = [archive.Task(str(videos[0]), ('x',))]
    with pytest.raises(UserError, match='nothing.pth'):
        list(archive.run_on_workers(tasks, tmp_path / 'out', [dict(weights=str(tmp_path / 'nothing.pth'))], {}))
