"""Masks in the formats of other tools, read back by their own readers."""

import json
from contextlib import ExitStack
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmsoc.apis.exports import FORMATS, Exported, check_formats, exporters, runs_of
from mmsoc.apis.results import FORMAT_FILES, RESULTS
from mmsoc.utils.errors import UserError

TEXTS = ['the "red" <car>', 'a dog & a cat', 'nothing']
SIZE = (48, 65)


def source(kind='folder', **kwargs):
    return SimpleNamespace(
        kind=kind,
        path='/videos/street.mp4',
        size=SIZE,
        fps=None,
        times=None,
        name=lambda index: f'{index:05d}',
        file_name=lambda index: f'{index:05d}.png',
        **kwargs,
    )


@pytest.fixture
def masks():
    """(T, E, H, W), apart from each other: a blob that leaves, noise, and nothing."""
    rng = np.random.default_rng(0)
    found = np.zeros((4, 3, *SIZE), bool)
    found[0, 0, 5:20, 7:30] = found[1, 0, 0:48, 0:20] = found[3, 0, 40, 3] = True
    found[:, 1, :, 32:] = rng.random((4, SIZE[0], SIZE[1] - 32)) > 0.5
    return found


@pytest.fixture
def export(masks, tmp_path):
    def run(*formats, order=(0.9, 0.8, 0.1), given=masks):
        what = Exported(tmp_path, source(), TEXTS, list(order))
        with ExitStack() as stack:
            opened = exporters(formats, what, stack)
            for index, of_frame in enumerate(given):
                for exporter in opened:
                    exporter.add(index, of_frame)
        return tmp_path

    return run


def test_png(export, masks):
    folders = sorted((export('png') / 'masks').iterdir())
    assert [folder.name for folder in folders] == ['0_the-red-car', '1_a-dog-a-cat', '2_nothing']
    for sentence, folder in enumerate(folders):
        found = np.stack([np.array(Image.open(path)) for path in sorted(folder.iterdir())])
        assert np.array_equal(found == 255, masks[:, sentence])


def test_davis(export, masks):
    out = export('davis') / 'davis'
    images = [Image.open(path) for path in sorted((out / 'Annotations' / 'street').iterdir())]
    assert len(images) == 4 and {image.mode for image in images} == {'P'}
    ids = np.stack([np.array(image) for image in images])
    assert np.array_equal(ids == 1, masks[:, 0]) and np.array_equal(ids == 2, masks[:, 1]) and not (ids == 3).any()
    # DAVIS's first colours
    palette = np.array(images[0].getpalette()).reshape(-1, 3)[:4].tolist()
    assert palette == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert (out / 'objects.txt').read_text().splitlines()[1] == '2\ta dog & a cat'


def test_davis_where_masks_overlap(export, masks):
    both = masks.copy()
    both[:, :2, 10:20, 10:20] = True
    for order, winner in (((0.9, 0.8, 0.1), 1), ((0.7, 0.8, 0.1), 2)):
        export_dir = export('davis', order=order, given=both)
        (path, *_) = sorted((export_dir / 'davis' / 'Annotations' / 'street').iterdir())
        assert (np.array(Image.open(path))[10:20, 10:20] == winner).all()
        for file in sorted(export_dir.rglob('*'), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()


def test_coco(export, masks, capsys):
    coco = COCO(str(export('coco') / 'coco.json'))
    assert [image['file_name'] for image in coco.loadImgs(coco.getImgIds())] == [f'{i:05d}.png' for i in range(4)]
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == TEXTS
    seen = np.zeros_like(masks)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        frame, sentence = annotation['image_id'] - 1, annotation['track_id'] - 1
        seen[frame, sentence] = coco.annToMask(annotation)
        assert annotation['area'] == masks[frame, sentence].sum()
        rows, columns = np.nonzero(masks[frame, sentence])
        expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotation['bbox'] == [float(value) for value in expected]
    assert np.array_equal(seen, masks)


def test_ytvis(export, masks):
    content = json.loads((export('ytvis') / 'ytvis.json').read_text())
    (video,) = content['videos']
    assert video['length'] == 4 and (video['height'], video['width']) == SIZE
    for annotation in content['annotations']:
        sentence = annotation['category_id'] - 1
        found = [
            np.zeros(SIZE, bool) if code is None else coco_mask.decode(code) for code in annotation['segmentations']
        ]
        assert np.array_equal(np.stack(found).astype(bool), masks[:, sentence])
        assert [area or 0 for area in annotation['areas']] == masks[:, sentence].sum((1, 2)).tolist()


def test_cvat_by_its_sdk(export, masks):
    reader = pytest.importorskip('cvat_sdk.masks')
    from xml.etree import ElementTree

    root = ElementTree.parse(export('cvat') / 'cvat.xml').getroot()
    tracks = root.findall('track')
    assert [track.get('label') for track in tracks] == TEXTS
    assert [label.text for label in root.findall('meta/task/labels/label/name')] == TEXTS
    seen = np.zeros_like(masks)
    for sentence, track in enumerate(tracks):
        for mask in track.findall('mask'):
            left, top, width, height = (int(mask.get(key)) for key in ('left', 'top', 'width', 'height'))
            runs = [int(run) for run in mask.get('rle').split(',')]
            if mask.get('outside') == '1':
                continue
            seen[int(mask.get('frame')), sentence] = reader.decode_mask(
                [*runs, left, top, left + width - 1, top + height - 1], image_width=SIZE[1], image_height=SIZE[0]
            )
    assert np.array_equal(seen, masks)
    # It is not there in frame 2, and comes back.
    assert [(m.get('frame'), m.get('outside')) for m in tracks[0].findall('mask')] == [
        ('0', '0'),
        ('1', '0'),
        ('2', '1'),
        ('3', '0'),
    ]


def test_runs():
    assert runs_of(np.array([[0, 0, 1], [1, 0, 1]], bool)) == [2, 2, 1, 1]
    assert runs_of(np.array([[1, 1, 0]], bool)) == [0, 2, 1]
    assert runs_of(np.ones((2, 2), bool)) == [0, 4]


def test_label_studio(export, masks):
    brush = pytest.importorskip('label_studio_sdk.converter.brush')
    tasks = json.loads((export('label-studio') / 'label_studio.json').read_text())
    assert len(tasks) == 4 and tasks[1]['data'] == dict(image='/data/local-files/?d=street/00001.png', frame=1)
    seen = np.zeros_like(masks)
    for frame, task in enumerate(tasks):
        for result in task['predictions'][0]['result']:
            flat = brush.decode_rle(result['value']['rle'])
            seen[frame, TEXTS.index(result['value']['brushlabels'][0])] = flat.reshape(*SIZE, 4)[..., 3] > 0
    assert np.array_equal(seen, masks)


def test_label_studio_is_missing(export, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'label_studio_sdk.converter.brush', None)
    with pytest.raises(UserError, match='format label-studio needs label-studio-sdk: pip install label-studio-sdk'):
        export('label-studio')


def test_matte(export, masks):
    folder = export('matte') / 'matte'
    for sentence, path in enumerate(sorted(folder.iterdir())):
        with av.open(str(path)) as video:
            frames = np.stack([frame.to_ndarray(format='gray') for frame in video.decode(video=0)])
        assert frames.shape == (4, 48, 66)  # the width is even: the last column is repeated
        assert np.array_equal(frames[..., :65] > 127, masks[:, sentence])


def test_unknown_formats():
    for names in (['coco', 'voc'], 'coco'):
        with pytest.raises(UserError, match='formats: expected '):
            check_formats(names)
    check_formats(list(FORMATS))


def test_an_error_leaves_no_threads_and_no_half_files(masks, tmp_path):
    what = Exported(tmp_path, source(), TEXTS, [0.9, 0.8, 0.1])
    with pytest.raises(RuntimeError, match='stop'), ExitStack() as stack:
        opened = exporters([name for name in FORMATS if name != 'label-studio'], what, stack)
        for exporter in opened:
            exporter.add(0, masks[0])
        raise RuntimeError('stop')
    assert not [path for path in tmp_path.iterdir() if path.suffix in ('.json', '.xml')]
    assert not list((tmp_path / 'matte').glob('*.mp4'))


@pytest.mark.parametrize('name', FORMATS)
def test_the_results_folder_knows_every_file(export, name):
    if name == 'label-studio':
        pytest.importorskip('label_studio_sdk')
    assert {path.name for path in export(name).iterdir()} == set(FORMAT_FILES[name]) <= set(RESULTS)


def test_file_names_are_those_of_the_source(tmp_path):
    from mmsoc.apis import open_frames

    for name in ('10.jpg', '9.JPEG'):
        Image.new('RGB', (32, 32)).save(tmp_path / name, format='JPEG')
    folder = open_frames(tmp_path)
    assert [folder.file_name(index) for index in range(2)] == ['9.JPEG', '10.jpg']
    assert open_frames(tmp_path / '10.jpg').file_name(0) == '10.jpg'
    assert open_frames(np.zeros((2, 8, 8, 3), np.uint8)).file_name(1) == '00001.jpg'
