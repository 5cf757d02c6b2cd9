import json

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample, TrackDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.registry import VISUALIZERS
from mmsoc.visualization import VideoWriter, add_caption, contact_sheet, draw_box, overlay_mask
from mmsoc.visualization.drawing import _font, wrap_text

RED = (255, 0, 0)


def grey(height=40, width=60, value=100):
    return np.full((height, width, 3), value, np.uint8)


def square_mask(height=40, width=60):
    mask = np.zeros((height, width), bool)
    mask[10:30, 20:50] = True
    return mask


def test_overlay():
    image = grey()
    drawn = overlay_mask(image, square_mask(), RED, alpha=0.5, contour=0)
    # 0.5 * 100 + 0.5 * (255, 0, 0) = (177.5 -> 178, 50, 50)
    assert (drawn[10:30, 20:50] == (178, 50, 50)).all()
    assert (drawn[~square_mask()] == 100).all()
    assert (image == 100).all()  # the input stays
    outlined = overlay_mask(image, square_mask(), RED, alpha=0, contour=1)
    # the line is anti-aliased
    assert outlined[10, 25, 0] > 180 and outlined[10, 25, 1] < 60 and (outlined[20, 35] == 100).all()
    assert np.array_equal(overlay_mask(image, np.zeros((40, 60)), RED), image)
    with pytest.raises(ValueError, match='the mask is 60x41, but the image is 60x40'):
        overlay_mask(image, np.zeros((41, 60)), RED)


def test_box():
    drawn = draw_box(grey(), (5, 6, 20, 30), RED, width=1)
    assert (drawn[6, 5] == RED).all() and (drawn[30, 20] == RED).all() and (drawn[15, 10] == 100).all()


@pytest.mark.parametrize(
    'text',
    [
        'a dog',
        'a person in a white shirt who walks from the left to the right while the other people stand still',
        'x' * 300,
        'ein Hündchen über der Straße, 白い車',
        '',
    ],
)
@pytest.mark.parametrize('width', [41, 200, 640])
def test_caption_is_never_cut(text, width):
    font = _font(14)
    lines = wrap_text(text, font, width)
    assert ''.join(lines).replace(' ', '') == text.replace(' ', '')
    assert all(font.getlength(line) <= width for line in lines)
    image = grey(50, width)
    drawn = add_caption(image, text, RED, font_size=14)
    assert drawn.shape[1:] == (width, 3) and drawn.dtype == np.uint8
    assert np.array_equal(drawn[:50], image)
    # nothing is drawn on the bar's border
    bar = drawn[50:]
    for edge in (bar[0], bar[-1], bar[:, -1]):
        assert (edge == bar[0, 0]).all()
    assert (bar == RED).all(-1).any()


def test_longer_captions_make_higher_bars():
    assert add_caption(grey(), 'word ' * 40).shape[0] > add_caption(grey(), 'word').shape[0]


def test_contact_sheet():
    sheet = contact_sheet([grey(10, 20, 1), grey(8, 20, 2), grey(10, 15, 3)], ncols=2, gap=4)
    # two rows and columns of 14 x 24 cells and a last gap
    assert sheet.shape == (2 * 14 + 4, 2 * 24 + 4, 3)
    assert (sheet[4:14, 4:24] == 1).all() and (sheet[4:12, 28:48] == 2).all() and (sheet[18:28, 4:19] == 3).all()
    assert (sheet[18:28, 28:] == 255).all() and (sheet[:4] == 255).all()
    with pytest.raises(ValueError, match='at least one image'):
        contact_sheet([], ncols=2)


# --- video


def read_video(path):
    av = pytest.importorskip('av')
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(stream)]
        return frames, stream


@pytest.mark.parametrize('size', [(48, 64), (47, 63), (1, 1)])
def test_video(tmp_path, size):
    path = tmp_path / 'new' / 'out.mp4'
    with VideoWriter(path, fps=7) as video:
        for value in (0, 100, 200):
            video.write(grey(*size, value))
            assert not path.exists()
    frames, stream = read_video(path)
    assert len(frames) == 3 and stream.average_rate == 7
    assert stream.codec_context.name == 'h264' and stream.codec_context.pix_fmt == 'yuv420p'
    assert frames[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    for frame, value in zip(frames, (0, 100, 200)):
        assert abs(frame.astype(int) - value).max() <= 4
    assert [file.name for file in path.parent.iterdir()] == ['out.mp4']


def test_video_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / 'out.mp4'
    path.write_text('old')
    for frames, message in (
        ([grey(), grey(41)], 'the first frame is 60x40, a later one 60x41'),
        ([], 'no frame was written'),
        ([grey().astype(float)], 'a frame must be uint8'),
        ([grey()[..., 0]], 'a frame must be uint8'),
    ):
        with pytest.raises(ValueError, match=message), VideoWriter(path) as video:
            for frame in frames:
                video.write(frame)
        assert path.read_text() == 'old' and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(KeyboardInterrupt), VideoWriter(path) as video:
        video.write(grey())
        raise KeyboardInterrupt
    assert path.read_text() == 'old' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('kwargs, message', [(dict(path='x.gif'), '.mp4'), (dict(path='x.mp4', fps=0), 'fps')])
def test_video_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        VideoWriter(**kwargs)


# --- visualizer


@pytest.fixture
def visualizer():
    return VISUALIZERS.build(dict(type='mmsoc.RVOSLocalVisualizer', name='test'))


def test_draw_frame(visualizer):
    image = grey(120, 200)
    mask = np.zeros((120, 200), bool)
    mask[20:60, 30:90] = True
    drawn = visualizer.draw_frame(image, mask, 'the left one', box=np.array([30, 20, 89, 59]), score=0.87, index=1)
    assert drawn.shape[0] > 120 and drawn.shape[1:] == (200, 3)
    assert not np.array_equal(drawn[40, 60], image[40, 60]) and np.array_equal(drawn[100, 150], image[100, 150])
    other = visualizer.draw_frame(image, mask, index=0)
    assert other.shape == image.shape and not np.array_equal(other[40, 60], drawn[40, 60])
    assert np.array_equal(visualizer.draw_frame(image), image)


def make_sample():
    clip = TrackDataSample(metainfo=dict(texts=['one', 'two']))
    frame = DetDataSample()
    mask = square_mask()
    frame.gt_instances = InstanceData(
        masks=BitmapMasks(mask[None].astype(np.uint8), 40, 60),
        bboxes=torch.tensor([[20.0, 10, 49, 29]]),
        visible=torch.tensor([True]),
    )
    clip.video_data_samples = [frame]
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    clip.set_field([[rle], [rle]], 'pred_masks')
    clip.set_field(torch.tensor([0.5, 0.25]), 'pred_scores')
    return clip


@pytest.mark.parametrize('gt, pred, columns', [(True, True, 2), (True, False, 1), (False, True, 1), (False, False, 1)])
def test_add_datasample(visualizer, tmp_path, gt, pred, columns):
    path = tmp_path / 'x' / 'frame.png'
    visualizer.add_datasample(
        'frame', grey(), make_sample(), draw_gt=gt, draw_pred=pred, out_file=str(path), expression=1
    )
    image = np.array(Image.open(path))
    assert image.shape[1] == 60 * columns
    assert (image.shape[0] > 40) == (gt or pred)


def test_backends(tmp_path):
    visualizer = VISUALIZERS.build(
        dict(
            type='mmsoc.RVOSLocalVisualizer',
            vis_backends=[dict(type='LocalVisBackend')],
            save_dir=str(tmp_path),
            name='v',
        )
    )
    visualizer.add_datasample('frame', grey(), make_sample(), step=3)
    visualizer.add_scalar('loss', 1.5, step=1)
    assert (tmp_path / 'vis_data/vis_image/frame_3.png').is_file()
    assert json.loads((tmp_path / 'vis_data/scalars.json').read_text())['loss'] == 1.5
