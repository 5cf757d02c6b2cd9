"""tools/dataset_converters/moving_shapes_twins.py: the data sets load their twins, and find in them what was written."""

import json
import pickle
import sys

import av
import h5py
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.evaluation.davis_metric import evaluate_folders
from mmsoc.preparation import twins
from mmsoc.preparation.moving_shapes import Settings
from mmsoc.preparation.twins import mevis, ref_youtube_vos, refcoco
from mmsoc.registry import DATASETS
from mmsoc.utils.files import read_frame, read_ids
from tools.analysis_tools import try_recipe
from tools.dataset_converters import moving_shapes_twins as tool

SIZES = dict(train_videos=4, valid_videos=4, num_frames=8)
OPTIONS = ['--train-videos', '4', '--valid-videos', '4', '--num-frames', '8']


@pytest.fixture(scope='module')
def source():
    return twins.Source(Settings(**SIZES), public=False)


@pytest.fixture(scope='module')
def written(tmp_path_factory, source):
    root = tmp_path_factory.mktemp('twins')
    for layout in twins.LAYOUTS:
        twins.write_twin(root, layout, source, False)
    return root


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['moving_shapes_twins.py', *map(str, arguments)])
    tool.main()


# --- the data sets of the configs, of which only the expected sizes are changed


def any_size(cfg):
    """A data set's config without the sizes that a complete copy has."""
    for part in try_recipe.dicts(cfg):
        part.update(dict.fromkeys(part.keys() & try_recipe.SIZES))
    return cfg


@pytest.fixture
def build(root, written, monkeypatch):
    monkeypatch.setenv('MMSOC_DATA', str(written))

    def call(config, loader, **changes):
        cfg = Config.fromfile(root / f'configs/_base_/datasets/{config}.py')[loader].dataset
        return DATASETS.build(dict(any_size(cfg), **changes))

    return call


def test_ref_youtube_vos(build, source):
    train, valid = (
        build('ref_youtube_vos', 'train_dataloader', use_category=True),
        build('ref_youtube_vos', 'val_dataloader'),
    )
    # an item per sentence, since a video of 8 frames is one clip, and a video per item
    assert (len(train), len(valid)) == (8, 4)
    clips = {clip.code(10): clip for clip in source.clips('train', 4)}
    for i in range(len(train)):
        info = train.get_data_info(i)
        clip = clips[info['video_id']]
        claim = next(claim for claim in clip.claims if claim.text == info['texts'][0])
        number = clip.number(claim.target)
        assert info['obj_ids'] == [str(number + 1)]
        assert train.metainfo['classes'][info['labels'][0]] == ref_youtube_vos.CATEGORIES[claim.target.shape]
        for t in (0, 7):
            assert np.array_equal(read_ids(info['mask_paths'][t]) == number + 1, clip.masks(number)[t])
    assert train.get_data_info(0)['frames'] == [f'{5 * t:05d}' for t in range(8)]
    assert train[0]['inputs'].shape == (8, 3, 360, 540) and valid[0]['data_samples'].obj_ids is not None


def test_the_valid_file_lists_test_videos(written):
    folder = written / 'ref-youtube-vos'
    files = (folder / f'meta_expressions/{split}/meta_expressions.json' for split in ('valid', 'test'))
    both, test = (json.loads(file.read_text())['videos'] for file in files)
    assert len(both) == 8 and len(test) == 4 and set(test) < set(both)
    assert {path.name for path in (folder / 'valid/JPEGImages').iterdir()} == set(both) - set(test)
    assert all(set(item) == {'exp'} for record in test.values() for item in record['expressions'].values())


def test_public_form(tmp_path, monkeypatch, build):
    run(monkeypatch, '--out', tmp_path, '--layouts', 'ref-youtube-vos', '--public', *OPTIONS)
    folder = tmp_path / 'ref-youtube-vos'
    assert not (folder / 'valid/Annotations').exists()
    valid = build('ref_youtube_vos', 'val_dataloader', data_root=str(folder), require_masks=False)
    assert len(valid) == 4 and valid.get_data_info(0)['obj_ids'] is None


def test_ref_davis17(build, written, tmp_path):
    valid = build('ref_davis17', 'davis_dataloader')
    assert len(valid) == 4
    info = valid.get_data_info(0)
    assert info['obj_ids'] == ['1'] * 4 + ['2'] * 4 and len(set(info['texts'][:4]) & set(info['texts'][4:])) == 0
    folder = written / 'ref-davis'
    values = {i for path in folder.glob('valid/Annotations/*/*.png') for i in np.unique(read_ids(path)).tolist()}
    assert values == {0, 1, 2, 255}
    assert (folder / 'train/JPEGImages/shapes-train-00').is_symlink()
    # Without what is void the masks are a perfect prediction: the first ones show all objects.
    for path in folder.glob('valid/Annotations/*/*.png'):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        ids = read_ids(path)
        Image.fromarray(np.where(ids == 255, 0, ids)).save(tmp_path / path.parent.name / path.name)
    scores = evaluate_folders(folder / 'valid/Annotations', tmp_path)
    assert scores['J&F'] == 1 and len(scores['rows']) == 2 * 4


def test_a2d_sentences(build, written, source):
    train, test = build('a2d_sentences', 'train_dataloader'), build('a2d_sentences', 'val_dataloader')
    folder = written / 'a2d_sentences'
    rows = (folder / 'text_annotations/a2d_annotation.txt').read_text().splitlines()
    videoset = [line.split(',') for line in (folder / 'Release/videoset.csv').read_text().splitlines()]
    assert len(videoset) == 9 and rows[0] == 'video_id,instance_id,query' and videoset[0][0].startswith('-')
    # 8 videos, of which those in the places 0, 3 and 6 have one actor; and the copy
    assert len(rows) == 1 + 8 + 5 + 1 and '1 (copy)' in rows[-1]
    annotated = {row[0]: int(row[7]) for row in videoset}
    assert sorted(annotated.values())[0] == 0 and all(3 <= number <= 7 for number in sorted(annotated.values())[1:])
    assert len(train) >= 3 * 4 and sum(annotated.values()) == len(list(folder.glob('text_annotations/*/*/*.h5')))
    assert len(test) == sum(annotated[row[0]] for row in videoset if row[8] == '1')
    shapes = set()
    for path in folder.glob('text_annotations/*/*/*.h5'):
        with h5py.File(path) as file:
            shapes.add((len(file['instance']), file['reMask'].shape, file['reBBox'].shape))
    assert shapes == {(1, (96, 64), (4,)), (2, (2, 96, 64), (4, 2))}
    # the pixels: what the sentence of the first sample names
    clip = source.clips('train', 4)[0]
    info = train.get_data_info(0)
    with av.open(info['video_path']) as container:
        assert container.streams.video[0].codec_context.name == 'h264' and container.streams.video[0].frames == 8
    sample = train[0]['data_samples']
    t = sample.key_frames_inds[0]
    mask = sample[t].gt_instances.masks.masks[0]
    expected = clip.masks(clip.targets[0])[info['frame_ids'][t]]
    share = mask.astype(bool).mean()
    assert mask.shape == (320, 480) and share == pytest.approx(expected.mean(), rel=0.1)


def test_jhmdb_sentences(build, written):
    drawn = build('jhmdb_sentences', 'jhmdb_dataloader')
    listed = build('jhmdb_sentences', 'jhmdb_dataloader', samples_file='jhmdb_sentences_samples_metadata.json')
    assert len(drawn) == len(listed) == 12
    rows = json.loads((written / 'jhmdb_sentences/jhmdb_sentences_samples_metadata.json').read_text())
    assert [row[3] for row in rows] == [8, 8, 8, 7, 7, 7] * 2
    for i in range(12):
        (rle,) = listed[i]['data_samples'].gt_rles
        assert rle['size'] == [64, 96] and coco_mask.area(rle) > 0, 'the person is not seen'


def test_refcoco(build, written):
    """The originals and what is made of them are the same to the data set."""
    samples, sentences = {}, {}
    for name, (refs_file, splits) in refcoco.REFCOCO.items():
        refs = pickle.loads((written / 'coco' / name / refs_file).read_bytes())
        for split in splits:
            prepared = dict(ann_file=f'{name}/instances_{name}_{split}.json')
            original = dict(ann_file=f'{name}/instances.json', refs_file=f'{name}/{refs_file}', split=split)
            items = []
            for options in (prepared, original):
                dataset = DATASETS.build(
                    dict(type='RefCOCODataset', data_root=str(written / 'coco'), serialize_data=False, **options)
                )
                infos = [dataset.get_data_info(i) for i in range(len(dataset))]
                items.append([(info['texts'], info['obj_ids'], info['img_paths']) for info in infos])
            assert items[0] == items[1]
            samples[name, split] = len(items[0])
            sentences[name, split] = sum(len(ref['sentences']) for ref in refs if ref['split'] == split)
    assert all(0 < number <= sentences[key] for key, number in samples.items())
    # Four images of each split; an object of the 4th and of the 12th one is a crowd, of which sentences are left out.
    assert {
        split for name, split in samples if name == 'refcoco' and samples[name, split] < sentences[name, split]
    } == {'train', 'testA'}
    train = build('refcoco', 'train_dataloader')
    assert len(train) == sum(number for (_, split), number in samples.items() if split == 'train')
    assert train[0]['inputs'].shape == (1, 3, 360, 540) and train[0]['data_samples'][0].gt_instances.masks.masks.any()
    images = json.loads((written / 'coco/refcoco+/instances_refcoco+_train.json').read_text())['images']
    places = {
        'left',
        'right',
        'above',
        'below',
        'top',
        'leftmost',
        'rightmost',
        'topmost',
        'lowest',
        'highest',
        'bottommost',
    }
    assert not any(places & set(image['caption'].split()) for image in images)


def test_outlines_are_those_of_the_masks(source):
    for clip in source.clips('train', 4):
        for number in range(len(clip.scene.things)):
            mask = clip.masks(number)[0]
            if not mask.any():
                continue
            for crowd in (False, True):
                of = refcoco.annotation(mask, crowd)
                assert of['iscrowd'] == crowd and of['area'] == mask.sum()
                codes = coco_mask.frPyObjects(of['segmentation'], *mask.shape)
                assert np.array_equal(coco_mask.decode(codes if crowd else coco_mask.merge(codes)), mask)


def test_runs():
    for mask, expected in (([[0, 1], [0, 1]], [2, 2]), ([[1, 0], [0, 0]], [0, 1, 3]), ([[0, 1], [1, 0]], [1, 2, 1])):
        assert refcoco.runs(np.array(mask, bool)) == expected


def test_mevis(build, written, source):
    train, valid_u = build('mevis', 'train_dataloader'), build('mevis', 'val_dataloader')
    records = {
        split: json.loads((written / f'mevis/{split}/meta_expressions.json').read_text())['videos']
        for split in ('train', 'valid_u', 'valid')
    }
    number = sum(len(record['expressions']) for record in records['train'].values())
    assert (len(train), len(valid_u)) == (number, 4)
    assert all(set(item) == {'exp'} for record in records['valid'].values() for item in record['expressions'].values())
    assert not (written / 'mevis/valid/mask_dict.json').exists()
    codes = json.loads((written / 'mevis/train/mask_dict.json').read_text())
    several = 0
    for clip in source.clips('train', 4):
        for item in records['train'][clip.code(12)]['expressions'].values():
            several += len(item['anno_id']) > 1
            union = np.isin(clip.ids, np.array(item['obj_id']) + 1)
            for t in range(8):
                shown = [codes[str(i)][t] for i in item['anno_id'] if codes[str(i)][t] is not None]
                found = coco_mask.decode(coco_mask.merge(shown)) if shown else np.zeros((64, 96))
                assert np.array_equal(found, union[t])
    # the union of the two sentences, at least
    assert several >= 4


def test_sentences_of_several(source):
    """The objects of a class are those that its noun fits, and the classes are of more than one."""
    found = [
        (clip, text, objects) for clip in source.clips('valid', 4) for text, objects in mevis.sentences_of_several(clip)
    ]
    classes = [(clip, text, objects) for clip, text, objects in found if text.startswith('all ')]
    assert classes
    for clip, text, objects in classes:
        word = text.split()[1]
        for i, thing in enumerate(clip.scene.things):
            looks = {f'{thing.shape}s', f'{thing.shape}es'} | (
                set(thing.color) if len(set(thing.color)) == 1 else set()
            )
            assert (i in objects) == (word in looks), (text, i)


# --- writing


def test_twice_and_with_other_parameters(tmp_path, monkeypatch, capsys):
    out = ['--out', tmp_path, '--layouts', 'jhmdb-sentences', *OPTIONS]
    run(monkeypatch, *out)
    assert 'written in' in capsys.readouterr().out
    file = tmp_path / 'jhmdb_sentences/jhmdb_annotation.txt'
    before = (file.read_text(), file.stat().st_mtime_ns)
    run(monkeypatch, *out)
    assert 'there already, with the same parameters' in capsys.readouterr().out
    with pytest.raises(
        SystemExit, match='holds a twin with other parameters: seed 0 instead of 5; --overwrite replaces it'
    ):
        run(monkeypatch, *out, '--seed', 5)
    assert (file.read_text(), file.stat().st_mtime_ns) == before
    run(monkeypatch, *out, '--seed', 5, '--overwrite')
    assert file.read_text() != before[0]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ['jhmdb_sentences'], (
        'something is left behind'
    )


def test_what_is_no_twin_is_not_touched(tmp_path, monkeypatch):
    (tmp_path / 'coco').mkdir()
    (tmp_path / 'coco/precious').write_text('x')
    for options in ([], ['--overwrite']):
        with pytest.raises(SystemExit, match=r'coco exists and is no twin \(it has no moving_shapes_twin.json\)'):
            run(monkeypatch, '--out', tmp_path, '--layouts', 'refcoco', *OPTIONS, *options)
    assert (tmp_path / 'coco/precious').read_text() == 'x'


@pytest.mark.parametrize('there', [False, True])
def test_a_failure_leaves_nothing_half(tmp_path, monkeypatch, source, there):
    if there:
        twins.write_twin(tmp_path, 'mevis', source, False)
    before = {*tmp_path.rglob('*'), tmp_path / '.mevis.lock'}

    def full(*args, **kwargs):
        raise OSError('No space left on device')

    other = twins.Source(Settings(**SIZES, seed=1), public=False)
    monkeypatch.setattr(mevis, 'dump_json', full)
    with pytest.raises(OSError, match='No space left'):
        twins.write_twin(tmp_path, 'mevis', other, overwrite=True)
    assert set(tmp_path.rglob('*')) == before


def test_the_same_parameters_give_the_same_twin(tmp_path, written):
    again = twins.Source(Settings(**SIZES), public=False)
    for layout in ('ref-youtube-vos', 'refcoco', 'mevis'):
        folder, _ = twins.write_twin(tmp_path, layout, again, False)
        files = sorted(path for path in folder.rglob('*') if path.is_file())
        assert files and all(path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes() for path in files)


def test_frames_are_those_of_the_video(written, source):
    clip = source.clips('train', 4)[1]
    path = written / f'ref-youtube-vos/train/JPEGImages/{clip.code(10)}/00010.jpg'
    assert np.abs(read_frame(path).astype(int) - clip.frames[2]).mean() < 4
    assert Image.open(written / f'ref-youtube-vos/train/Annotations/{clip.code(10)}/00010.png').mode == 'P'


@pytest.mark.parametrize(
    'options, message',
    [
        (['--train-videos', '6'], 'train_videos must be a positive multiple of 4'),
        (['--size', '97', '64'], 'H.264 needs even numbers'),
        (['--layouts', 'other'], 'invalid choice'),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit):
        run(monkeypatch, '--out', tmp_path, *options)
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []
