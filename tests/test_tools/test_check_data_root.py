"""tools/dataset_converters/check_data_root.py: clean twins of all data sets, and faults planted in them, all of which are named."""

import csv
import json
import os
import pickle
import re
import shutil
import sys
import zipfile

import av
import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from mmsoc.preparation.moving_shapes import Settings
from mmsoc.preparation.root_checks import CHECKS, LEVELS, examine
from mmsoc.preparation.twins import LAYOUTS, Source, write_twin
from tools.dataset_converters import check_data_root


@pytest.fixture(scope='module')
def twins(tmp_path_factory):
    root = tmp_path_factory.mktemp('twins')
    source = Source(Settings(seed=3, train_videos=4, valid_videos=4, num_frames=8), public=False)
    return {layout: write_twin(root, layout, source, False)[0] for layout in LAYOUTS}


@pytest.fixture
def copy(twins, tmp_path):
    """Makes a copy of a twin, to be damaged."""
    return lambda layout: shutil.copytree(twins[layout], tmp_path / twins[layout].name, symlinks=True)


def look(layout, root, **options):
    return examine(layout, root, **{'sizes': False, 'progress': False, 'level': 'full', **options})


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('layout', CHECKS)
def test_clean_twins(twins, layout, level):
    check = look(layout, twins[layout], level=level)
    assert [str(finding) for finding in check.findings] == []
    assert check.counts and all(found > 0 for _, found, _ in check.counts)


def test_a_videoset_with_a_header_is_no_fault(copy):
    root = copy('a2d-sentences')
    path = root / 'Release/videoset.csv'
    names = 'VID,Label,Start_time,End_time,Height,Width,Number of frames,Number of annotated frames,Usage'
    path.write_text(f'{names}\n{path.read_text()}')
    check = look('a2d-sentences', root)
    assert check.findings == [] and ('rows of videoset.csv', 9, 3782) in check.counts


def test_a_sentence_without_a_target_is_no_fault(copy):
    """As in MeViS 2; objects without annotations are one."""

    def change(content):
        expressions = next(iter(content['videos'].values()))['expressions']
        expressions['0'].update(obj_id=[], anno_id=[])
        expressions['1'].update(anno_id=[])

    root = copy('mevis')
    path = edit_json(root / 'train/meta_expressions.json', change)
    check = look('mevis', root)
    assert f'{path}: 1 sentences have no target' in check.notes
    kinds = [(finding.kind, finding.file) for finding in check.findings]
    assert kinds == [('content', str(path)), ('loader', str(path))]
    assert 'expression 1: ' in check.findings[0].expected


def test_real_sequences(reference):
    check = look('ref-davis17', reference / 'data/ref-davis17-mini')
    assert check.findings == [] and ('valid frames', 90, 1999) in check.counts


# --- faults; each function plants one and returns its kind, its file below the root, and what the line must say


def nth(root, pattern, number=0):
    return sorted(root.glob(pattern))[number]


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def truncated_frame(root):
    return 'unreadable', cut(nth(root, 'train/JPEGImages/*/*.jpg', 1)), 'expected a whole image, found .*truncated'


def empty_mask(root):
    path = nth(root, 'train/Annotations/*/*.png', 2)
    path.write_bytes(b'')
    return 'empty', path, 'found 0 bytes'


def mask_of_colours(root):
    path = nth(root, 'train/Annotations/*/*.png', 3)
    Image.open(path).convert('RGB').save(path)
    return 'mode', path, 'expected a palette PNG.*found mode RGB'


def small_mask(root):
    path = nth(root, 'train/Annotations/*/*.png', 4)
    Image.open(path).crop((0, 0, 90, 60)).save(path)
    return 'size', path, 'expected 96x64, as its frame is, found 90x60'


def void_in_mask(root):
    path = nth(root, 'train/Annotations/*/*.png', 5)
    image = Image.open(path)
    ids = np.array(image)
    ids[0, :5] = 255
    with_void = Image.fromarray(ids)
    with_void.putpalette([0, 0, 0] * 256)
    with_void.save(path)
    return 'ids', path, r'expected 0 and the ids of meta.json, \[1, .*found also 255 \(255 is void in DAVIS'


def unknown_object(root):
    def change(content):
        next(iter(content['videos'].values()))['expressions']['1']['obj_id'] = '9'

    path = edit_json(root / 'meta_expressions/train/meta_expressions.json', change)
    return 'unknown', path, r'expression 1: an object of meta.json, which has the objects \[1, .*found obj_id 9'


def no_sentence(root):
    def change(content):
        list(content['videos'].values())[1]['expressions']['0']['exp'] = ' '

    path = edit_json(root / 'meta_expressions/train/meta_expressions.json', change)
    return 'content', path, "expression 0: a sentence 'exp', found {'exp': ' '"


def missing_video(root):
    path = nth(root, 'valid/JPEGImages/*')
    shutil.rmtree(path)
    return 'missing', path, 'expected a folder with 8 files, found no folder'


def missing_frame(root):
    path = nth(root, 'valid/JPEGImages/*/*.jpg', 11)
    path.unlink()
    return 'missing', path, 'expected a file, found nothing'


def further_frame(root):
    path = nth(root, 'valid/JPEGImages/*', 2) / '00999.jpg'
    shutil.copy(nth(root, 'valid/JPEGImages/*/*.jpg'), path)
    return 'extra', path, 'only what the text files list'


def half_unpacked(root):
    path = root / 'test' / 'frames.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for jpg in sorted((root / 'test').rglob('*.jpg')):
            archive.write(jpg, jpg.relative_to(root / 'test'))
        archive.writestr('JPEGImages/other/00000.jpg', b'not unpacked')
    return 'archive', path, 'found 1 missing or of another size: JPEGImages/other/00000.jpg'


def broken_off(root):
    path = root / 'train.zip.part'
    path.write_bytes(b'PK')
    return 'archive', path, 'interrupted download'


def link_to_nowhere(root):
    path = nth(root, 'DAVIS/JPEGImages/480p/shapes-val-*', 1)
    shutil.rmtree(path)
    text = r'found a link to .*DAVIS/JPEGImages/480p/shapes-val-01, which is not there'
    return 'missing', root / 'valid/JPEGImages' / path.name, text


def only_void(root):
    path = nth(root, 'DAVIS/Annotations_unsupervised/480p/shapes-val-*', 2) / '00000.png'
    Image.fromarray(np.full((64, 96), 255, np.uint8)).save(path)
    return (
        'ids',
        root / 'valid/Annotations' / path.parent.name / path.name,
        r'an object in the first mask.*found only void \(255\)',
    )


def five_sentences(root):
    def change(content):
        content['videos']['shapes-val-00']['expressions']['8'] = dict(exp='one too many', obj_id='2')

    path = edit_json(root / 'meta_expressions/valid/meta_expressions.json', change)
    return (
        'content',
        path,
        'video shapes-val-00: expressions 0, 1, ..., four for each object, found a difference at 10, 11, 9',
    )


def wrong_annotator(root):
    def change(content):
        content['videos']['shapes-val-03']['expressions']['4']['obj_id'] = '1'

    path = edit_json(root / 'meta_expressions/valid/meta_expressions.json', change)
    return 'content', path, "video shapes-val-03, expression 4: obj_id 2, found '1'"


def annotated(root, number):
    """The annotation files of the number-th video."""
    return sorted(nth(root, 'text_annotations/a2d_annotation_with_instances/*', number).iterdir())


def short_video(root):
    last = annotated(root, 0)[-1]
    path = root / f'Release/clips320H/{last.parent.name}.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
        for _ in range(int(last.stem) - 1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format='rgb24')))
        container.mux(stream.encode(None))
    return 'short', path, f'at least {int(last.stem)} frames, since there is .*{last.name}, found {int(last.stem) - 1}'


def no_masks_in_h5(root):
    path = annotated(root, 1)[0]
    with h5py.File(path, 'a') as file:
        del file['reMask']
    return 'field', path, r"the fields 'instance' and 'reMask', found \['instance', 'reBBox'\]"


def transposed_h5(root):
    path = annotated(root, 2)[0]
    with h5py.File(path, 'a') as file:
        masks = np.array(file['reMask'])
        del file['reMask']
        file['reMask'] = masks.swapaxes(-1, -2)
    return 'size', path, 'masks of 96x64, as the video is, found 64x96'


def truncated_h5(root):
    return 'unreadable', cut(annotated(root, 3)[0]), 'expected an HDF5 file, found .*truncated'


def no_video(root):
    path = root / f'Release/clips320H/{annotated(root, 4)[0].parent.name}.mp4'
    path.unlink()
    return 'missing', path, 'expected a video, found nothing'


def truncated_video(root):
    path = root / f'Release/clips320H/{annotated(root, 5)[0].parent.name}.mp4'
    return 'unreadable', cut(path), 'expected a video'


def unknown_actor(root):
    path = root / 'text_annotations/a2d_annotation.txt'
    video = annotated(root, 6)[0].parent.name
    lines = path.read_text().splitlines()
    path.write_text('\n'.join([*lines, f'{video},7,nobody']))
    return (
        'unknown',
        path,
        rf'line {len(lines) + 1}: an instance that the annotations of video {video} show, \[0.*found 7',
    )


def pair_twice(root):
    path = root / 'text_annotations/a2d_annotation.txt'
    lines = path.read_text().splitlines()
    video, instance, _ = next(csv.reader([lines[1]]))
    path.write_text('\n'.join([*lines, f'{video},{instance},again']))
    return 'duplicate', path, f'video {video}, instance {instance} once, found in the lines 2 and {len(lines) + 1}'


def bad_subset(root):
    path = root / 'Release/videoset.csv'
    with open(path, 'a') as file:
        file.write('lonely,11,0:00:01,0:00:04,64,96,8,3,2\n')
    return 'content', path, 'the last one 0 .train. or 1 .test., found .*lonely'


def no_field_in_mat(root):
    path = nth(root, 'puppet_mask/*/*/puppet_mask.mat', 0)
    scipy.io.savemat(path, dict(mask=np.zeros((64, 96, 8), np.uint8)))
    return 'field', path, "the field 'part_mask' of shape"


def small_mat(root):
    path = nth(root, 'puppet_mask/*/*/puppet_mask.mat', 1)
    scipy.io.savemat(path, dict(part_mask=np.ones((64, 90, 8), np.uint8)))
    return 'size', path, 'masks of 96x64, as the frames are, found 90x64'


def missing_png(root):
    path = nth(root, 'Rename_Images/*/*', 2) / '00003.png'
    path.unlink()
    return 'missing', path, 'expected a file, found nothing'


def truncated_png(root):
    return 'unreadable', cut(nth(root, 'Rename_Images/*/*', 3) / '00004.png', 0.7), 'expected a whole image'


def sample_twice(root):
    path = edit_json(root / 'jhmdb_sentences_samples_metadata.json', lambda rows: rows.append(rows[0]))
    return 'duplicate', path, 'once, found in the rows 0 and 12'


def missing_image(root):
    path = nth(root, 'train2014/*.jpg', 0)
    path.unlink()
    return 'missing', path, 'expected an image, found nothing'


def other_image(root):
    path = nth(root, 'train2014/*.jpg', 1)
    Image.new('RGB', (50, 40)).save(path)
    return 'size', path, 'expected 96x64, as the text files say, found 50x40'


def two_corners(root):
    def change(content):
        content['annotations'][0]['segmentation'] = [[1, 2, 3, 4]]

    path = edit_json(root / 'refcoco+/instances_refcoco+_train.json', change)
    return 'field', path, r'annotation 1: polygons of at least three corners x, y, found \[\[1, 2, 3, 4\]\]'


def annotation_twice(root):
    path = edit_json(
        root / 'refcocog/instances.json', lambda content: content['annotations'].append(content['annotations'][3])
    )
    return 'duplicate', path, 'annotations: the id 1003 once, found again in place'


def sentence_without_object(root):
    path = edit_json(root / 'refcoco/instances_refcoco_val.json', lambda content: content['annotations'].pop())
    return 'content', path, 'one annotation, found 0'


def code_in_pickle(root):
    path = root / 'refcoco/refs(unc).p'
    path.write_bytes(pickle.dumps([os.getcwd]))
    return 'unreadable', path, 'UnpicklingError: .*posix.getcwd'


def unknown_reference(root):
    path = root / 'refcocog/refs(umd).p'
    refs = pickle.loads(path.read_bytes())
    refs[2]['ann_id'] = 5
    path.write_bytes(pickle.dumps(refs, protocol=2))
    return 'unknown', path, 'reference 2: ann_id of instances.json, found 5'


def unknown_anno_id(root):
    def change(content):
        list(content['videos'].values())[0]['expressions']['0']['anno_id'] = [999]

    path = edit_json(root / 'train/meta_expressions.json', change)
    return 'unknown', path, 'expression 0: an anno_id of mask_dict.json, found 999'


def lists_of_two_lengths(root):
    def change(content):
        list(content['videos'].values())[1]['expressions']['1']['obj_id'] = [0, 1]

    path = edit_json(root / 'train/meta_expressions.json', change)
    return 'content', path, r"'obj_id' and 'anno_id', lists of integers of one length, found \[0, 1\] and \["


def mask_missing(root):
    first = list(json.loads((root / 'valid_u/meta_expressions.json').read_text())['videos'].values())[0]
    anno_id = str(first['expressions']['0']['anno_id'][0])
    path = edit_json(root / 'valid_u/mask_dict.json', lambda content: content[anno_id].pop())
    return 'short', path, f'anno_id {anno_id} .*a mask or null for each of 8 frames, found 7 entries'


def other_size(root):
    second = list(json.loads((root / 'valid_u/meta_expressions.json').read_text())['videos'].values())[1]
    anno_id = str(second['expressions']['0']['anno_id'][0])

    def change(content):
        next(code for code in content[anno_id] if code)['size'] = [96, 64]

    path = edit_json(root / 'valid_u/mask_dict.json', change)
    return 'size', path, rf'anno_id {anno_id} .*the size \[64, 96\] \(height and width of the frame\), found \[96, 64\]'


FAULTS = {
    'ref-youtube-vos': [
        truncated_frame,
        empty_mask,
        mask_of_colours,
        small_mask,
        void_in_mask,
        unknown_object,
        no_sentence,
        missing_video,
        missing_frame,
        further_frame,
        half_unpacked,
        broken_off,
    ],
    'ref-davis17': [link_to_nowhere, only_void, five_sentences, wrong_annotator],
    'a2d-sentences': [
        short_video,
        no_masks_in_h5,
        transposed_h5,
        truncated_h5,
        no_video,
        truncated_video,
        unknown_actor,
        pair_twice,
        bad_subset,
    ],
    'jhmdb-sentences': [no_field_in_mat, small_mat, missing_png, truncated_png, sample_twice],
    'refcoco': [
        missing_image,
        other_image,
        two_corners,
        annotation_twice,
        sentence_without_object,
        code_in_pickle,
        unknown_reference,
    ],
    'mevis': [truncated_frame, missing_video, unknown_anno_id, lists_of_two_lengths, mask_missing, other_size],
}


@pytest.mark.parametrize('layout', FAULTS)
def test_every_fault_of_many_is_named(copy, layout):
    """All of them at once, and nothing else."""
    root = copy(layout)
    planted = [plant(root) for plant in FAULTS[layout]]
    found = [finding for finding in look(layout, root).findings if finding.kind != 'loader']
    for kind, path, text in planted:
        fitting = [f for f in found if f.kind == kind and f.file == str(path) and re.search(text, str(f), re.DOTALL)]
        assert len(fitting) == 1, (kind, path, text, [str(f) for f in found])
        found.remove(fitting[0])
    assert [str(finding) for finding in found] == []


def test_what_the_data_set_says(copy):
    root = copy('ref-youtube-vos')
    _, path, _ = missing_frame(root)
    (finding,) = (
        finding for finding in look('ref-youtube-vos', root, level='quick').findings if finding.kind == 'loader'
    )
    assert f'1 of 8 listed frames are missing in {path.parent}' in finding.found


def test_levels(copy):
    root = copy('ref-youtube-vos')
    void_in_mask(root)  # in a mask that is not the first of its video
    empty = nth(root, 'valid/Annotations/*/*.png')
    empty.write_bytes(b'')
    kinds = {level: [f.kind for f in look('ref-youtube-vos', root, level=level).findings] for level in LEVELS}
    assert kinds['quick'] == kinds['headers'] == ['empty'] and sorted(kinds['full']) == ['empty', 'ids']


@pytest.mark.parametrize(('damage', 'kind', 'text'), [
    (lambda path: cut(path), 'unreadable', 'is not JSON: line 1'),
    (lambda path: path.write_text('[1]'), 'content', "an object with the key 'videos'"),
    (
        lambda path: path.write_text(path.read_text().replace('"1": {"exp"', '"0": {"exp"', 1)),
        'duplicate', "the key '0' once, found 2 times",
    ),
    (lambda path: path.unlink(), 'missing', 'found nothing'),
    (
        lambda path: shutil.move(path.parents[1], path.parents[2] / 'archive/meta_expressions'), 'missing',
        'there is .*archive/meta_expressions/train/meta_expressions.json: unpacked into a folder too many',
    ),
])  # fmt: skip
def test_broken_expressions(copy, damage, kind, text):
    root = copy('ref-youtube-vos')
    path = root / 'meta_expressions/train/meta_expressions.json'
    damage(path)
    assert any(
        f.kind == kind and f.file == str(path) and re.search(text, str(f))
        for f in look('ref-youtube-vos', root).findings
    )


def test_what_is_not_public_may_be_absent(copy):
    root = copy('ref-youtube-vos')
    shutil.rmtree(root / 'valid/Annotations')
    shutil.rmtree(root / 'meta_expressions/test')
    edit_json(
        root / 'meta_expressions/valid/meta_expressions.json',
        lambda content: [
            e.pop('obj_id', None) for video in content['videos'].values() for e in video['expressions'].values()
        ],
    )
    check = look('ref-youtube-vos', root)
    assert check.findings == [] and ('valid videos', 4, 202) in check.counts
    assert len(check.notes) == 2 and 'no masks' in check.notes[1]


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, 'argv', ['check_data_root.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        check_data_root.main()
    return end.value.code, capsys.readouterr().out


def test_report(copy, monkeypatch, capsys):
    root = copy('mevis')
    code, out = run(monkeypatch, capsys, 'mevis', root, '--twin')
    assert code == 0 and 'findings' in out and 'found' not in out.split('┏')[0]
    for path in sorted(root.glob('valid/JPEGImages/*/*.jpg'))[:7]:
        path.write_bytes(b'')
    (root / 'valid/JPEGImages/notes').mkdir()
    code, out = run(monkeypatch, capsys, 'mevis', root, '--any-size', '--most', 2)
    assert code == 1
    assert out.startswith('empty files (7):\n') and '  and 5 more\nunexpected files and folders (1):\n' in out
    assert len(re.findall('expected a file, found 0 bytes', out)) == 2
    code, out = run(monkeypatch, capsys, 'mevis', root, '--allow-extra')
    assert code == 1 and 'unexpected' not in out and 'expected 1,662 train videos, found 4' in out
    assert re.search(r'train videos\s*│\s*4 │\s*1,662 !', out) and re.search(r'findings: empty files\s*│\s*7', out)


def test_no_such_folder(tmp_path, monkeypatch, capsys):
    code, _ = run(monkeypatch, capsys, 'mevis', tmp_path / 'none')
    assert code.startswith(f'error: there is no folder {tmp_path / "none"}')
