"""Live sources: masks as frames come, and a clear end whatever happens."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import av
import numpy as np
import pytest

from mmsoc.apis.live import FRAMES, LiveSource, run_live
from mmsoc.utils.errors import UserError
from tests.conftest import ROOT
from tests.test_engine.small_soc import TEXTS


def write_stream(path, count, size=(48, 64)):
    """MPEG-TS, which needs no index: a bright block moves over a dark ground."""
    height, width = size
    with av.open(str(path), 'w', format='mpegts') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        stream.options = {'g': '5', 'bf': '0'}
        for number in range(count):
            pixels = np.zeros((height, width, 3), np.uint8)
            left = 3 * number % (width - 16)
            pixels[8:24, left : left + 16] = (220, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(stream.encode())
    return path.read_bytes()


@contextmanager
def pipe(path, content):
    """A named pipe into which a thread writes."""
    os.mkfifo(path)

    def write():
        with open(path, 'wb') as file:
            file.write(content)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    yield str(path)
    thread.join(10)


def run(infer, content, tmp_path, texts=TEXTS[:2], **options):
    with pipe(tmp_path / 'pipe', content) as address:
        reports = []
        source = LiveSource(address, 'mpegts')
        found = run_live(infer, source, texts, tmp_path / 'out', chunk_frames=4, report=reports.append, **options)
    return found, reports


def written(folder):
    """Numbers of the masks of the first sentence, the lines, the frames of the overlay."""
    masks = sorted((folder / 'masks').iterdir())[0]
    lines = [json.loads(line) for line in (folder / FRAMES).read_text().splitlines()]
    with av.open(str(folder / 'overlay.mp4')) as video:
        overlay = sum(1 for _ in video.decode(video=0))
    return [int(path.stem) for path in sorted(masks.iterdir())], lines, overlay


def test_a_pipe(infer, tmp_path):
    found, reports = run(infer, write_stream(tmp_path / 'a.ts', 10), tmp_path)
    numbers, lines, overlay = written(tmp_path / 'out')
    assert numbers == [line['frame'] for line in lines] == list(range(10)) and overlay == 10
    assert (found['num_frames'], found['dropped'], found['broken'], found['end']) == (10, 0, 0, 'end of the stream')
    assert json.loads((tmp_path / 'out' / 'scores.json').read_text())['sentences'] == found['sentences']
    assert [report.frames for report in reports] == [range(4), range(4, 8), range(8, 10)]
    assert all(report.latency > 0 and report.fps > 0 for report in reports)
    for index, sentence in enumerate(found['sentences']):
        assert sentence['score'] == pytest.approx(np.mean([line['scores'][index] for line in lines]), abs=1e-5)
    assert np.std([line['scores'][0] for line in lines]) > 0


def test_masks_leave_before_the_source_ends(infer, tmp_path):
    """The rest of the pipe is written only when the first masks are there."""
    content = write_stream(tmp_path / 'a.ts', 40)
    os.mkfifo(tmp_path / 'pipe')
    seen = []

    def write():
        with open(tmp_path / 'pipe', 'wb') as file:
            file.write(content[: len(content) * 3 // 4])
            file.flush()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not list((tmp_path / 'out').glob('masks/*/*.png')):
                time.sleep(0.05)
            seen.extend((tmp_path / 'out').glob('masks/*/*.png'))
            file.write(content[len(content) * 3 // 4 :])

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    found = run_live(infer, LiveSource(str(tmp_path / 'pipe'), 'mpegts'), TEXTS[0], tmp_path / 'out', chunk_frames=4)
    thread.join(10)
    assert seen and found['num_frames'] == 40


def test_frames_of_another_size_end_the_run(infer, tmp_path):
    content = write_stream(tmp_path / 'a.ts', 10) + write_stream(tmp_path / 'b.ts', 10, (32, 48))
    found, _ = run(infer, content, tmp_path)
    numbers, lines, overlay = written(tmp_path / 'out')
    assert found['end'] == 'frame 10 is 48x32, those before are 64x48'
    assert numbers == list(range(10)) and len(lines) == overlay == 10


def test_a_damaged_stream(infer, tmp_path):
    """What can be decoded is used, and the run ends as any other."""
    content = bytearray(write_stream(tmp_path / 'a.ts', 60))
    middle = len(content) // 2
    content[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    found, _ = run(infer, bytes(content), tmp_path)
    numbers, lines, overlay = written(tmp_path / 'out')
    assert 30 <= found['num_frames'] <= 60 and len(numbers) == len(lines) == overlay == found['num_frames']


def test_a_source_that_stops_in_a_packet(infer, tmp_path):
    content = write_stream(tmp_path / 'a.ts', 40)
    found, _ = run(infer, content[: len(content) // 2 + 77], tmp_path)
    numbers, lines, overlay = written(tmp_path / 'out')
    assert 0 < found['num_frames'] < 40 and len(numbers) == len(lines) == overlay == found['num_frames']


def test_no_more_than_so_many_frames(infer, tmp_path):
    found, _ = run(infer, write_stream(tmp_path / 'a.ts', 12), tmp_path, max_frames=6)
    numbers, _, overlay = written(tmp_path / 'out')
    assert found['end'] == '6 frames were asked for' and numbers == list(range(6)) and overlay == 6


def test_an_interruption_leaves_whole_files(infer, tmp_path):
    def report(found):
        if found.frames.stop == 8:
            raise KeyboardInterrupt

    with pipe(tmp_path / 'pipe', write_stream(tmp_path / 'a.ts', 12)) as address:
        source = LiveSource(address, 'mpegts')
        with pytest.raises(KeyboardInterrupt):
            run_live(infer, source, TEXTS[0], tmp_path / 'out', chunk_frames=4, report=report)
    numbers, lines, overlay = written(tmp_path / 'out')
    assert numbers == list(range(8)) and len(lines) == overlay == 8
    assert json.loads((tmp_path / 'out' / 'scores.json').read_text())['end'] in ('interrupted', 'end of the stream')


def test_a_source_that_does_not_wait_drops_its_oldest_frames(tmp_path):
    """As a camera: the newest ``backlog`` frames wait, the others are counted."""
    path = tmp_path / 'a.ts'
    write_stream(path, 20)

    class Camera(LiveSource):
        waits = property(lambda self: False, lambda self, value: None)

    source = Camera(str(path), 'mpegts', backlog=5)
    deadline = time.monotonic() + 30
    while source.end is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [frame.number for frame in source.frames()] == [15, 16, 17, 18, 19] and source.dropped == 15


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        ('97', r'live source 97 cannot be opened \(.*\); expected the number of a camera'),
        ('nowhere.ts', r'live source nowhere.ts cannot be opened'),
        ('http://127.0.0.1:9/x', r'live source http://127.0.0.1:9/x cannot be opened'),
    ],
)
def test_sources_that_are_not_there(address, message):
    with pytest.raises(UserError, match=message):
        LiveSource(address)


def test_arguments(infer, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'a').touch()
    write_stream(tmp_path / 'a.ts', 2)
    with pytest.raises(UserError, match='is not empty'):
        run_live(infer, LiveSource(str(tmp_path / 'a.ts')), TEXTS[0], tmp_path / 'out')
    with pytest.raises(UserError, match='at least one sentence'):
        run_live(infer, LiveSource(str(tmp_path / 'a.ts')), [], tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


def test_the_command(weights, tmp_path):
    """From standard input, as docs/inference.md has it."""
    content = write_stream(tmp_path / 'a.ts', 9)
    command = [sys.executable, ROOT / 'tools/infer.py', '--live', '-', '--text', TEXTS[0], '--weights', weights]
    command += ['--out', tmp_path / 'out', '--device', 'cpu', '--live-format', 'mpegts']
    done = subprocess.run([*map(str, command)], input=content, capture_output=True, timeout=120)
    output = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert 'frames 0 to 7: latency' in output and 'frames 8 to 8' in output and '9 frames' in output
    assert written(tmp_path / 'out')[0] == list(range(9))
