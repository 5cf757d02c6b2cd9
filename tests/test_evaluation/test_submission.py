"""SubmissionWriter, and validate_submission.py with every fault planted that it names."""

import argparse
import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.evaluation import SubmissionWriter
from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError
from tools.analysis_tools import validate_submission

SIZE = 24, 40
VIDEOS = {'a': (['0', '1'], ['00000', '00005']), 'b': (['0'], ['00010'])}
TOP = {'ref-youtube-vos': 'Annotations/', 'mevis': ''}


def mask_of(exp_id, frame):
    mask = np.zeros(SIZE, np.uint8)
    mask[2 : 5 + int(frame), 3 : 9 + int(exp_id)] = 1
    return mask


def sample_of(video):
    exp_ids, frames = VIDEOS[video]
    masks = [[coco_mask.encode(np.asfortranarray(mask_of(exp_id, frame))) for frame in frames] for exp_id in exp_ids]
    return dict(video_id=video, exp_ids=exp_ids, frames=frames, pred_masks=masks)


@pytest.fixture
def data(tmp_path):
    """Expressions and frames."""
    for video, (_, frames) in VIDEOS.items():
        (tmp_path / 'images' / video).mkdir(parents=True)
        for frame in frames:
            Image.new('RGB', SIZE[::-1]).save(tmp_path / 'images' / video / f'{frame}.jpg')
    content = {
        video: dict(expressions={exp_id: dict(exp='x') for exp_id in exp_ids}, frames=frames)
        for video, (exp_ids, frames) in VIDEOS.items()
    }
    (tmp_path / 'expressions.json').write_text(json.dumps(dict(videos=content)))
    return tmp_path


def write(folder, layout):
    metric = METRICS.build(dict(type='mmsoc.SubmissionWriter', zip_file=str(folder / 'out/x.zip'), layout=layout))
    for video in VIDEOS:
        metric.process({}, [sample_of(video)])
    assert metric.evaluate(2) == {'submission/num_videos': 2, 'submission/num_sentences': 3, 'submission/num_masks': 5}
    return folder / 'out/x.zip'


def faults_of(data, archive, layout='ref-youtube-vos', images=True, exclude=None, only_images=False):
    return validate_submission.find_faults(
        argparse.Namespace(
            submission=str(archive),
            expressions=str(data / 'expressions.json'),
            layout=layout,
            exclude=exclude,
            images=str(data / 'images') if images else None,
            only_images=only_images,
        )
    )


@pytest.mark.parametrize('layout', TOP)
def test_what_is_written(data, layout):
    archive = write(data, layout)
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == sorted(
            f'{TOP[layout]}{video}/{exp_id}/{frame}.png'
            for video, (exp_ids, frames) in VIDEOS.items()
            for exp_id in exp_ids
            for frame in frames
        )
        with Image.open(io.BytesIO(opened.read(f'{TOP[layout]}a/1/00005.png'))) as image:
            assert image.format == 'PNG' and image.mode == 'L' and image.size == SIZE[::-1]
            assert np.array_equal(np.array(image), mask_of('1', '00005') * 255)
    faults, summary = faults_of(data, archive, layout)
    assert faults == [] and summary == '5 files; expected 5 masks of 3 sentences and 2 videos'
    first = archive.read_bytes()
    archive.unlink()
    assert write(data, layout).read_bytes() == first  # the same predictions, the same archive


def test_two_processes_and_padding(data):
    """What two processes collect: interleaved, the padding at the end, which mmengine cuts off."""
    metric = SubmissionWriter(zip_file=str(data / 'x.zip'))
    for video in ('a', 'b', 'a'):
        metric.process({}, [sample_of(video)])
    metric.evaluate(2)
    assert faults_of(data, data / 'x.zip')[0] == []


def test_a_failure_leaves_the_old_archive(data):
    archive = write(data, 'mevis')
    before = archive.read_bytes()
    metric = SubmissionWriter(zip_file=str(archive), layout='mevis')
    metric.results = [dict(video='a', num_sentences=1, images={'a/0/0.png': None})]
    with pytest.raises(TypeError):
        metric.compute_metrics(metric.results)
    assert archive.read_bytes() == before and [path.name for path in archive.parent.iterdir()] == ['x.zip']


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"layout must be one of \['mevis', 'ref-youtube-vos'\], found 'davis'"):
        SubmissionWriter(zip_file='x.zip', layout='davis')
    with pytest.raises(ValueError, match="zip_file must end in .zip, found 'x'"):
        SubmissionWriter(zip_file='x')
    with pytest.raises(ValueError, match='nothing to write'):
        SubmissionWriter(zip_file=str(tmp_path / 'x.zip')).evaluate(0)
    sample = sample_of('a')
    sample['pred_masks'][1] = sample['pred_masks'][1][:1]
    with pytest.raises(
        ValueError, match=r'video a: expected masks for 2 sentences and 2 frames, found \[2, 1\] frames'
    ):
        SubmissionWriter(zip_file='x.zip').score_video(sample)


# --- planted faults


def png(pixels, mode=None, kind='PNG'):
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(file, kind)
    return file.getvalue()


GOOD = mask_of('0', '00000') * 255
NAME = 'Annotations/a/0/00000.png'


def changed(archive, change):
    """The archive with its files, {name: bytes}, changed."""
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    files = change(files) or files
    with zipfile.ZipFile(archive, 'w') as opened:
        for name, content in files.items():
            opened.writestr(name, content)


@pytest.mark.parametrize(
    'content, fault',
    [
        (png(GOOD // 255), 'expected the values 0 and 255, found also [1]'),
        (png(GOOD, '1'), 'expected 8 bits and one channel (mode L), found mode 1'),
        (png(GOOD, 'P'), 'expected 8 bits and one channel (mode L), found mode P'),
        (png(GOOD, 'RGB'), 'expected 8 bits and one channel (mode L), found mode RGB'),
        (png(GOOD.astype(np.uint16)), 'expected 8 bits and one channel (mode L), found mode I;16'),
        (png(GOOD[:, :30]), 'expected 40x24, found 30x24'),
        (png(GOOD * 0, kind='BMP'), 'expected a PNG, found BMP'),
    ],
)
def test_a_wrong_image(data, content, fault):
    archive = write(data, 'ref-youtube-vos')
    changed(archive, lambda files: files.update({NAME: content}))
    assert faults_of(data, archive)[0] == [f'{NAME}: {fault}']


def test_broken_images(data):
    archive = write(data, 'ref-youtube-vos')
    other = 'Annotations/b/0/00010.png'
    changed(archive, lambda files: files.update({NAME: b'no image', other: files[other][:60]}))
    faults = faults_of(data, archive)[0]
    assert [fault.split(' (')[0] for fault in faults] == [
        f'{name}: cannot be read as an image' for name in (NAME, other)
    ]


def test_missing_and_further_files(data):
    archive = write(data, 'ref-youtube-vos')
    changed(archive, lambda files: files.update({'__MACOSX/x': b'', 'Annotations/a/7/00000.png': files.pop(NAME)}))
    assert faults_of(data, archive)[0] == [
        'Annotations/a/7/00000.png: not expected',
        '__MACOSX/x: not expected',
        f'{NAME}: missing',
    ]


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_a_file_twice(data):
    archive = write(data, 'ref-youtube-vos')
    with zipfile.ZipFile(archive, 'a') as opened:
        opened.writestr(NAME, png(GOOD))
    assert faults_of(data, archive)[0] == [f'{NAME}: 2 times in the archive']


def test_damaged_archives(data):
    archive = write(data, 'ref-youtube-vos')
    content = bytearray(archive.read_bytes())
    at = content.index(b'IHDR')
    content[at + 20] ^= 255
    archive.write_bytes(content)
    assert any('cannot be unpacked (Bad CRC-32' in fault for fault in faults_of(data, archive)[0])
    archive.write_bytes(b'nothing')
    assert 'is no zip archive' in faults_of(data, archive)[0][0]


def test_the_top_folder(data):
    faults = faults_of(data, write(data, 'mevis'))[0]
    assert (
        faults[0] == 'the top folder Annotations/ is missing: the archive begins with a/' and len(faults) == 1 + 2 * 5
    )
    faults = faults_of(data, write(data, 'ref-youtube-vos'), 'mevis')[0]
    assert (
        faults[0] == 'there should be no top folder, but everything lies in Annotations/' and len(faults) == 1 + 2 * 5
    )


def test_sizes_without_frames(data):
    archive = write(data, 'ref-youtube-vos')
    changed(archive, lambda files: files.update({'Annotations/a/1/00005.png': png(GOOD[:, :30])}))
    faults, summary = faults_of(data, archive, images=False)
    assert faults == ['Annotations/a/1/00005.png: expected 40x24, found 30x24'] and 'no --images' in summary


def test_only_a_part_of_the_expressions(data):
    """Valid without test: by the test file, or by the folders of frames."""
    archive = write(data, 'ref-youtube-vos')
    changed(archive, lambda files: {name: content for name, content in files.items() if '/b/' not in name})
    assert faults_of(data, archive)[0] == ['Annotations/b/0/00010.png: missing']
    (data / 'test.json').write_text(json.dumps(dict(videos=dict(b={}))))
    assert faults_of(data, archive, exclude=str(data / 'test.json'))[0] == []
    (data / 'images/b/00010.jpg').unlink()
    (data / 'images/b').rmdir()
    assert faults_of(data, archive, only_images=True)[0] == []


def test_the_command(data, root, monkeypatch, capsys):
    archive = write(data, 'ref-youtube-vos')
    command = [
        sys.executable,
        str(root / 'tools/analysis_tools/validate_submission.py'),
        str(archive),
        '--layout',
        'ref-youtube-vos',
        '--expressions',
        str(data / 'expressions.json'),
    ]
    monkeypatch.setattr(sys, 'argv', command[1:])
    validate_submission.main()
    assert f'{archive} is complete' in capsys.readouterr().out
    changed(archive, lambda files: files.pop(NAME) and None)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and f'{NAME}: missing' in done.stdout and '1 faults' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    'content, message',
    [
        ('[]', "expected an object with the key 'videos'"),
        ('{"videos": {}}', 'no video is left'),
        ('{', 'is not JSON'),
        ('{"videos": {"a": {"expressions": {}}}}', "video a: expected 'frames', a list"),
    ],
)
def test_bad_expressions(data, content, message):
    (data / 'expressions.json').write_text(content)
    with pytest.raises(ValueError, match=message):
        faults_of(data, data / 'x.zip')


def test_missing_inputs(data):
    with pytest.raises(FileNotFoundError, match='there is no file .*none.zip'):
        faults_of(data, data / 'none.zip')
    archive = write(data, 'ref-youtube-vos')
    (data / 'images/b/00010.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='--images: .*00010.jpg is missing'):
        faults_of(data, archive)


@pytest.mark.parametrize(
    'change, message',
    [
        (
            dict(video_id='../a'),
            r"SubmissionWriter: video_id: expected a name .*, found '\.\./a': it holds a path separator",
        ),
        (dict(video_id=''), 'SubmissionWriter: video_id: .*it is empty'),
        (dict(exp_ids=['0', '/etc/x']), "SubmissionWriter: exp_ids of video a: .*found '/etc/x'"),
        (dict(frames=['00000', '..']), r"SubmissionWriter: frames of video a: .*found '\.\.'"),
    ],
)
def test_names_that_would_leave_the_archive_are_refused(tmp_path, change, message):
    """Who unpacks the archive must not write elsewhere."""
    with pytest.raises(UserError, match=message):
        SubmissionWriter(zip_file=str(tmp_path / 'x.zip')).score_video(sample_of('a') | change)
