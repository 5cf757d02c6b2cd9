"""The web page: its functions, and the whole of it in a browser."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('gradio')

from mmsoc.apis import page
from mmsoc.utils.errors import UserError
from mmsoc.visualization import VideoWriter

CHROMIUM = next(
    (found for name in ('chromium', 'chromium-browser', 'google-chrome') if (found := shutil.which(name))), None
)


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    return page.Page(['soc-mini'], tmp_path_factory.mktemp('page'), page.Limits(frames=40, sentences=3))


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    return page.write_samples(tmp_path_factory.mktemp('samples'))


def nothing(*args, **kwargs):
    pass


def test_a_sample_gives_masks_scores_and_a_curve(shown, samples):
    path, texts = samples[0]
    stages = []
    result = shown.segment(
        str(path), '\n'.join(texts), 'soc-mini', 'me', lambda done, desc, unit: stages.append((desc, *done))
    )
    assert stages[-1] == ('masks', 16, 16)
    assert len(result.frames) == 16 and all(file.is_file() for file in result.frames)
    assert list(result.curve.columns) == ['time', 'score', 'sentence'] and len(result.curve) == 16 * len(texts)
    assert result.curve.time.max() == pytest.approx(15 / page.FPS)
    with zipfile.ZipFile(result.masks) as masks:
        names = [name for name in masks.namelist() if name.endswith('.png')]
        assert len(names) == 16 * len(texts)
        mask = cv2.imdecode(np.frombuffer(masks.read(names[0]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (256, 384)
    written = json.loads(result.json.read_text())
    assert written['file'] == 'appearance.mp4' and [s['text'] for s in written['sentences']] == texts
    assert list(result.colors) == [f'{number}. {text}' for number, text in enumerate(texts, 1)]


@pytest.mark.parametrize(
    ('sentences', 'message'),
    [
        (' \n ', 'no sentence'),
        ('a\nb\nc\nd', 'at most 3 sentences, found 4'),
        ('the star ' * 400, 'too long|tokens'),
    ],
)
def test_sentences_that_cannot_be_used(shown, samples, sentences, message):
    before = set(shown.folder.iterdir())
    with pytest.raises(UserError, match=message):
        shown.segment(str(samples[0][0]), sentences, 'soc-mini', 'me', nothing)
    assert set(shown.folder.iterdir()) == before


def test_a_file_that_is_no_video(shown, tmp_path):
    bad = tmp_path / 'letter.mp4'
    bad.write_text('Dear reader')
    before = set(shown.folder.iterdir())
    with pytest.raises(UserError, match='^letter.mp4 cannot be read as a video') as error:
        shown.segment(str(bad), 'the star', 'soc-mini', 'me', nothing)
    assert str(tmp_path) not in str(error.value)
    assert set(shown.folder.iterdir()) == before
    with pytest.raises(UserError, match='no video'):
        shown.segment(None, 'the star', 'soc-mini', 'me', nothing)


def test_a_video_that_is_too_long(shown, tmp_path):
    path = tmp_path / 'long.mp4'
    with VideoWriter(path, fps=10) as video:
        for _ in range(50):
            video.write(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(UserError, match='about 50 frames; this page takes 40 .4 seconds'):
        shown.segment(str(path), 'the star', 'soc-mini', 'me', nothing)


def test_a_run_can_be_stopped(shown, samples):
    before = set(shown.folder.iterdir())

    def progress(*args, **kwargs):
        shown.stop('me')

    with pytest.raises(page.StoppedError):
        shown.segment(str(samples[0][0]), 'the star', 'soc-mini', 'me', progress)
    assert set(shown.folder.iterdir()) == before
    shown.stop('me')  # too late: nothing runs
    shown.segment(str(samples[0][0]), 'the star', 'soc-mini', 'me', nothing)
    shown.segment(str(samples[0][0]), 'the star', 'soc-mini', 'me', lambda *args, **kwargs: shown.stop('another'))


# ------------------------------------------------------------------------------------------------------------ the whole page


@pytest.fixture(scope='module')
def address(root, tmp_path_factory):
    """Of a server of its own process, as a user starts it."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp('server') / 'log'
    temporary = tmp_path_factory.mktemp('temporary')
    with log.open('w') as out:
        server = subprocess.Popen(
            [sys.executable, 'tools/demo.py', '--port', str(port), '--max-frames', '60'],
            cwd=root,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'TMPDIR': str(temporary)},
        )
    url = f'http://127.0.0.1:{port}'
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        else:
            pytest.fail(log.read_text())
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api')
    if CHROMIUM is None:
        pytest.skip('no Chromium (Debian: apt-get install chromium)')
    with playwright.sync_playwright() as driver:
        arguments = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update']
        with driver.chromium.launch(executable_path=CHROMIUM, args=arguments) as browser:
            yield browser


def visit(browser, address, **options):
    visitor = browser.new_page(**options)
    visitor.set_default_timeout(60_000)
    visitor.goto(address)
    return visitor


def upload(visitor, path, sentences):
    visitor.locator('#video input[type=file]').first.set_input_files(str(path))
    visitor.locator('#sentences textarea').fill(sentences)
    visitor.locator('#video video').wait_for(state='attached')
    visitor.locator('#start').click()


def status_of(visitor, pattern):
    visitor.locator('#status').filter(has_text=re.compile(pattern)).wait_for()
    return visitor.locator('#status').inner_text()


def keep(visitor, name):
    """The screenshot, where MMSOC_SCREENSHOTS names a folder."""
    if folder := os.environ.get('MMSOC_SCREENSHOTS'):
        Path(folder).mkdir(parents=True, exist_ok=True)
        visitor.screenshot(path=f'{folder}/{name}.png', full_page=True)


@pytest.mark.timeout(300)
def test_two_sentences_in_a_browser(browser, address, samples, tmp_path):
    visitor = visit(browser, address)
    path, texts = samples[0]
    upload(visitor, path, '\n'.join(texts))
    status = status_of(visitor, 'seen in')
    assert '384x256, 16 frames' in status
    assert all(f'{number}. {text}: score 0.' in status for number, text in enumerate(texts, 1))
    visitor.locator('#frame-image img').wait_for()
    first = visitor.locator('#frame-image img').get_attribute('src')
    visitor.locator('#frame input[type=number]').fill('7')
    visitor.locator('#frame input[type=number]').press('Enter')
    visitor.wait_for_function(f'document.querySelector("#frame-image img").src !== {json.dumps(first)}')
    visitor.locator('#curve canvas, #curve svg').first.wait_for()
    visitor.wait_for_timeout(1500)  # animations of the plot
    keep(visitor, 'two-sentences')
    sizes = {}
    for name, suffix in (('get-video', '.mp4'), ('get-masks', '.zip'), ('get-json', '.json')):
        with visitor.expect_download() as download:
            visitor.locator(f'#{name}').click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.suffix == suffix
        sizes[name] = path.stat().st_size
    assert all(size > 1000 for size in sizes.values()), sizes
    visitor.set_viewport_size(dict(width=420, height=800))
    visitor.wait_for_timeout(1000)
    assert visitor.evaluate('document.documentElement.scrollWidth') <= 420
    keep(visitor, 'narrow')
    visitor.close()


@pytest.mark.timeout(300)
def test_a_bad_file_in_a_browser(browser, address, samples, tmp_path):
    bad = tmp_path / 'letter.mp4'
    bad.write_text('Dear reader')
    visitor = visit(browser, address)
    upload(visitor, bad, 'the star')
    assert 'letter.mp4 cannot be read as a video' in status_of(visitor, 'Not possible')
    keep(visitor, 'bad-file')
    visitor.close()
    visitor = visit(browser, address)  # the server lives on
    upload(visitor, samples[1][0], 'the square')
    status_of(visitor, 'seen in')
    visitor.close()


@pytest.mark.timeout(300)
def test_two_visitors_at_once(browser, address, samples):
    visitors = [visit(browser, address) for _ in range(2)]
    for number, visitor in enumerate(visitors):
        upload(visitor, samples[number][0], ('the star', 'the circle')[number])
    texts = [status_of(visitor, 'seen in') for visitor in visitors]
    assert 'the star' in texts[0] and 'the circle' in texts[1]
    for visitor in visitors:
        visitor.close()
