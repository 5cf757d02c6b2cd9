"""tools/infer.py as a person calls it; what is behind it: tests/test_apis/test_inferencer.py."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from tests.conftest import ROOT
from tests.helpers import small_model
from tests.test_apis.tiny_videos import TURNED, cut, level, read_video, turn, write_video

CONFIG = ROOT / 'configs' / 'soc' / 'soc_tiny_moving-shapes.py'
SMALL = ROOT / 'configs' / '_base_' / 'models' / 'soc_tiny.py'
TEXTS = ('A red box', 'the dog on the left')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Random weights of a small network, with the config of MovingShapes around it."""
    path = tmp_path_factory.mktemp('weights') / 'best.pth'
    cfg = Config.fromfile(CONFIG)
    cfg.model = Config.fromfile(SMALL).model
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=small_model(ROOT).state_dict()), path)
    return path


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the tool in this process; returns what it prints, or its error message."""

    def run(*args, fails=False):
        monkeypatch.setattr(sys, 'argv', ['infer.py', *map(str, args)])
        monkeypatch.setattr(sys, 'path', [*sys.path])
        try:
            runpy.run_path(str(ROOT / 'tools' / 'infer.py'), run_name='__main__')
        except SystemExit as stopped:
            assert fails and stopped.code not in (0, None)
            # argparse prints by itself and exits with 2; other messages are the code
            return capsys.readouterr().err if stopped.code == 2 else str(stopped.code)
        assert not fails
        return capsys.readouterr().out

    return run


def texts(*sentences):
    return [part for sentence in sentences for part in ('--text', sentence)]


def test_a_telephones_video(call, weights, tmp_path):
    """Turned, with sound, 25 frames per second."""
    path = turn(write_video(tmp_path / 'a.mp4', rate=25, audio=True), TURNED['clockwise'])
    out = tmp_path / 'my results'
    said = call(
        path, *texts(*TEXTS), '--weights', weights, '--out', out, '--device', 'cpu', '--chunk-frames', 2, '--overlap', 1
    )
    assert '48x64, 6 frames' in said and f'Written: {out}' in said and 'the dog on the left: seen in ' in said
    written = json.loads((out / 'scores.json').read_text())
    assert (written['width'], written['height'], written['num_frames'], written['fps']) == (48, 64, 6, 25)
    assert written['file'] == str(path) and written['prediction'] == dict(
        precision='fp32', selector='QueryByLength', whole=False, chunk_frames=2, overlap=1
    )
    for index, (name, text) in enumerate(zip(('0_a-red-box', '1_the-dog-on-the-left'), TEXTS)):
        sentence = written['sentences'][index]
        assert sentence['text'] == text and sentence['mask_folder'] == f'masks/{name}' and 'masks' not in sentence
        assert len(sentence['frame_scores']) == len(sentence['boxes']) == 6
        files = sorted((out / 'masks' / name).iterdir())
        assert [file.name for file in files] == [f'{t:05d}.png' for t in range(6)]
        for file, box in zip(files, sentence['boxes'], strict=True):
            mask = np.array(Image.open(file))
            assert mask.shape == (64, 48) and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255}
            assert (box is None) == (not mask.any())
    frames, stream = read_video(out / 'overlay.mp4')
    assert len(frames) == 6 and stream.average_rate == 25 and stream.width == 7 * 48
    assert stream.codec_context.name == 'h264' and stream.codec_context.pix_fmt == 'yuv420p'


def test_frames_are_in_their_places(call, weights, tmp_path):
    """Odd sizes; with empty masks the overlay shows the video's own frames."""
    path = write_video(tmp_path / 'a.mp4', length=5, size=(241, 323), pix_fmt='yuv444p')
    out = tmp_path / 'out'
    call(path, *texts('x'), '--weights', weights, '--out', out, '--score-threshold', 1, '--whole')
    frames, stream = read_video(out / 'overlay.mp4')
    assert stream.width == 324 and [level(frame[:241]) for frame in frames] == list(range(5))
    (sentence,) = json.loads((out / 'scores.json').read_text())['sentences']
    assert not sentence['above_threshold'] and sentence['boxes'] == [None] * 5
    assert np.array(Image.open(out / 'masks' / '0_x' / '00004.png')).shape == (241, 323)


def test_how_it_is_predicted(call, weights, tmp_path, monkeypatch):
    compiled = []
    # A compiler would run for a minute.
    monkeypatch.setattr(torch, 'compile', lambda module, **_: compiled.append(module) or module)
    path, out = write_video(tmp_path / 'a.mp4', length=2), tmp_path / 'out'
    call(path, *texts('x'), '--weights', weights, '--out', out, '--precision', 'bf16', '--compile', '--query-per-frame')
    written = json.loads((out / 'scores.json').read_text())
    assert (
        written['prediction'] | dict(precision='bf16', selector='QueryPerFrame') == written['prediction']
        and len(compiled) == 1
    )
    other = tmp_path / 'other'
    call(path, *texts('x'), '--weights', weights, '--out', other)
    score, other_score = (
        json.loads((folder / 'scores.json').read_text())['sentences'][0]['score'] for folder in (out, other)
    )
    assert score == pytest.approx(other_score, abs=1e-2) and score != other_score


def test_mistakes(call, weights, tmp_path):
    video = write_video(tmp_path / 'a.mp4', length=2)
    out = tmp_path / 'out'
    good = ['--weights', weights, '--out', out]

    def error(*args):
        message = call(*args, fails=True)
        assert not out.exists() and 'Traceback' not in message
        return message

    assert 'required: --text' in error(video, *good)
    assert 'required: --weights' in error(video, *texts('x'), '--out', out)
    assert '--text: sentence 2 is empty' in error(video, *texts('x', ' '), *good)
    assert '--score-threshold must be in [0, 1]' in error(video, *texts('x'), *good, '--score-threshold', 50)
    assert 'found 0 and 8' in error(video, *texts('x'), *good, '--chunk-frames', 0)
    assert '--precision: expected one of fp32, tf32, bf16, fp16, found half' in error(
        video, *texts('x'), *good, '--precision', 'half'
    )
    assert 'weights no_such.pth: there is no such file' in error(
        video, *texts('x'), '--weights', 'no_such.pth', '--out', out
    )
    assert 'config no_such.py: there is no such file' in error(video, *texts('x'), *good, '--config', 'no_such.py')
    assert 'there is no file or folder no_such.mp4' in error('no_such.mp4', *texts('x'), *good)
    assert 'holds no images' in error(tmp_path, *texts('x'), *good)
    assert 'cannot be read as a video' in error(cut(write_video(tmp_path / 'b.mp4')), *texts('x'), *good)
    assert 'does not fit the model' in error(
        video, *texts('x'), *good, '--cfg-options', 'model.text_encoder.config.num_hidden_layers=1'
    )
    if not torch.cuda.is_available():
        assert "device 'cuda': this machine shows no GPU" in error(video, *texts('x'), *good, '--device', 'cuda')
    missing = 'model.text_encoder.tokenizer=/no/such/folder'
    said = error(video, *texts('x'), *good, '--cfg-options', missing, 'model.text_encoder.pretrained=/no/such/folder')
    assert '/no/such/folder' in said and '--cfg-options model.text_encoder.pretrained=FOLDER' in said


def test_results_are_not_replaced_unasked(call, weights, tmp_path):
    image = tmp_path / 'one.png'
    Image.new('RGB', (64, 48)).save(image)
    out = tmp_path / 'out'
    arguments = [image, *texts('x'), '--weights', weights, '--out', out]
    assert '64x48, 1 frames' in call(*arguments)
    assert sorted(path.name for path in out.iterdir()) == ['masks', 'overlay.png', 'scores.json']
    assert 'is not empty' in call(*arguments, fails=True)
    call(*arguments, *texts('another'), '--overwrite')
    assert len(json.loads((out / 'scores.json').read_text())['sentences']) == 2


def test_memory(call, weights, tmp_path, monkeypatch):
    from mmsoc.inference import StreamPredictor

    def full(*_):
        raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')

    monkeypatch.setattr(StreamPredictor, 'feed', full)
    said = call(
        write_video(tmp_path / 'a.mp4'), *texts('x'), '--weights', weights, '--out', tmp_path / 'out', fails=True
    )
    assert 'use a smaller --chunk-frames' in said and 'Tried to allocate' in said


@pytest.mark.parametrize('exhaust', [lambda: torch.empty(2**50), lambda: np.empty(2**50)], ids=['torch', 'numpy'])
def test_exhausted_memory_of_the_cpu(call, weights, tmp_path, monkeypatch, exhaust):
    """Real errors of the allocators, from where a large image meets them first: in the network."""
    from mmsoc.models import SOC

    image = tmp_path / 'large.png'
    Image.new('RGB', (64, 48)).save(image)
    monkeypatch.setattr(SOC, 'extract_visual', lambda *_, **__: exhaust())
    said = call(image, *texts('x'), '--weights', weights, '--out', tmp_path / 'out', fails=True)
    assert said.startswith(
        'error: out of memory; downscale the video or image, use fewer sentences, or use a smaller --chunk-frames ('
    )
    assert 'allocate' in said and len(said.splitlines()) == 1
    said = call(image, *texts('x'), '--weights', weights, '--out', tmp_path / 'out', '--whole', fails=True)
    assert ', use fewer sentences, or leave out --whole (' in said
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('error', [ValueError('a bug'), RuntimeError('a bug'), KeyError('a bug')], ids=repr)
def test_a_fault_of_the_program_keeps_its_traceback(call, weights, tmp_path, monkeypatch, error):
    from mmsoc.models import SOC

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(SOC, 'extract_visual', fails)
    image = tmp_path / 'one.png'
    Image.new('RGB', (64, 48)).save(image)
    with pytest.raises(type(error)) as raised:
        call(image, *texts('x'), '--weights', weights, '--out', tmp_path / 'out')
    assert raised.value is error


def test_tracebacks_of_mistakes_on_demand(call, weights, tmp_path, monkeypatch):
    from mmsoc.utils.errors import UserError

    monkeypatch.setenv('MMSOC_DEBUG', '1')
    (tmp_path / 'a.mp4').write_bytes(b'no video')
    with pytest.raises(UserError, match='cannot be read as a video'):
        call(tmp_path / 'a.mp4', *texts('x'), '--weights', weights, '--out', tmp_path / 'out')
