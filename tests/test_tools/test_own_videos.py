"""tools/dataset_converters/own_videos.py: a small video made on the spot, and every mistake that it names."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mmsoc.preparation.own_videos import convert
from mmsoc.registry import DATASETS
from mmsoc.utils.files import read_frame, read_ids
from mmsoc.visualization import VideoWriter
from tests.test_apis import tiny_videos
from tools.dataset_converters import own_videos

SIZE = 32, 48  # height, width
ROWS = [
    ('a', 1, 'The red box'),
    ('a', 2, 'a box, the green one'),
    ('b', 1, 'it  grows\nslowly'),
    ('c', 3, 'third video'),
]


def ids_of(t):
    """Object 1 moves right, object 2 is there in the first four frames; the ids of `b` and `c` see `source`."""
    ids = np.zeros(SIZE, np.uint8)
    ids[4:12, 2 + 2 * t : 12 + 2 * t] = 1
    if t < 4:
        ids[20:28, 30:40] = 2
    return ids


def frame_of(t):
    frame = np.full((*SIZE, 3), 90, np.uint8)
    ids = ids_of(t)
    frame[ids == 1] = 250, 10, 10
    frame[ids == 2] = 10, 250, 10
    return frame


def write_csv(folder, rows, header='video,object,expression'):
    lines = [f'{video},{number},"{text}"' for video, number, text in rows]
    (folder / 'expressions.csv').write_text('\n'.join([header, *lines]) + '\n', encoding='utf-8')


def write_mask(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Video a: 10 frames in a file, masks of the first 8. b: 4 frames in a file, a mask of each. c: a folder of 3 jpg."""
    folder = tmp_path_factory.mktemp('own') / 'my videos'
    (folder / 'videos' / 'c').mkdir(parents=True)
    for name, length, masks in (('a', 10, 8), ('b', 4, 4)):
        with VideoWriter(folder / 'videos' / f'{name}.mp4', fps=5, crf=1) as video:
            for t in range(length):
                video.write(frame_of(t))
        for t in range(masks):
            write_mask(folder / 'masks' / name / f'{t:05d}.png', ids_of(t) if name == 'a' else np.minimum(ids_of(t), 1))
    for t in (0, 5, 10):
        Image.fromarray(frame_of(t // 5)).save(folder / 'videos' / 'c' / f'{t:05d}.jpg', quality=60)
        write_mask(folder / 'masks' / 'c' / f'{t:05d}.png', np.uint8([0, 3, 0])[ids_of(t // 5)])
    write_csv(folder, ROWS)
    return folder


@pytest.fixture
def source(made, tmp_path):
    return shutil.copytree(made, tmp_path / 'my videos')


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Calls the tool; returns the summary. A mistake is raised."""

    def call(source, *options):
        monkeypatch.setattr(
            sys, 'argv', ['own_videos.py', str(source), '--out', str(tmp_path / 'set'), *map(str, options)]
        )
        return convert(**vars(own_videos.parse_args()))

    return call


def load(root, split, **changes):
    return DATASETS.build(
        dict(
            dict(
                type='mmsoc.RefYouTubeVOSDataset',
                data_root=str(root),
                ann_file=f'meta_expressions/{split}/meta_expressions.json',
                meta_file=f'{split}/meta.json',
                data_prefix=dict(img=f'{split}/JPEGImages', mask=f'{split}/Annotations'),
                pipeline=[dict(type='mmsoc.LoadVideoFrames')],
            ),
            **changes,
        )
    )


def test_the_loader_reads_what_was_written(source, run, tmp_path):
    report = run(source, '--valid', 'b')
    table = [line.split() for line in report.splitlines()]
    assert table[0] == ['videos', 'objects', 'sentences', 'frames']
    assert table[1:3] == [['train', '2', '3', '3', '11'], ['valid', '1', '1', '1', '4']]
    assert 'Left out, since they have no mask: 2 frames (a 2)' in report and f'Written: {tmp_path / "set"}' in report

    pipeline = [dict(type='mmsoc.LoadVideoFrames'), dict(type='mmsoc.LoadReferredMasks')]
    train = load(
        tmp_path / 'set', 'train', clip_sampler=dict(type='WindowClipSampler', num_frames=4), pipeline=pipeline
    )
    # a, object 1: frames 0-3, 4-7; object 2 is in 0-3 alone; c has three frames, its last one twice
    assert [
        (item['video_id'], item['texts'][0], item['frames']) for item in map(train.get_data_info, range(len(train)))
    ] == [
        ('a', 'the red box', ['00000', '00001', '00002', '00003']),
        ('a', 'the red box', ['00004', '00005', '00006', '00007']),
        ('a', 'a box, the green one', ['00000', '00001', '00002', '00003']),
        ('c', 'third video', ['00000', '00005', '00010', '00010']),
    ]
    for t, (pixels, masks) in enumerate(zip(train[2]['img'], train[2]['gt_masks'])):
        np.testing.assert_array_equal(masks.masks[0], ids_of(t) == 2)
        assert np.abs(pixels.astype(int) - frame_of(t)).mean() < 6  # two lossy codecs
    valid = load(tmp_path / 'set', 'valid', test_mode=True, require_masks=True)
    (item,) = valid
    assert item['obj_ids'] == ['1'] and item['texts'] == ['it grows slowly'] and len(item['mask_paths']) == 4
    assert json.loads((tmp_path / 'set' / 'own_videos.json').read_text())['valid'] == ['b']


def test_a_jpg_frame_is_copied_as_it_is(source, run, tmp_path):
    run(source, '--valid', 'b')
    copy = tmp_path / 'set' / 'train' / 'JPEGImages' / 'c' / '00005.jpg'
    assert copy.read_bytes() == (source / 'videos' / 'c' / '00005.jpg').read_bytes()


def test_a_frame_without_a_mask_is_not_one_without_its_object(source, run, tmp_path):
    (source / 'masks' / 'a' / '00002.png').unlink()
    write_mask(source / 'masks' / 'a' / '00003.png', np.zeros(SIZE, np.uint8))
    run(source, '--valid', 'b')
    record = json.loads((tmp_path / 'set' / 'meta_expressions' / 'train' / 'meta_expressions.json').read_text())[
        'videos'
    ]['a']
    assert record['frames'] == ['00000', '00001', '00003', '00004', '00005', '00006', '00007']
    objects = json.loads((tmp_path / 'set' / 'train' / 'meta.json').read_text())['videos']['a']['objects']
    assert '00003' not in objects['1']['frames'] and objects['2']['frames'] == ['00000', '00001']


def test_every(source, run, tmp_path):
    report = run(source, '--valid', 'b', '--every', 3)
    assert 'Left out by --every 3: 9 frames with a mask' in report  # 5 of a, 2 of b, 2 of c (its second and third)
    frames = {path.name for path in (tmp_path / 'set' / 'train' / 'JPEGImages' / 'a').iterdir()}
    assert frames == {'00000.jpg', '00003.jpg', '00006.jpg'}
    with pytest.raises(ValueError, match=r'--every 7 leaves no frame of \'a\' that has a mask; .* frames 1, 2'):
        (source / 'masks' / 'a' / '00000.png').unlink()
        (source / 'masks' / 'a' / '00007.png').unlink()
        run(source, '--valid', 'b', '--every', 7, '--overwrite')


def test_numbers_from_one(source, run, tmp_path):
    masks = source / 'masks' / 'b'
    for t in reversed(range(4)):
        (masks / f'{t:05d}.png').rename(masks / f'{t + 1:05d}.png')
    with pytest.raises(ValueError, match=r'masks/b/00004\.png: .*b\.mp4 has no frame 4; it has 4, numbered 0 to 3'):
        run(source, '--valid', 'c')
    write_csv(source, [row for row in ROWS if row[0] != 'a'])
    run(source, '--valid', 'c', '--first-number', 1)
    folder = tmp_path / 'set' / 'train' / 'JPEGImages' / 'b'
    assert sorted(path.name for path in folder.iterdir()) == [f'0000{t}.jpg' for t in (1, 2, 3, 4)]
    assert np.abs(read_frame(folder / '00003.jpg').astype(int) - frame_of(2)).mean() < 6
    with pytest.raises(ValueError, match=r'00001\.png: the frames of .*b\.mp4 are counted from --first-number 2'):
        run(source, '--valid', 'c', '--first-number', 2, '--overwrite')


def test_black_and_white_masks(source, run, tmp_path):
    write_csv(source, ROWS[2:3] + [('c', 1, 'third video')])
    for name in ('b', 'c'):
        for i, path in enumerate(sorted((source / 'masks' / name).iterdir())):
            white = Image.fromarray(np.uint8(255) * (read_ids(path) > 0))
            (white.convert('RGB') if i == 0 else white.convert('1') if i == 1 else white).save(path)
    with pytest.raises(ValueError, match='expected a palette PNG'):
        run(source, '--valid', 'c')
    for name in ('b', 'c'):
        for path in (source / 'masks' / name).iterdir():
            Image.open(path).convert('L').save(path)
    with pytest.raises(ValueError, match=r'they show \[255\]; if white is the only object, add --binary-masks'):
        run(source, '--valid', 'c')
    run(source, '--valid', 'c', '--binary-masks')
    found = read_ids(tmp_path / 'set' / 'train' / 'Annotations' / 'b' / '00002.png')
    np.testing.assert_array_equal(found, ids_of(2) > 0)
    write_mask(source / 'masks' / 'b' / '00001.png', np.uint8(100) * ids_of(1))
    with pytest.raises(ValueError, match=r'00001\.png should have 0 and one other value, found 3: 0, 100, 200'):
        run(source, '--valid', 'c', '--binary-masks', '--overwrite')
    Image.new('RGBA', SIZE[::-1]).save(source / 'masks' / 'b' / '00001.png')
    with pytest.raises(ValueError, match='found mode RGBA'):
        run(source, '--valid', 'c', '--binary-masks', '--overwrite')
    (source / 'masks' / 'b' / '00001.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'00001\.png cannot be read'):
        run(source, '--valid', 'c', '--binary-masks', '--overwrite')


def test_a_turned_video(source, run, tmp_path):
    """The file of a telephone held upright: wide frames, and a mark to turn them clockwise."""
    path = source / 'videos' / 'b.mp4'
    content = bytearray(path.read_bytes())
    matrix = content.index(b'tkhd') + 44  # version, times, id, duration, layer and volume come before
    one = 0x10000
    assert struct.unpack('>9i', content[matrix : matrix + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    content[matrix : matrix + 36] = struct.pack('>9i', 0, one, 0, -one, 0, 0, SIZE[0] * one, 0, 1 << 30)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'masks/b/00000\.png is 48x32, but its frame \(.*b\.mp4, frame 0\) is 32x48'):
        run(source, '--valid', 'c')
    for mask in (source / 'masks' / 'b').iterdir():
        write_mask(mask, np.rot90(read_ids(mask), -1))
    run(source, '--valid', 'c')
    frame = read_frame(tmp_path / 'set' / 'train' / 'JPEGImages' / 'b' / '00001.jpg')
    assert np.abs(frame.astype(int) - np.rot90(frame_of(1), -1)).mean() < 6


def test_a_mirrored_video(source, run, tmp_path):
    tiny_videos.turn(source / 'videos' / 'b.mp4', tiny_videos.TURNED['mirrored'])
    for mask in (source / 'masks' / 'b').iterdir():
        write_mask(mask, read_ids(mask)[:, ::-1])
    run(source, '--valid', 'c')
    frame = read_frame(tmp_path / 'set' / 'train' / 'JPEGImages' / 'b' / '00001.jpg')
    assert np.abs(frame.astype(int) - frame_of(1)[:, ::-1]).mean() < 6


def test_a_share_is_drawn(source, run, tmp_path):
    def drawn(seed):
        run(source, '--valid-share', 0.4, '--seed', seed, '--overwrite')
        return json.loads((tmp_path / 'set' / 'own_videos.json').read_text())['valid']

    assert len(drawn(0)) == 1 and drawn(3) == drawn(3)
    assert len({drawn(seed)[0] for seed in range(8)}) > 1
    report = run(source, '--valid-share', 0, '--overwrite')
    assert 'There is no valid split' in report and not (tmp_path / 'set' / 'valid').exists()


def test_what_is_not_used_is_told(source, run):
    (source / 'expressions.csv').write_text(
        '\ufeffvideo,object,expression,who\na,1,a box,me\nc,3,another,you\n', encoding='utf-8'
    )
    report = run(source, '--valid', 'c')
    assert 'Objects in the masks that no sentence names: a [2]' in report
    assert 'Not used, since no row names it: videos/b.mp4, masks/b' in report
    assert 'Columns of the csv that are not used: who' in report


def test_out_is_not_replaced_unasked(source, run, tmp_path):
    run(source, '--valid', 'b')
    with pytest.raises(ValueError, match='is not empty; add --overwrite'):
        run(source, '--valid', 'b')
    run(source, '--valid', 'a', '--overwrite')
    assert (tmp_path / 'set' / 'valid' / 'JPEGImages' / 'a').is_dir()
    # A run that fails leaves the old set, and nothing beside it.
    (source / 'masks' / 'b' / '00009.png').write_bytes((source / 'masks' / 'b' / '00003.png').read_bytes())
    with pytest.raises(ValueError, match='has no frame 9'):
        run(source, '--valid', 'b', '--overwrite')
    assert (tmp_path / 'set' / 'valid' / 'JPEGImages' / 'a').is_dir() and not (tmp_path / '.set.partial').exists()
    shutil.rmtree(tmp_path / 'set')
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'thesis.txt').touch()
    with pytest.raises(ValueError, match='was not written by this tool'):
        run(source, '--valid', 'b', '--overwrite')
    shutil.rmtree(tmp_path / 'set')
    with pytest.raises(ValueError, match='is, or holds, the folder'):
        run(source, '--valid', 'b', '--out', source.parent)


def test_an_interrupted_overwrite_keeps_the_old_set(source, run, tmp_path, monkeypatch):
    run(source, '--valid', 'b')
    interrupted = []

    def interrupt_once(rename):
        def call(path, target):
            if Path(target) == tmp_path / 'set' and not interrupted:
                interrupted.append(path.name)
                raise KeyboardInterrupt
            return rename(path, target)

        return call

    for name in ('rename', 'replace'):
        monkeypatch.setattr(Path, name, interrupt_once(getattr(Path, name)))
    with pytest.raises(KeyboardInterrupt):
        run(source, '--valid', 'a', '--overwrite')
    assert interrupted == ['.set.partial']
    assert (tmp_path / 'set' / 'valid' / 'JPEGImages' / 'b').is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['my videos', 'set']


BAD_CSV = [
    (
        'video;object;expression\na;1;x\n',
        r"expected the columns video, object, expression, .* found \['video;object;expression'\]",
    ),
    ('', 'expected the columns video, object, expression'),
    ('video,object,expression\n', 'there is no row below the header'),
    ('video,object,expression\na,1,"  "\n', 'line 2: the sentence is empty'),
    (
        'video,object,expression\na,1,the dog, not the cat\n',
        'line 2: expected 3 fields .*found 4; a sentence with a comma',
    ),
    ('video,object,expression\na,0,x\n', "line 2: object must be a pixel value of the masks, 1 to 255, found '0'"),
    ('video,object,expression\na,dog,x\n', "1 to 255, found 'dog'"),
    ('video,object,expression\nb/a,1,x\n', "line 2: video must be the name of a file .*found 'b/a'"),
    (
        'video,object,expression\na,1,A Box\na,2,box\na,1,a  box\n',
        "line 4: the same video, object and sentence as in line 2: a, 1, 'a box'",
    ),
    ('video,object,expression\na,1,"x\n', 'not CSV'),
    (
        'video,object,expression\nd,1,x\n',
        r"line 2: there is no video 'd': expected .*d\.mp4 .*holds a\.mp4, b\.mp4, c$",
    ),
    ('video,object,expression\na.mp4,1,x\n', "there is no video 'a.mp4': .*write 'a', without the suffix"),
    ('video,object,expression\na,4,x\n', r"line 2: object 4 of 'a' is in none of the 8 masks .*they show \[1, 2\]"),
]


@pytest.mark.parametrize('text, message', BAD_CSV)
def test_mistakes_in_the_csv(source, run, text, message):
    (source / 'expressions.csv').write_text(text, encoding='utf-8')
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(source, '--valid-share', 0)


def test_all_mistakes_in_the_csv_at_once(source, run):
    (source / 'expressions.csv').write_text('video,object,expression\na,1,\na,x,y\n', encoding='utf-8')
    with pytest.raises(ValueError) as error:
        run(source)
    assert len(str(error.value).splitlines()) == 2
    (source / 'expressions.csv').write_bytes('video,object,expression\na,1,caf\xe9\n'.encode('latin-1'))
    with pytest.raises(ValueError, match='is not UTF-8 text'):
        run(source)
    (source / 'expressions.csv').unlink()
    with pytest.raises(FileNotFoundError, match=r'there is no file .*expressions\.csv'):
        run(source)
    shutil.rmtree(source / 'masks')
    with pytest.raises(
        FileNotFoundError, match='there is no folder .*masks; expected videos/, masks/ and expressions.csv'
    ):
        run(source)


def test_mistakes_in_the_split(source, run):
    with pytest.raises(
        ValueError, match=r"--valid: no row of expressions.csv names the videos \['z'\]; it names a, b, c"
    ):
        run(source, '--valid', 'z')
    with pytest.raises(ValueError, match='no video is left for training'):
        run(source, '--valid', 'a', 'b', 'c')
    write_csv(source, ROWS[:1])
    with pytest.raises(ValueError, match='no video is left for training: the csv names 1'):
        run(source)
    for options in (
        ('--every', 0),
        ('--valid-share', 1),
        ('--first-number', -1),
        ('--valid', 'a', '--valid-share', 0.5),
    ):
        with pytest.raises(SystemExit):
            run(source, *options)


def test_mistakes_in_the_masks(source, run):
    masks = source / 'masks' / 'a'
    broken = masks / '00003.png'
    write_mask(broken, np.zeros((16, 20), np.uint8))
    with pytest.raises(ValueError, match=r'masks/a/00003\.png is 20x16, but its frame \(.*a\.mp4, frame 3\) is 48x32'):
        run(source, '--valid', 'b')
    broken.write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'mask .*00003\.png cannot be read'):
        run(source, '--valid', 'b')
    broken.unlink()
    (masks / '3.png').write_bytes((masks / '00004.png').read_bytes())
    (masks / '003.png').write_bytes((masks / '00004.png').read_bytes())
    with pytest.raises(ValueError, match=r'3\.png and .*003\.png are both number 3'):
        run(source, '--valid', 'b')
    (masks / '003.png').unlink()
    run(source, '--valid', 'b')
    (masks / '.DS_Store').touch()  # hidden
    (masks / 'frame_4.png').write_bytes((masks / '00004.png').read_bytes())
    with pytest.raises(ValueError, match=r'frame_4\.png: expected PNG masks, named by the number of the frame'):
        run(source, '--valid', 'b', '--overwrite')
    shutil.rmtree(masks)
    with pytest.raises(FileNotFoundError, match='there is no folder .*masks/a, which should hold the PNG masks'):
        run(source, '--valid', 'b', '--overwrite')
    masks.mkdir()
    with pytest.raises(FileNotFoundError, match='masks/a holds no PNG masks'):
        run(source, '--valid', 'b', '--overwrite')


def test_mistakes_in_the_videos(source, run):
    write_mask(source / 'masks' / 'c' / '00003.png', ids_of(0))
    with pytest.raises(ValueError, match=r'masks/c/00003\.png: .*videos/c has no frame 3; it has 3, numbered 0 to 10'):
        run(source, '--valid', 'b')
    (source / 'masks' / 'c' / '00003.png').unlink()
    (source / 'videos' / 'c' / 'notes.txt').touch()
    with pytest.raises(ValueError, match=r'notes\.txt: expected frames, named by the number'):
        run(source, '--valid', 'b')
    (source / 'videos' / 'c' / 'notes.txt').unlink()
    Image.new('RGB', (20, 16)).save(source / 'videos' / 'c' / '00005.jpg')
    with pytest.raises(ValueError, match='frame 5 is 20x16, but an earlier one 48x32'):
        run(source, '--valid', 'b')
    (source / 'videos' / 'c' / '00005.jpg').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'frame .*00005\.jpg cannot be read'):
        run(source, '--valid', 'b')

    video = source / 'videos' / 'a.mp4'
    (source / 'videos' / 'a.avi').touch()
    with pytest.raises(ValueError, match=r"several videos are called 'a': .*a\.avi, .*a\.mp4; keep one"):
        run(source, '--valid', 'b')
    (source / 'videos' / 'a.avi').unlink()
    video.write_bytes(b'no video, but long enough to be looked at' * 50)
    with pytest.raises(ValueError, match=r'a\.mp4 cannot be decoded'):
        run(source, '--valid', 'b')
    with av.open(str(video), 'w') as container:
        stream = container.add_stream('aac', rate=8000, layout='mono')
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"a\.mp4 holds no video, only the streams \['audio'\]"):
        run(source, '--valid', 'b')


def test_a_truncated_video(source, run):
    video = source / 'videos' / 'a.mkv'
    (source / 'videos' / 'a.mp4').unlink()
    with VideoWriter(video, fps=5, crf=1) as writer:
        for t in range(10):
            writer.write(np.random.default_rng(t).integers(0, 255, (*SIZE, 3), dtype=np.uint8))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 3])
    with pytest.raises(ValueError, match=r'(a\.mkv has no frame \d; it has|a\.mkv cannot be decoded|is damaged)'):
        run(source, '--valid', 'b')


def test_as_a_user_calls_it(source, root, tmp_path):
    def call(*options):
        command = [sys.executable, str(root / 'tools' / 'dataset_converters' / 'own_videos.py'), str(source), *options]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ, MMSOC_DATA='here')
        )

    done = call('--valid', 'b')
    assert done.returncode == 0, done.stderr
    assert 'own_videos: video 3 of 3 (b), 4 of 4 frames' in done.stderr
    assert (tmp_path / 'here' / 'own-videos' / 'valid' / 'meta.json').is_file()
    done = call('--valid', 'z')
    assert done.returncode == 1 and done.stderr.startswith('error: --out') and 'Traceback' not in done.stderr
