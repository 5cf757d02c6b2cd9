"""tools/dataset_converters/ref_davis17.py: small archives made on the spot, and every mistake that it names."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmsoc.preparation import ref_davis17
from mmsoc.registry import DATASETS
from tools.dataset_converters import ref_davis17 as tool

# video: (split, objects, frames). The texts spell two of them otherwise.
VIDEOS = {'bear': ('train', 1, 2), 'classic-car': ('train', 1, 2), 'judo': ('val', 2, 3), 'dogs-scale': ('val', 1, 2)}
MISSPELT = {'classic-car': 'clasic-car', 'dogs-scale': 'dog-scale'}
FILES = ('Davis17_annot1', 'Davis17_annot1_full_video', 'Davis17_annot2', 'Davis17_annot2_full_video')


def sentence(video, obj_id, number):
    # The second annotator's files are latin-1, and an accent in one of them is no UTF-8.
    what = 'caf\u00e9' if number > 1 else '\u201cthing\u201d'
    return f'{what} {obj_id} of {video}, in file {number}'


def write_text(folder, number, lines):
    encoding = 'latin-1' if number > 1 else 'utf-8'
    (folder / 'davis_text_annotations').mkdir(exist_ok=True)
    (folder / f'davis_text_annotations/{FILES[number]}.txt').write_bytes(('\n'.join(lines) + '\n').encode(encoding))


def lines_of(number):
    return [
        # the order within a video is mixed up
        f'{MISSPELT.get(video, video)} {obj_id} "{sentence(video, obj_id, number)}"'
        for video, (_, objects, _) in VIDEOS.items()
        for obj_id in range(objects, 0, -1)
    ]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / 'ref davis'
    for video, (_, objects, frames) in VIDEOS.items():
        for kind, suffix in ((ref_davis17.IMAGES, 'jpg'), (ref_davis17.MASKS, 'png')):
            (folder / kind / video).mkdir(parents=True)
            for t in range(frames):
                ids = np.zeros((8, 12), np.uint8)
                for i in range(objects):
                    ids[1:4, 1 + 4 * i : 4 + 4 * i] = i + 1
                ids[7] = 255
                image = Image.fromarray(ids if suffix == 'png' else np.zeros((8, 12, 3), np.uint8))
                image.save(folder / kind / video / f'{t:05d}.{suffix}')
    (folder / 'DAVIS/ImageSets/2017').mkdir(parents=True)
    for split in ('train', 'val'):
        names = [video for video, (of, _, _) in VIDEOS.items() if of == split]
        (folder / f'DAVIS/ImageSets/2017/{split}.txt').write_text('\n'.join(names) + '\n')
    semantics = {video: {str(i + 1): 'person' for i in range(objects)} for video, (_, objects, _) in VIDEOS.items()}
    (folder / 'DAVIS/davis_semantics.json').write_text(json.dumps(semantics))
    for number in range(4):
        write_text(folder, number, lines_of(number))
    return folder


@pytest.fixture
def run(monkeypatch):
    """Calls the tool without insisting on the published sizes; returns the summary. A mistake is raised."""

    def call(source, *options, expect=False):
        further = [] if expect else ['--no-expect']
        monkeypatch.setattr(sys, 'argv', ['ref_davis17.py', str(source), *map(str, options), *further])
        return ref_davis17.convert(**vars(tool.parse_args()))

    return call


def listing(folder):
    return sorted((str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob('*'))


def dataset(root, split='valid'):
    return DATASETS.build(
        dict(
            type='RefYouTubeVOSDataset',
            data_root=str(root),
            ann_file=f'meta_expressions/{split}/meta_expressions.json',
            meta_file=f'{split}/meta.json',
            data_prefix=dict(img=f'{split}/JPEGImages', mask=f'{split}/Annotations'),
            test_mode=True,
            require_masks=True,
        )
    )


def check(root):
    valid = dataset(root)
    assert [valid.get_data_info(i)['video_id'] for i in range(len(valid))] == ['dogs-scale', 'judo']
    judo = valid.get_data_info(1)
    # 4k + a: object k + 1, annotator a
    assert judo['exp_ids'] == [str(i) for i in range(8)] and judo['obj_ids'] == ['1'] * 4 + ['2'] * 4
    assert judo['texts'] == [sentence('judo', obj_id, number) for obj_id in (1, 2) for number in range(4)]
    assert judo['frames'] == ['00000', '00001', '00002']
    assert all(map(os.path.isfile, judo['img_paths'] + judo['mask_paths']))
    assert len(dataset(root, 'train')) == 2


def test_links(source, run):
    before = listing(source)
    summary = run(source)
    assert 'valid            2            3           12            5' in summary
    assert 'train            2            2            8            4' in summary
    assert set(before) <= set(listing(source)), 'the archives changed'
    check(source)
    assert (source / 'valid/JPEGImages/judo').is_symlink()
    meta = json.loads((source / 'valid/meta.json').read_text())
    assert meta == dict(
        videos={
            'dogs-scale': dict(objects={'1': dict(category='person')}),
            'judo': dict(objects={'1': dict(category='person'), '2': dict(category='person')}),
        }
    )
    assert not [path for path in source.iterdir() if path.name.startswith('.')]
    moved = source.rename(source.with_name('moved'))
    check(moved)


def test_links_to_another_place(source, run, tmp_path):
    run(source, '--out', tmp_path / 'deep/out')
    check(tmp_path / 'deep/out')
    assert sorted(path.name for path in source.iterdir()) == ['DAVIS', 'davis_text_annotations']
    check((tmp_path / 'deep/out').rename(tmp_path / 'moved'))


def test_copies(source, run, tmp_path):
    summary = run(source, '--out', tmp_path / 'out', '--copy')
    assert 'frames and masks are copied' in summary
    shutil.rmtree(source)
    check(tmp_path / 'out')
    assert not any(path.is_symlink() for path in (tmp_path / 'out').rglob('*'))


def test_one_split(source, run):
    run(source, '--splits', 'valid')
    assert not (source / 'train').exists() and not (source / 'meta_expressions/train').exists()
    assert len(dataset(source)) == 2


def test_twice(source, run):
    run(source)
    with pytest.raises(ValueError, match=r'ref davis/train exists; move it away, or name another --out'):
        run(source)


def test_the_real_sentences(reference, tmp_path, run):
    """Raw files made from the sentences of Ref-DAVIS17 val, with files that stand for the frames: the counts hold, and the
    result is the known file.
    """
    expected = json.loads((reference / 'data/ref_davis17_json/meta_expressions_valid.json').read_text())
    source = tmp_path / 'davis'
    first = tmp_path / 'first.png'
    Image.fromarray(np.ones((8, 12), np.uint8)).save(first)
    lines = [[] for _ in FILES]
    back = {to: of for of, to in ref_davis17.RENAMED.items()}
    for video, record in expected['videos'].items():
        for kind, suffix in ((ref_davis17.IMAGES, 'jpg'), (ref_davis17.MASKS, 'png')):
            (source / kind / video).mkdir(parents=True)
            for frame in record['frames']:
                os.link(first, source / kind / video / f'{frame}.{suffix}')
        for exp_id, item in record['expressions'].items():
            lines[int(exp_id) % 4].append(f'{back.get(video, video)} {item["obj_id"]} "{item["exp"]}"')
    for number in range(4):
        write_text(source, number, lines[number][::-1])
    (source / 'DAVIS/ImageSets/2017').mkdir(parents=True)
    (source / 'DAVIS/ImageSets/2017/val.txt').write_text('\n'.join(expected['videos']))
    (source / 'DAVIS/davis_semantics.json').write_text('{}')
    summary = run(source, '--splits', 'valid', expect=True)
    assert json.loads((source / 'meta_expressions/valid/meta_expressions.json').read_text()) == expected
    assert 'valid           30           61          244         1999' in summary
    assert 'valid: no category in davis_semantics.json: bike-packing 1, bike-packing 2, blackswan 1' in summary
    assert 'the first mask has more (+) or fewer (-) objects than are described' in summary


def test_what_is_odd_is_said(source, run):
    lines = [line.replace('"', '\u201c', 1) if line.startswith('bear') else line for line in lines_of(0)]
    write_text(source, 0, [*lines, '', 'tractor 1 "a tractor"'])
    ids = np.zeros((8, 12), np.uint8)
    ids[0] = 3
    Image.fromarray(ids).save(source / ref_davis17.MASKS / 'judo/00000.png')
    summary = run(source)
    assert 'Davis17_annot1.txt: the first and last character of 1 sentences are no quotes and were taken off' in summary
    assert 'Sentences of videos in neither split, left out: tractor' in summary
    assert (
        'valid: the first mask has more (+) or fewer (-) objects than are described' in summary and 'judo +1' in summary
    )
    assert dataset(source, 'train').get_data_info(0)['texts'][0] == sentence('bear', 1, 0)


def test_the_published_sizes(source, run):
    with pytest.raises(ValueError) as error:
        run(source, expect=True)
    for fault in (
        'train: expected 60 videos, found 2',
        'valid: expected 30 videos, found 2',
        'valid: expected 61 objects, found 3',
        'valid: expected 244 expressions, found 12',
        'valid: expected 1999 frames, found 5',
        '--no-expect',
    ):
        assert fault in str(error.value)
    assert not (source / 'valid').exists()


def remove(path):
    return lambda source: shutil.rmtree(source / path) if (source / path).is_dir() else (source / path).unlink()


def text(number, change):
    return lambda source: write_text(source, number, change(lines_of(number)))


@pytest.mark.parametrize(
    'damage, message',
    [
        (
            remove('DAVIS/Annotations_unsupervised'),
            r'missing:\n.*Annotations_unsupervised/480p \(from DAVIS-2017-Unsupervised',
        ),
        (remove('DAVIS/davis_semantics.json'), r'davis_semantics.json \(from DAVIS-2017_semantics-480p.zip\)'),
        (remove('davis_text_annotations'), r'Davis17_annot2_full_video.txt \(from davis_text_annotations.zip\)'),
        (remove('DAVIS/ImageSets/2017/val.txt'), r'2017/val.txt \(from DAVIS-2017-Unsupervised'),
        (remove('DAVIS/JPEGImages/480p/judo'), 'there is no folder .*JPEGImages/480p/judo, which ImageSets lists'),
        (remove('DAVIS/Annotations_unsupervised/480p/judo/00001.png'), 'judo: 3 frames in .* but 2 masks .*: 00001'),
        (
            text(1, lambda lines: lines[:-1]),
            r'dogs-scale: expected one sentence .*annot1_full_video.txt none; .*annot2.txt \[1\]',
        ),
        (
            text(1, lambda lines: [*lines, 'bear 3 "x"']),
            r'bear: expected .*_annot1.txt \[1\]; \S+annot1_full_video.txt \[1, 3\]',
        ),
        (text(2, lambda lines: [*lines, lines[0]]), 'annot2.txt, line 6: a second sentence for object 1 of bear'),
        (
            text(0, lambda lines: ['bear "x"', *lines]),
            'annot1.txt, line 1: expected VIDEO OBJECT "SENTENCE", found \'bear "x"\'',
        ),
        (text(0, lambda lines: ['bear 1 ""', *lines]), 'annot1.txt, line 1: expected VIDEO OBJECT "SENTENCE"'),
    ],
)
def test_mistakes(source, run, damage, message):
    damage(source)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(source)
    assert sorted(path.name for path in source.iterdir() if path.name != 'davis_text_annotations') == ['DAVIS']


def test_numbering_with_a_gap(source, run):
    for kind, suffix in ((ref_davis17.IMAGES, 'jpg'), (ref_davis17.MASKS, 'png')):
        (source / kind / f'judo/00001.{suffix}').unlink()
    with pytest.raises(ValueError, match='judo: expected 00000.jpg, 00001.jpg, ..., found 00000, 00002'):
        run(source)


def test_the_wrong_encoding(source, run):
    path = source / 'davis_text_annotations/Davis17_annot1.txt'
    path.write_bytes(path.read_bytes() + b'bear 2 "caf\xe9"\n')
    with pytest.raises(ValueError, match='Davis17_annot1.txt is not utf-8 text'):
        run(source)


def test_a_failure_while_writing_leaves_nothing_half(source, run, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError('No space left on device')

    monkeypatch.setattr(shutil, 'copytree', full)
    with pytest.raises(OSError, match='No space left'):
        run(source, '--out', tmp_path / 'out', '--copy')
    assert list((tmp_path / 'out').iterdir()) == []


def test_the_command(source, root):
    command = [sys.executable, str(root / 'tools/dataset_converters/ref_davis17.py'), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (
        done.returncode == 1
        and 'error: train: expected 60 videos, found 2' in done.stderr
        and 'Traceback' not in done.stderr
    )


def test_no_such_folder(tmp_path, run):
    with pytest.raises(
        FileNotFoundError, match='there is no folder .*none; expected DAVIS/ and davis_text_annotations/ in it'
    ):
        run(tmp_path / 'none')
