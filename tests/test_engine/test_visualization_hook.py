from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample, TrackDataSample
from mmengine.visualization import Visualizer
from pycocotools import mask as coco_mask

from mmsoc.engine.hooks import RVOSVisualizationHook
from mmsoc.visualization import RVOSLocalVisualizer
from tests.test_datasets.tiny_a2d import SIZE, grey, write_mp4


@pytest.fixture
def sample(tmp_path):
    """Three frames of 20 x 30 pixels and two sentences; the second one's object is never there."""
    frames = []
    for t in range(3):
        path = tmp_path / 'frames' / f'{t:05d}.png'
        mmcv.imwrite(np.full((20, 30, 3), 50 * t, np.uint8), str(path))
        frames.append(DetDataSample(metainfo=dict(img_path=str(path), ori_shape=(20, 30))))
    there, absent = np.zeros((20, 30), np.uint8, order='F'), np.zeros((20, 30), np.uint8, order='F')
    there[5:10, 5:10] = 1
    track = TrackDataSample(metainfo=dict(texts=['a square', 'nothing'], video_id='v/1', exp_ids=['0', '1']))
    track.video_data_samples = frames
    track.set_field([[coco_mask.encode(mask)] * 3 for mask in (there, absent)], 'pred_masks')
    track.set_field(torch.tensor([0.9, 0.1]), 'pred_scores')
    return track


def runner(visualizer):
    return SimpleNamespace(visualizer=visualizer, epoch=2)


def test_writes_a_video_and_a_sheet_per_sentence(sample, tmp_path):
    av = pytest.importorskip('av')
    hook = RVOSVisualizationHook(show_dir=str(tmp_path / 'out'), sheet_frames=2)
    hook.after_test_iter(runner(RVOSLocalVisualizer()), 0, outputs=[sample])
    folder = tmp_path / 'out' / 'v%2f1'
    assert sorted(path.name for path in folder.iterdir()) == ['0.mp4', '0.png', '1.mp4', '1.png']
    with av.open(str(folder / '0.mp4')) as video:
        assert video.streams.video[0].codec_context.name == 'h264'
        assert len(list(video.decode(video=0))) == 3
    # two frames of 30 pixels with gaps beside each other
    assert mmcv.imread(str(folder / '0.png')).shape[1] > 60
    hook.after_val_iter(runner(RVOSLocalVisualizer()), 0, outputs=[sample])
    assert (tmp_path / 'out' / 'epoch_2' / 'v%2f1' / '1.mp4').is_file()


def test_does_nothing_unless_asked(sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    RVOSVisualizationHook().after_test_iter(runner(RVOSLocalVisualizer()), 0, outputs=[sample])
    RVOSVisualizationHook(show_dir='out', interval=2).after_test_iter(
        runner(RVOSLocalVisualizer()), 1, outputs=[sample]
    )
    assert sorted(tmp_path.rglob('*')) == before


def test_mistakes(sample, tmp_path):
    with pytest.raises(ValueError, match=r'visualizer\.type is Visualizer'):
        RVOSVisualizationHook(show_dir=str(tmp_path)).after_test_iter(runner(Visualizer()), 0, outputs=[sample])
    with pytest.raises(ValueError, match='interval >= 1'):
        RVOSVisualizationHook(interval=0)


def test_a_clip_of_a_video_file_with_one_annotated_frame(tmp_path):
    """A2D-Sentences: the frames' path is an mp4, and there is a mask of the annotated frame alone."""
    pytest.importorskip('av')
    write_mp4(tmp_path / 'clip.mp4', 12)
    height, width = SIZE
    frames = [
        DetDataSample(metainfo=dict(img_path=str(tmp_path / 'clip.mp4'), frame_id=index, ori_shape=SIZE))
        for index in (4, 5, 6)
    ]
    track = TrackDataSample(
        metainfo=dict(texts=['a box'], video_id='clip', exp_ids=['v_clip_f_6_i_0'], key_frames_inds=[1])
    )
    track.video_data_samples = frames
    mask = np.zeros((height, width), np.uint8, order='F')
    track.set_field([[coco_mask.encode(mask)]], 'pred_masks')
    track.set_field(torch.tensor([0.5]), 'pred_scores')
    hook = RVOSVisualizationHook(show_dir=str(tmp_path / 'out'))
    hook.after_test_iter(runner(RVOSLocalVisualizer()), 0, outputs=[track])
    shown = mmcv.imread(str(tmp_path / 'out' / 'clip' / 'v_clip_f_6_i_0.png'), channel_order='rgb')
    # The frame with index 5, not the first of the clip: every frame of the tiny video has its own grey.
    inside = shown[: height // 4].reshape(-1, 3).astype(int)
    values = np.abs(inside - grey(5)).max(1)
    assert (values < 6).mean() > 0.3 and (np.abs(inside - grey(4)).max(1) < 6).mean() < 0.3


def test_names_of_a_data_set_stay_below_the_folder_and_apart(sample, tmp_path):
    """``a/b`` and ``a_b`` are different videos and different expressions; ``..`` is no folder above."""
    pytest.importorskip('av')
    hook = RVOSVisualizationHook(show_dir=str(tmp_path / 'out'), sheet_frames=1)
    for video, expressions in (('a/b', ['x/0', 'x_0']), ('a_b', ['..', '.']), ('..', ['0', '1'])):
        sample.set_metainfo(dict(video_id=video, exp_ids=expressions))
        hook.after_test_iter(runner(RVOSLocalVisualizer()), 0, outputs=[sample])
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*.mp4')}
    assert written == {
        *('out/a%2fb/x%2f0.mp4', 'out/a%2fb/x_0.mp4'),
        *('out/a_b/%2e..mp4', 'out/a_b/%2e.mp4'),
        *('out/%2e./0.mp4', 'out/%2e./1.mp4'),
    }
