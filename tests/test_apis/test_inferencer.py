"""Inference for people: what is read, what is predicted, what is returned and written."""

import json
import pickle
import runpy
import subprocess
import sys
import threading
import time
from fractions import Fraction
from importlib import metadata

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools import mask as coco_mask

import mmsoc.apis
from mmsoc.apis import SOCInferencer, exports, frame_pipeline, inferencer, open_frames, results, video_io
from mmsoc.apis.results import ResultFolder, mask_folders, write_mask
from mmsoc.apis.video_io import WorkerPool, prefetch
from tests.conftest import ROOT
from tests.test_apis import tiny_videos
from tests.test_apis.tiny_videos import frame_pixels, level, write_video
from tests.test_engine.small_soc import TEXTS


@pytest.fixture
def said(monkeypatch):
    """What is logged."""
    messages = []
    for module in (video_io, frame_pipeline):
        monkeypatch.setattr(module, 'print_log', lambda message, **_: messages.append(message))
    monkeypatch.setattr(video_io, '_warned', set())
    return messages


def decoded(result):
    """bool (E, T, H, W)"""
    return np.stack([coco_mask.decode(s['masks']).transpose(2, 0, 1) for s in result['predictions']['sentences']]) > 0


def noise(length, size=(48, 64)):
    """Blocks of colour, other ones in each frame: (T, H, W, 3)."""
    blocks = np.random.default_rng(0).integers(0, 255, (length, size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]


# --- prediction


def test_whole_is_the_test_tool(config, weights, data, infer, tmp_path, monkeypatch):
    """Of all videos, by the command: the masks are those of the data set's pipeline and `predict`, bit by bit."""
    out = tmp_path / 'predictions.pkl'
    arguments = [config, weights, '--work-dir', tmp_path, '--out', out, '--cfg-options', 'log_level=ERROR']
    monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, arguments)])
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(ROOT / 'tools' / 'test.py'), run_name='__main__')
    samples = pickle.loads(out.read_bytes())
    assert len(samples) == 7 and {len(sample['texts']) for sample in samples} == {1, 2, 3}
    areas = set()
    for sample in samples:
        folder = data / 'valid' / 'JPEGImages' / sample['video_id']
        found = infer(str(folder), sample['texts'], whole=True)['predictions']
        assert (found['num_frames'], found['width'], found['height'], found['fps']) == (
            len(sample['frames']),
            64,
            48,
            None,
        )
        for index, sentence in enumerate(found['sentences']):
            codes = [dict(code, counts=code['counts'].encode()) for code in sentence['masks']]
            assert codes == sample['pred_masks'][index]
            assert sentence['score'] == pytest.approx(float(sample['pred_scores'][index]), abs=1e-6)
            assert np.mean(sentence['frame_scores']) == pytest.approx(sentence['score'], abs=1e-5)
            areas.update(coco_mask.area(codes).tolist())
    assert len(areas) > 10, 'masks that are all alike show nothing'


def test_streamed_is_whole_where_a_chunk_holds_the_video(infer):
    frames = noise(5)
    whole, streamed = (infer(frames, list(TEXTS), whole=way) for way in (True, False))
    for a, b in zip(whole['predictions']['sentences'], streamed['predictions']['sentences'], strict=True):
        assert a['score'] == pytest.approx(b['score'], abs=1e-5)
        assert a['frame_scores'] == pytest.approx(b['frame_scores'], abs=1e-5)
        assert np.std(a['frame_scores']) > 1e-5
    assert (decoded(whole) != decoded(streamed)).mean() < 1e-3  # half precision
    assert whole['predictions']['prediction'] == dict(precision='fp32', selector='QueryByLength', whole=True)
    assert streamed['predictions']['prediction'] == dict(
        precision='fp32', selector='QueryByLength', whole=False, chunk_frames=24, overlap=8
    )


def test_a_stream_of_many_pieces(infer, monkeypatch):
    """Nobody holds all frames: between the reader and the network there are a few, and each is read twice, to be drawn."""
    frames, fed, taken = noise(72), [], []

    class Source(video_io._Array):
        def read(self):
            for index, frame in enumerate(super().read()):
                taken.append(index - sum(fed))
                yield frame

    class Stream(inferencer.StreamPredictor):
        def feed(self, piece):
            fed.append(len(piece))
            super().feed(piece)

    monkeypatch.setattr(inferencer, 'StreamPredictor', Stream)
    result = infer(Source(frames, None), TEXTS[0], chunk_frames=3, overlap=1)
    assert sum(fed) == 72 and max(fed) <= 8
    # 8 in the piece that the network has, two waiting, one that finds no room, and one in the making
    assert max(taken) < 5 * 8 and decoded(result).shape == (1, 72, 48, 64)
    assert len(taken) == 72  # nothing is drawn here
    infer(Source(frames[:2], None), TEXTS[0], return_vis=True)
    assert len(taken) == 76


def test_videos_that_the_config_cuts(weights):
    """`frames_per_clip`: a protocol of the test tool, so of the whole way alone."""
    infer = SOCInferencer(
        weights=weights, device='cpu', cfg_options={'model.test_cfg.frames_per_clip': 2}, show_progress=False
    )
    frames = noise(5)
    (cut,) = infer(frames, TEXTS[0], whole=True)['predictions']['sentences']
    assert len(cut['frame_scores']) == 5 and np.mean(cut['frame_scores']) == pytest.approx(cut['score'], abs=1e-5)
    (alone,) = infer(frames[4:], TEXTS[0], whole=True)['predictions']['sentences']
    assert (
        alone['frame_scores'] == pytest.approx(cut['frame_scores'][4:], abs=1e-6) and alone['masks'] == cut['masks'][4:]
    )
    (streamed,) = infer(frames, TEXTS[0])['predictions']['sentences']
    assert streamed['score'] != pytest.approx(cut['score'], abs=1e-5)
    assert infer.model.test_cfg.frames_per_clip == 2


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize(
    'options',
    [
        {'selector.type': 'AllQueries', 'output.type': 'A2DMasks'},
        {'output.type': 'MasksAndLogits'},
        {'all_queries': True},
        {'return_logits': True},
        {'output.type': 'A2DMasks'},
    ],
    ids=lambda options: ', '.join(map(str, options)),
)
def test_a_config_for_metrics_predicts_what_is_named(infer, weights, options, whole):
    """All queries and logits are for data sets' metrics: masks and scores are those without them."""
    options = {f'model.test_cfg.{key}': value for key, value in options.items()}
    other = SOCInferencer(weights=weights, device='cpu', cfg_options=options, show_progress=False)
    found, expected = (each(noise(2), [*TEXTS], whole=whole)['predictions'] for each in (other, infer))
    assert found['sentences'] == expected['sentences']
    assert found['prediction'] == expected['prediction']


@pytest.mark.parametrize('options', [{'selector.type': 'QueryPerFrame'}, {'query_per_frame': True}], ids=str)
def test_a_query_for_each_frame(weights, options):
    options = {f'model.test_cfg.{key}': value for key, value in options.items()}
    infer = SOCInferencer(weights=weights, device='cpu', cfg_options=options, show_progress=False)
    found = infer(noise(2), TEXTS[0])['predictions']
    assert found['prediction']['selector'] == 'QueryPerFrame' and infer.prediction is infer.model.test_cfg
    # A checkpoint of a recipe for A2D: the masks are those for people all the same.
    a2d = {'model.test_cfg.all_queries': True} | options
    if 'model.test_cfg.query_per_frame' not in options:
        other = SOCInferencer(weights=weights, device='cpu', cfg_options=a2d, show_progress=False)
        assert other(noise(2), TEXTS[0])['predictions']['sentences'] == found['sentences']


def test_predictions_that_are_not_finite(infer, tmp_path, monkeypatch):
    """Nothing is written."""
    bias = infer.model.head.cls_branches[-1].layers[-1].bias
    monkeypatch.setattr(bias, 'data', torch.full_like(bias, float('nan')))
    for whole in (True, False):
        with pytest.raises(FloatingPointError, match='the scores are not finite'):
            infer(noise(2), TEXTS[0], whole=whole, out_dir=tmp_path / 'out')
        assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize('size', [(48, 64), (64, 48), (37, 61), (9, 120)])
def test_one_frame_of_any_size(infer, size, whole):
    found = infer(noise(1, size)[0], [*TEXTS], whole=whole)
    assert decoded(found).shape == (3, 1, *size)
    assert found['predictions']['kind'] == 'image' and found['visualization'] is None


def test_what_is_returned(infer):
    frames = noise(3)
    result = infer([*frames], [*TEXTS], return_vis=True, fps=12.5)
    assert set(result) == {'predictions', 'visualization'}
    found = json.loads(json.dumps(result['predictions']))
    assert found == result['predictions']
    assert (found['file'], found['kind'], found['num_frames'], found['fps']) == (None, 'array', 3, 12.5)
    assert (
        found['weights'] == infer.weights
        and found['config'] is None
        and found['versions']['torch'] == metadata.version('torch')
    )
    masks = decoded(result)
    for sentence, text, of_text in zip(found['sentences'], TEXTS, masks, strict=True):
        assert sentence['text'] == text and sentence['above_threshold'] and sentence['mask_folder'] is None
        assert 0 <= sentence['score'] <= 1 and len(sentence['frame_scores']) == len(sentence['boxes']) == 3
        for box, mask in zip(sentence['boxes'], of_text, strict=True):
            rows, columns = np.nonzero(mask)
            assert box == (None if len(rows) == 0 else [columns.min(), rows.min(), columns.max(), rows.max()])
    assert masks.any()
    drawn = result['visualization']
    assert len(drawn) == 3 and len({image.shape for image in drawn}) == 1
    assert drawn[0].shape[1] == 320 and drawn[0].shape[0] > 240  # enlarged five times, and a legend
    assert 'masks' not in infer(frames, TEXTS[0], return_masks=False)['predictions']['sentences'][0]


def test_a_score_below_the_threshold_names_nothing(infer, tmp_path):
    frames = noise(2)
    scores = [sentence['score'] for sentence in infer(frames, [*TEXTS])['predictions']['sentences']]
    limit = sorted(scores)[1]
    result = infer(frames, [*TEXTS], score_threshold=limit, out_dir=tmp_path / 'out')
    for sentence, score in zip(result['predictions']['sentences'], scores, strict=True):
        assert sentence['score'] == pytest.approx(score) and sentence['above_threshold'] == (score >= limit)
        files = sorted((tmp_path / 'out' / sentence['mask_folder']).iterdir())
        assert len(files) == 2
        if score < limit:
            assert sentence['boxes'] == [None, None]
            assert not any(np.array(Image.open(file)).any() for file in files)
    assert sum(sentence['above_threshold'] for sentence in result['predictions']['sentences']) == 2
    with pytest.raises(ValueError, match=r'score_threshold must be in \[0, 1\].*found 1.5'):
        infer(frames, TEXTS[0], score_threshold=1.5)


def test_sentences_are_seen_as_in_training(infer, monkeypatch):
    seen = []
    encode = infer.model.text_encoder.forward
    monkeypatch.setattr(infer.model.text_encoder, 'forward', lambda texts: seen.append(list(texts)) or encode(texts))
    found = infer(noise(1), ' A  Dog\non the left')['predictions']['sentences']
    assert seen and all(texts == ['a dog on the left'] for texts in seen)
    assert found[0]['text'] == ' A  Dog\non the left'


@pytest.mark.parametrize(
    'texts, message',
    [
        ([], 'at least one sentence'),
        (['a dog', '  '], "sentences that name an object, found '  '"),
        ([3], 'found 3'),
        (['word ' * 70], 'sentence of 72 tokens; the text encoder takes at most 64'),
    ],
)
def test_bad_sentences(infer, texts, message):
    with pytest.raises(ValueError, match=message):
        infer(noise(1), texts)


def test_sides_too_unequal(infer, said):
    with pytest.raises(
        ValueError, match=r'frames of 4000x1 cannot be resized to the size of the network .*too extreme'
    ):
        infer(np.zeros((1, 4000, 3), np.uint8), TEXTS[0])
    assert decoded(infer(np.zeros((2, 44, 3), np.uint8), TEXTS[0])).shape == (1, 1, 2, 44)
    assert any('sees frames of 44x2; below 32' in message for message in said)


def test_no_resize_in_the_config(weights, monkeypatch, said):
    monkeypatch.setattr(frame_pipeline, 'LARGE', 100 * 100)
    cfg = Config.fromstring(torch.load(weights)['meta']['cfg'], '.py')
    del cfg.test_dataloader.dataset.pipeline[1]
    infer = SOCInferencer(cfg, weights, 'cpu', show_progress=False)
    assert decoded(infer(noise(1, (104, 120)), TEXTS[0])).shape == (1, 1, 104, 120)
    assert any(
        'sees frames of 120x104, since the test pipeline of the config has no ShortSideResize' in m for m in said
    )


# --- the model


def test_it_leaves_the_scope_alone(weights):
    """As in a program of another OpenMMLab project; the tokenizer is built at the first sentence."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        infer = SOCInferencer(weights=weights, device='cpu', show_progress=False)
        infer(noise(1), TEXTS[0])
        assert DefaultScope.get_current_instance().scope_name == 'mmdet'


def test_config_of_several_kinds(config, weights, tmp_path):
    text = Config.fromfile(config)
    for kind in (config, str(config), text, text.to_dict()):
        assert SOCInferencer(kind, weights, 'cpu', show_progress=False).loaded.config in (str(config), None)
    alone = tmp_path / 'converted.pth'
    torch.save(dict(state_dict=torch.load(weights)['state_dict']), alone)
    with pytest.raises(ValueError, match=r'converted\.pth hold no config \(meta\.cfg\).*--config configs/soc/NAME\.py'):
        SOCInferencer(weights=alone)
    assert SOCInferencer(config, alone, 'cpu', show_progress=False).loaded.config == str(config)
    with pytest.raises(FileNotFoundError, match=r'config no_such\.py: there is no such file'):
        SOCInferencer('no_such.py', alone)
    with pytest.raises(ValueError, match=r'test_dataloader\.dataset\.pipeline'):
        SOCInferencer(dict(model=text.model.to_dict()), alone)
    with pytest.raises(ValueError, match='expected the key `model`'):
        SOCInferencer(dict(test_dataloader=None), alone)
    pretrainer = ROOT / 'configs' / 'pretrain' / 'video-swin-mini_moving-shapes.py'
    with pytest.raises(ValueError, match='expected a SOC, found BackbonePretrainer'):
        SOCInferencer(pretrainer, alone)


def test_weights_that_do_not_fit(config, weights, tmp_path):
    with pytest.raises(ValueError, match='weights: expected a checkpoint, found none'):
        SOCInferencer(config)
    with pytest.raises(FileNotFoundError, match=r'weights no_such\.pth: there is no such file'):
        SOCInferencer(weights='no_such.pth')
    with pytest.raises(FileNotFoundError, match='it is a folder'):
        SOCInferencer(weights=tmp_path)
    broken = tmp_path / 'broken.pth'
    for content in (b'no checkpoint', weights.read_bytes()[:5000], b''):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=r'broken\.pth cannot be read'):
            SOCInferencer(weights=broken)
    state = torch.load(weights)['state_dict']
    del state['head.kernel_branch.layers.0.weight']
    torch.save(dict(state_dict=state), broken)
    with pytest.raises(ValueError, match=r'(?s)broken\.pth does not fit the model SOC.*1 missing.*kernel_branch'):
        SOCInferencer(config, broken)
    hooks = dict(type='StrictLoadHook', allow_missing=['kernel_branch'])
    SOCInferencer(config, broken, 'cpu', cfg_options=dict(custom_hooks=[hooks]), show_progress=False)


def test_devices(weights):
    with pytest.raises(ValueError, match="device 'gpu': expected cpu, cuda"):
        SOCInferencer(weights=weights, device='gpu')
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda': this machine shows no GPU to PyTorch"):
            SOCInferencer(weights=weights, device='cuda')


def test_a_tokenizer_that_is_not_there(config, weights):
    cfg = Config.fromfile(config)
    cfg.model.text_encoder.update(pretrained='roberta-base', tokenizer=None)
    infer = SOCInferencer(cfg, weights, 'cpu', show_progress=False)  # nothing is downloaded for the weights
    with pytest.raises(
        FileNotFoundError, match=r"'roberta-base'.*--cfg-options model\.text_encoder\.pretrained=FOLDER"
    ):
        infer(noise(1), TEXTS[0])
    cfg.model.text_encoder.update(pretrained='/elsewhere/roberta', config=None)
    with pytest.raises(ValueError, match=r"'/elsewhere/roberta'.*--cfg-options model\.text_encoder\.pretrained=FOLDER"):
        SOCInferencer(cfg, weights, 'cpu')


def test_importing_is_cheap():
    program = (
        "import sys, mmsoc.apis; assert 'torch' not in sys.modules "
        "and {'SOCInferencer', 'StreamPredictor', 'LivePredictor', 'load_model'} < set(mmsoc.apis.__all__)"
    )
    subprocess.run([sys.executable, '-c', program], check=True, timeout=60, cwd=ROOT)
    for name in mmsoc.apis.__all__:
        assert getattr(mmsoc.apis, name).__name__ == name
    with pytest.raises(AttributeError, match='no_such'):
        _ = mmsoc.apis.no_such


# --- what is written


def test_files(infer, tmp_path, data):
    folder = data / 'valid' / 'JPEGImages' / 'v3'
    result = infer(folder, ['The left box!', 'the left box', '???'], out_dir=tmp_path / 'a' / 'out', fps=12)
    out = tmp_path / 'a' / 'out'
    assert sorted(path.name for path in out.iterdir()) == ['masks', 'overlay.mp4', 'scores.json']
    assert sorted(path.name for path in (out / 'masks').iterdir()) == ['0_the-left-box', '1_the-left-box', '2']
    masks = decoded(result)
    for index, sentence in enumerate(result['predictions']['sentences']):
        files = sorted((out / sentence['mask_folder']).iterdir())
        assert [file.name for file in files] == ['00000.png', '00005.png', '00010.png', '00015.png', '00020.png']
        for file, mask in zip(files, masks[index], strict=True):
            with Image.open(file) as image:
                assert image.mode == 'L'
                np.testing.assert_array_equal(np.array(image), np.where(mask, 255, 0))
    assert masks.any() and not masks.all()
    written = json.loads((out / 'scores.json').read_text())
    for sentence in result['predictions']['sentences']:
        del sentence['masks']
    assert written == result['predictions']
    assert result['visualization'] == str(out / 'overlay.mp4')
    frames, stream = tiny_videos.read_video(out / 'overlay.mp4')
    assert len(frames) == 5 and stream.average_rate == 12
    assert stream.codec_context.name == 'h264' and stream.codec_context.pix_fmt == 'yuv420p'


def test_an_image(infer, tmp_path):
    path = tmp_path / 'one.png'
    Image.fromarray(noise(1, (37, 61))[0]).save(path)
    result = infer(path, TEXTS[0], out_dir=tmp_path / 'out')
    assert result['visualization'] == str(tmp_path / 'out' / 'overlay.png')
    with Image.open(tmp_path / 'out' / 'overlay.png') as image:
        assert image.width == 6 * 61  # at least 320
    with Image.open(tmp_path / 'out' / result['predictions']['sentences'][0]['mask_folder'] / '00000.png') as image:
        assert image.size == (61, 37)


def test_errors_of_threads_are_raised(infer, tmp_path, monkeypatch):
    out = tmp_path / 'out'

    def full(path, mask):
        raise OSError('no space left on device')

    monkeypatch.setattr(exports, 'write_mask', full)
    with pytest.raises(OSError, match='no space left'):
        infer(noise(3), TEXTS[0], out_dir=out)
    monkeypatch.undo()
    assert not out.exists()

    def fails(*_):
        raise ValueError('cannot be drawn')

    monkeypatch.setattr(infer.visualizer, 'draw_sentences', fails)
    with pytest.raises(ValueError, match='cannot be drawn'):
        infer(noise(30), TEXTS[0], out_dir=out)
    monkeypatch.undo()
    assert not out.exists() and infer(noise(1), TEXTS[0], out_dir=out) and out.exists()
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith('mmsoc') for name in names), names


def test_a_folder_in_use(tmp_path):
    out = tmp_path / 'out'
    with ResultFolder(out) as folder:
        write_mask(folder / 'masks.png', np.ones((2, 2), bool))
        (folder / 'scores.json').write_text('1')
        assert not (out / 'scores.json').exists()
    (out / 'thesis.txt').touch()
    with pytest.raises(
        ValueError, match=r'out is not empty: it holds masks\.png, scores\.json, thesis\.txt; .*--overwrite'
    ):
        ResultFolder(out)
    with pytest.raises(KeyError), ResultFolder(out, overwrite=True) as folder:
        (folder / 'scores.json').write_text('2')
        raise KeyError
    assert (out / 'scores.json').read_text() == '1'
    with ResultFolder(out, overwrite=True) as folder:
        (folder / 'masks').mkdir()
        (folder / 'scores.json').write_text('2')
    assert sorted(path.name for path in out.iterdir()) == ['masks', 'masks.png', 'scores.json', 'thesis.txt']
    assert (out / 'scores.json').read_text() == '2'
    (out / 'scores.json').unlink()
    with pytest.raises(ValueError, match='does not hold earlier results'):
        ResultFolder(out, overwrite=True)
    with pytest.raises(ValueError, match='is a file'):
        ResultFolder(out / 'thesis.txt')


def test_mask_folders():
    texts = ['A dog, left/right!', 'ein Hündchen', '../..', 'x' * 80, *['a'] * 7]
    names = mask_folders(texts)
    assert names[:4] == ['00_a-dog-left-right', '01_ein-hündchen', '02', '03_' + 'x' * 50] and names[10] == '10_a'
    assert len(set(names)) == 11
    assert set(results.versions()) >= {'mmsoc', 'python', 'av', *mmsoc.dependencies()}


# --- what is read


def frames_of(source, **options):
    """All frames, read twice; the second reading gives the same."""
    found = open_frames(source, **options)
    frames = list(found.read())
    assert all(np.array_equal(a, b) for a, b in zip(frames, found.read(), strict=True))
    assert {frame.shape for frame in frames} == {(*found.size, 3)} and found.length == len(frames)
    return found, frames


@pytest.mark.parametrize(
    'name, options',
    [
        ('a.mp4', {}),
        ('odd.mp4', dict(size=(37, 51), pix_fmt='yuv444p')),
        ('portrait.mov', dict(size=(64, 36), rate=Fraction(30000, 1001))),
        ('sound.mp4', dict(audio=True)),
        ('a.webm', dict(codec='libvpx', rate=25)),
        ('a.mkv', {}),
        ('a.avi', dict(codec='mpeg4')),
        ('a.gif', dict(codec='gif', pix_fmt='rgb8')),
        ('one.mp4', dict(length=1)),
    ],
)
def test_videos(tmp_path, said, name, options):
    found, frames = frames_of(write_video(tmp_path / name, **options))
    assert found.kind == 'video' and found.size == options.get('size', (48, 64)) and not said
    assert [level(frame) for frame in frames] == list(range(options.get('length', 6)))
    assert found.times is None and found.name(12) == '00012'
    if len(frames) > 1:
        assert found.fps == options.get('rate', 10)


@pytest.mark.parametrize('name', tiny_videos.TURNED)
def test_a_turned_video_is_upright(tmp_path, name):
    found, frames = frames_of(tiny_videos.turn(write_video(tmp_path / 'a.mp4'), tiny_videos.TURNED[name]))
    pixels = frame_pixels((48, 64))
    expected = dict(
        clockwise=np.rot90(pixels, -1),
        counterclockwise=np.rot90(pixels),
        upside_down=np.rot90(pixels, 2),
        mirrored=pixels[:, ::-1],
        transposed=pixels.transpose(1, 0, 2),
    )[name]
    assert found.size == expected.shape[:2]
    assert np.abs(frames[0].astype(int) - expected).mean() < 6


def test_a_rate_that_varies(tmp_path, infer):
    times = [0, 40, 500, 540, 1000, 1500]
    path = write_video(tmp_path / 'a.mkv', times=times, rate=25)
    found, frames = frames_of(path)
    assert [float(time) for time in found.times] == [time / 1000 for time in times]
    infer(path, TEXTS[0], out_dir=tmp_path / 'out')
    import av

    with av.open(str(tmp_path / 'out' / 'overlay.mp4')) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert shown == pytest.approx([time / 1000 for time in times], abs=1e-3)


@pytest.mark.parametrize(
    'name, options', [('a.mp4', dict(faststart=True)), ('a.mkv', {}), ('a.webm', dict(codec='libvpx'))]
)
def test_a_truncated_video(tmp_path, said, name, options):
    path = tiny_videos.cut(write_video(tmp_path / name, length=20, **options))
    found, frames = frames_of(path)
    assert 3 < len(frames) < 20 and [level(frame) for frame in frames] == list(range(len(frames)))
    about = '' if name == 'a.mp4' else 'about '
    message = f'{path}: {len(frames)} frames of {about}20 could be decoded; the others are left out'
    assert len([text for text in said if text.startswith(message)]) == 1, said


def test_files_that_are_no_video(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'there is no file or folder .*no_such\.mp4'):
        open_frames(tmp_path / 'no_such.mp4')
    text = tmp_path / 'text.mp4'
    text.write_text('no video')
    with pytest.raises(ValueError, match=r'text\.mp4 cannot be read as a video'):
        open_frames(text)
    text.write_text('')
    with pytest.raises(ValueError, match=r'text\.mp4 cannot be read as a video'):
        open_frames(text)
    with pytest.raises(ValueError, match=r"holds no video, only the streams \['audio'\]"):
        open_frames(tiny_videos.write_sound(tmp_path / 'sound.mp4'))
    with pytest.raises(ValueError, match=r'its index, which some programs write last, may be missing'):
        open_frames(tiny_videos.cut(write_video(tmp_path / 'a.mp4')))
    broken = write_video(tmp_path / 'b.mp4', faststart=True)
    content = bytearray(broken.read_bytes())
    start = content.index(b'mdat') + 4
    content[start:] = bytes(len(content) - start)
    broken.write_bytes(content)
    with pytest.raises(ValueError, match='not a single frame can be decoded'):
        open_frames(broken)
    with pytest.raises(ValueError, match='fps is for folders and arrays'):
        open_frames(write_video(tmp_path / 'c.mp4'), fps=5)


def test_a_folder(tmp_path, said):
    for index, name in enumerate(['frame2.png', 'frame10.jpg', 'frame10b.JPEG']):
        Image.fromarray(frame_pixels((20, 30), index)).save(tmp_path / name, quality=95)
    (tmp_path / 'notes.txt').touch()
    (tmp_path / '.hidden.png').touch()
    found, frames = frames_of(tmp_path, fps=5)
    assert [level(frame) for frame in frames] == [0, 1, 2] and found.fps == 5
    assert [found.name(index) for index in range(3)] == ['frame2', 'frame10', 'frame10b']
    assert said == [f'{tmp_path}: 1 entries are no images and are left out: notes.txt']
    Image.fromarray(frame_pixels((20, 31))).save(tmp_path / 'frame3.png')
    with pytest.raises(
        ValueError, match=r'frame3\.png is 31x20, but .*frame2\.png is 30x20; expected images of one size'
    ):
        open_frames(tmp_path)
    (tmp_path / 'frame3.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'frame3\.png cannot be read as an image'):
        open_frames(tmp_path)
    (tmp_path / 'frame3.png').rename(tmp_path / 'frame2.jpg')
    with pytest.raises(ValueError, match='would have masks of the same name'):
        open_frames(tmp_path)
    with pytest.raises(ValueError, match='fps must be a positive number, found 0'):
        open_frames(noise(2), fps=0)


def test_a_folder_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'holds no images \(\.jpg, \.jpeg, \.png\); it holds nothing'):
        open_frames(tmp_path)
    (tmp_path / 'clip.mp4').touch()
    with pytest.raises(FileNotFoundError, match=r'it holds clip\.mp4'):
        open_frames(str(tmp_path))


def test_images(tmp_path):
    pixels = frame_pixels((20, 30))
    path = tmp_path / 'a.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    Image.fromarray(pixels).save(path, quality=95, exif=exif)
    found, (frame,) = frames_of(path)
    assert found.kind == 'image' and np.abs(frame.astype(int) - np.rot90(pixels, -1)).mean() < 6
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ValueError, match=r'a\.jpg cannot be read'):
        list(open_frames(path).read())
    path.write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'a\.jpg cannot be read as an image'):
        open_frames(path)


@pytest.mark.parametrize(
    'pixels, message',
    [
        (np.zeros((2, 4, 4, 3)), 'found 2 of float64'),
        (np.zeros((4, 4), np.uint8), r'found 4 of \(4,\)'),
        (np.zeros((4, 4, 4, 4), np.uint8), r'found 4 of \(4, 4, 4\)'),
        (np.zeros((0, 4, 4, 3), np.uint8), 'found no pixels'),
        ([], 'found no pixels'),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], r'differ in shape: \(4, 4, 3\), \(4, 5, 3\)'),
        (7, 'found int'),
    ],
)
def test_bad_arrays(pixels, message):
    with pytest.raises(ValueError, match=message):
        open_frames(pixels)


# --- threads


def test_prefetch():
    taken, closed = [], threading.Event()

    def count(stop=100, fails=None):
        try:
            for index in range(stop):
                if index == fails:
                    raise RuntimeError('broken')
                taken.append(index)
                yield index
        finally:
            closed.set()

    assert list(prefetch(count(5))) == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match='broken'):
        list(prefetch(count(fails=3)))
    taken.clear()
    closed.clear()
    ahead = prefetch(count(), depth=2)
    assert next(ahead) == 0
    time.sleep(0.3)
    assert taken == [0, 1, 2, 3]  # one was taken, two wait, one has no room
    ahead.close()
    assert closed.is_set()


def test_worker_pool():
    done, gate = [], threading.Event()
    with WorkerPool(1, pending=2) as pool:
        for index in range(20):
            pool.submit(done.append, index)
    assert done == list(range(20))

    with WorkerPool(2, pending=3) as pool:
        for _ in range(3):
            pool.submit(gate.wait)
        started = time.monotonic()
        threading.Timer(0.2, gate.set).start()
        pool.submit(done.clear)
        assert time.monotonic() - started > 0.1  # it waited for room
    assert not done

    def fails():
        raise OSError('no space')

    with pytest.raises(OSError, match='no space'), WorkerPool(1, pending=2) as pool:
        pool.submit(fails)
        for _ in range(10):
            pool.submit(done.append, 0)
    assert len(done) < 10
    with pytest.raises(OSError, match='no space'), WorkerPool(1, pending=2) as pool:
        pool.submit(fails)
    with pytest.raises(KeyError), WorkerPool(1, pending=2) as pool:  # the first error wins
        pool.submit(fails)
        raise KeyError
