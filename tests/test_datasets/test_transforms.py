import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks

from mmsoc.datasets.transforms import PackReferringInputs, ShortSideResize
from mmsoc.registry import TRANSFORMS
from mmsoc.utils.masks import box_of_mask


def clip_results(present=(True, False, True), size=(20, 30), text='the left one'):
    """A loaded clip whose object is the 4x3 rectangle at x = 2..5, y = 5..7 where it is present."""
    height, width = size
    length = len(present)
    masks, boxes = [], []
    for seen in present:
        mask = np.zeros((1, height, width), np.uint8)
        if seen:
            mask[0, 5:8, 2:6] = 1
        masks.append(BitmapMasks(mask, height, width))
        boxes.append(box_of_mask(mask[0])[None])
    rng = np.random.default_rng(0)
    return dict(
        video_id='v',
        frames=[str(t) for t in range(length)],
        frame_ids=list(range(length)),
        texts=[text],
        exp_ids=['0'],
        obj_ids=['1'],
        mask_paths=None,
        labels=[0],
        img_path=['x'] * length,
        img=[rng.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(length)],
        img_shape=[size] * length,
        ori_shape=[size] * length,
        scale_factor=[(1.0, 1.0)] * length,
        flip=[False] * length,
        flip_direction=[None] * length,
        gt_masks=masks,
        gt_bboxes=boxes,
        gt_bboxes_labels=[np.zeros(1, np.int64)] * length,
    )


def run(results, *configs):
    for config in configs:
        results = TRANSFORMS.build(dict(config, type=f'mmsoc.{config["type"]}'))(results)
    return results


def for_each(*transforms, **kwargs):
    return dict(type='ForEachFrame', transforms=list(transforms), **kwargs)


FLIP = dict(type='mmdet.RandomFlip', prob=1.0)
PACK = dict(type='PackReferringInputs')
SWAP = dict(type='SwapLeftRight')


def test_box_of_mask():
    mask = np.zeros((6, 9), bool)
    assert box_of_mask(mask).tolist() == [0, 0, 0, 0]
    mask[2, 3] = True
    assert box_of_mask(mask).tolist() == [3, 2, 3, 2]  # the last set pixel, not one past it
    mask[4, 8] = True
    assert box_of_mask(mask).tolist() == [3, 2, 8, 4]
    assert box_of_mask(mask).dtype == np.float32


def test_pack():
    source = clip_results()
    packed = run(source, PACK)
    assert packed['inputs'].dtype == torch.uint8 and packed['inputs'].is_contiguous()
    assert packed['inputs'].shape == (3, 3, 20, 30)
    assert np.array_equal(packed['inputs'][1].permute(1, 2, 0).numpy(), source['img'][1])
    clip = packed['data_samples']
    assert clip.texts == ['the left one'] and clip.video_id == 'v' and clip.frames == ['0', '1', '2']
    assert clip.exp_ids == ['0'] and clip.obj_ids == ['1'] and clip.mask_paths is None
    assert len(clip) == 3
    for t, frame in enumerate(clip):
        objects = frame.gt_instances
        assert len(objects) == 1
        assert objects.bboxes.dtype == torch.float32 and objects.labels.dtype == torch.int64
        assert objects.visible.dtype == torch.bool and objects.visible.tolist() == [t != 1]
        assert objects.bboxes.tolist() == [[2, 5, 5, 7] if t != 1 else [0] * 4]
        assert isinstance(objects.masks, BitmapMasks) and objects.masks.masks.shape == (1, 20, 30)
        assert frame.frame_id == t and frame.video_id == 'v' and frame.img_shape == (20, 30) and frame.flip is False


def test_flip_image_mask_box_and_text():
    source = clip_results()
    images = [image.copy() for image in source['img']]
    packed = run(source, for_each(FLIP), SWAP, PACK)
    clip = packed['data_samples']
    assert clip.texts == ['the right one']
    for t, frame in enumerate(clip):
        assert frame.flip is True and frame.flip_direction == 'horizontal'
        assert np.array_equal(packed['inputs'][t].permute(1, 2, 0).numpy(), images[t][:, ::-1])
    # width 30: columns 2..5 become 24..27; the box is [30 - 5, 30 - 2] in DETR's convention
    assert np.flatnonzero(clip[0].gt_instances.masks.masks[0].any(0)).tolist() == [24, 25, 26, 27]
    assert clip[0].gt_instances.bboxes.tolist() == [[25, 5, 28, 7]]
    # the absent object stays at zeros, not at [30, 0, 30, 0]
    assert clip[1].gt_instances.bboxes.tolist() == [[0, 0, 0, 0]]
    assert not clip[1].gt_instances.visible.any()


def test_flip_is_the_same_for_all_frames_and_has_the_given_rate():
    np.random.seed(0)
    flipped = 0
    for _ in range(300):
        results = run(clip_results(), for_each(dict(FLIP, prob=0.309)))
        assert len(set(results['flip'])) == 1
        flipped += results['flip'][0]
    # 300 draws: 92.7 expected, standard deviation 8
    assert 68 < flipped < 117


def test_random_params_per_frame():
    np.random.seed(0)
    draws = [run(clip_results(), for_each(dict(FLIP, prob=0.5), share_random_params=False))['flip'] for _ in range(20)]
    assert any(len(set(draw)) == 2 for draw in draws)


@pytest.mark.parametrize(
    'text, whole, letters',
    [
        ('the left one', 'the right one', 'the right one'),
        ('left of the right car', 'right of the left car', 'right of the left car'),
        ('a bright light', 'a bright light', 'a bleft light'),
        ('the leftmost, right-hand one', 'the rightmost, left-hand one', 'the rightmost, left-hand one'),
        ('leftover copyright', 'leftover copyright', 'rightover copyleft'),
        ('righthand or rightward', 'lefthand or leftward', 'lefthand or leftward'),
        ('no direction', 'no direction', 'no direction'),
    ],
)
def test_swap_left_right(text, whole, letters):
    assert run(clip_results(text=text), for_each(FLIP), SWAP)['texts'] == [whole]
    assert run(clip_results(text=text), for_each(FLIP), dict(SWAP, whole_words=False))['texts'] == [letters]
    assert run(clip_results(text=text), SWAP)['texts'] == [text]  # not flipped


@pytest.mark.parametrize(
    'size, expected',
    [
        ((854, 480), (640, 360)),  # 360/480 * 854 = 640.5 > 640, so short = round(640 * 480 / 854) = 360
        ((1280, 720), (640, 360)),
        ((480, 854), (360, 640)),
        ((640, 480), (480, 360)),
        ((910, 480), (640, 338)),  # round(640 * 480 / 910 = 337.6); 338 * 910 / 480 = 640.8 -> 640
        ((1152, 480), (640, 267)),
        ((718, 406), (636, 360)),  # 360 * 718 / 406 = 636.65, cut (mmcv would round to 637)
        ((500, 500), (360, 360)),
    ],
)
def test_short_side_resize(size, expected):
    assert ShortSideResize.target_size(*size, (640, 360)) == expected


def test_one_of_several_short_sides():
    def sizes(**kwargs):
        resize = for_each(dict(type='mmsoc.RandomShortSideResize', **kwargs))
        return {tuple(run(clip_results(size=(20, 60)), resize)['img_shape'][0]) for _ in range(30)}

    np.random.seed(0)
    assert sizes(sides=[10, 30, 2000]) == {(10, 30), (30, 90), (2000, 6000)}
    assert sizes(sides=[10, 30], longest=60) == {(10, 30), (20, 60)}


def test_resize_scales_masks_and_boxes():
    packed = run(clip_results(size=(20, 30)), for_each(dict(type='ShortSideResize', scale=(640, 40))), PACK)
    clip = packed['data_samples']
    assert packed['inputs'].shape == (3, 3, 40, 60)
    assert clip[0].img_shape == (40, 60) and clip[0].ori_shape == (20, 30) and clip[0].scale_factor == (2.0, 2.0)
    assert clip[0].gt_instances.bboxes.tolist() == [[4, 10, 10, 14]]
    mask = clip[0].gt_instances.masks.masks[0]
    assert mask.sum() == 4 * 3 * 4 and mask[10:16, 4:12].all()
    assert clip[1].gt_instances.bboxes.tolist() == [[0] * 4]


def test_referformer_recipe():
    several = dict(type='mmsoc.RandomShortSideResize', sides=[16, 24, 32], longest=64)
    recipe = for_each(
        dict(FLIP, prob=0.5),
        dict(
            type='mmsoc.RandomClipChoice',
            transforms=[
                [several],
                [
                    dict(type='mmsoc.RandomShortSideResize', sides=[40, 50]),
                    dict(type='mmsoc.RandomClipCrop', min_size=30, max_size=45),
                    several,
                ],
            ],
        ),
    )
    np.random.seed(0)
    shapes, visible, dropped = set(), set(), 0
    for _ in range(40):
        packed = run(
            clip_results(size=(48, 64)),
            for_each(dict(type='mmsoc.PhotometricDistort'), share_random_params=False),
            recipe,
            SWAP,
            PACK,
        )
        if packed is None:  # the crop left no frame with the object
            dropped += 1
            continue
        shapes.add(tuple(packed['inputs'].shape))
        for frame in packed['data_samples']:
            objects = frame.gt_instances
            x1, y1, x2, y2 = objects.bboxes[0].tolist()
            height, width = packed['inputs'].shape[-2:]
            assert objects.masks.masks.shape == (1, height, width) and frame.img_shape == (height, width)
            assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height
            assert objects.visible.item() == bool(objects.masks.masks.any())
            visible.add(objects.visible.item())
    assert len(shapes) > 5 and visible == {True, False}


def test_crop_keeps_frames_together():
    np.random.seed(3)
    results = clip_results(size=(48, 64))
    results['img'] = [results['img'][0]] * 3
    results = run(results, for_each(dict(type='mmsoc.RandomClipCrop', min_size=20, max_size=30)))
    assert all(np.array_equal(results['img'][0], image) for image in results['img'])
    assert all(20 <= side <= 30 for side in results['img_shape'][0])


def test_crop_takes_the_category_map_along():
    frame = dict(
        img=np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3),
        gt_seg_map=np.arange(30 * 40).reshape(30, 40) % 251,
    )
    frame['img'][..., 0] = frame['gt_seg_map']
    cropped = TRANSFORMS.build(dict(type='mmsoc.RandomClipCrop', min_size=8, max_size=12))(frame)
    assert cropped['gt_seg_map'].shape == cropped['img_shape'] != (30, 40)
    assert (cropped['img'][..., 0] == cropped['gt_seg_map']).all()


def test_crop_of_a_small_frame_is_the_frame():
    results = run(clip_results(size=(20, 30)), for_each(dict(type='mmsoc.RandomClipCrop', min_size=384, max_size=600)))
    assert results['img_shape'] == [(20, 30)] * 3
    assert results['gt_bboxes'][0].tolist() == [[2, 5, 5, 7]]


def test_photometric_distort_is_per_frame_uint8_and_does_not_wrap():
    np.random.seed(0)
    distort = for_each(dict(type='mmsoc.PhotometricDistort'), share_random_params=False)
    differs = False
    for _ in range(10):
        results = clip_results()
        results['img'] = [np.full((20, 30, 3), 250, np.uint8)] * 3
        images = run(results, distort)['img']
        assert all(image.dtype == np.uint8 for image in images)
        # 250 can become 250 * 0.5 - 32 = 93 at the darkest; a wrapped value would be near 0
        assert min(image.min() for image in images) > 60
        differs |= not np.array_equal(images[0], images[1])
    assert differs


def test_clip_without_the_object_is_redrawn():
    assert run(clip_results(present=(False, False)), PACK) is None


def test_random_frames():
    paths = dict(
        frames=['a', 'b', 'c'],
        frame_ids=[0, 1, 2],
        img_paths=['0', '1', '2'],
        mask_paths=None,
        texts=['x'],
        video_id='v',
    )
    np.random.seed(0)
    seen = set()
    for _ in range(50):
        kept = run(dict(paths), dict(type='RandomFrames', num_frames=2))
        assert kept['mask_paths'] is None and kept['texts'] == ['x']
        assert (
            [dict(zip('abc', range(3)))[name] for name in kept['frames']]
            == kept['frame_ids']
            == sorted(kept['frame_ids'])
        )
        assert [int(path) for path in kept['img_paths']] == kept['frame_ids']
        seen.add(tuple(kept['frame_ids']))
    assert seen == {(0, 1), (0, 2), (1, 2)}
    with pytest.raises(ValueError, match='num_frames=4, but the clip has 3 .video v'):
        run(dict(paths), dict(type='RandomFrames', num_frames=4))
    with pytest.raises(ValueError, match='at least 1, found 0'):
        run(dict(paths), dict(type='RandomFrames', num_frames=0))


# --- sentences whose object the clip does not show


def with_an_unseen_sentence():
    """`clip_results`, and before its sentence one whose object no frame shows."""
    results = clip_results()
    results.update(
        texts=['nowhere', 'the left one'],
        exp_ids=['7', '0'],
        obj_ids=['2', '1'],
        families=['order', None],
        held_out=[True, False],
        gt_rles=[['no mask'], ['a mask']],
        mask_paths=['a', 'b', 'c'],
        labels=[1, 0],
        gt_masks=[
            BitmapMasks(np.stack([np.zeros((20, 30), np.uint8), *of.masks]), 20, 30) for of in results['gt_masks']
        ],
        gt_bboxes=[np.concatenate([np.zeros((1, 4), np.float32), of]) for of in results['gt_bboxes']],
        gt_bboxes_labels=[np.array([1, 0])] * 3,
        gt_instances_ids=[np.array([2, 1])] * 3,
    )
    return results


def test_training_drops_an_unseen_sentence_and_all_that_belongs_to_it():
    clip = run(with_an_unseen_sentence(), PACK)['data_samples']
    assert clip.texts == ['the left one'] and clip.exp_ids == ['0'] and clip.obj_ids == ['1']
    assert clip.families == [None] and clip.held_out == [False] and clip.gt_rles == [['a mask']]
    objects = clip[0].gt_instances
    assert objects.visible.tolist() == [True] and objects.bboxes.tolist() == [[2, 5, 5, 7]]
    assert objects.labels.tolist() == [0] and objects.instances_ids.tolist() == [1]


def test_whatever_is_packed_per_sentence_is_filtered():
    results = with_an_unseen_sentence()
    results.update({key: ['unseen', 'seen'] for key in PackReferringInputs.SENTENCE_KEYS})
    clip = run(results, PACK)['data_samples']
    of_clip = set(PackReferringInputs.CLIP_KEYS)
    packed = {key: value for key, value in clip.metainfo.items() if key not in of_clip}
    assert len(packed) == 6 and all(value == ['seen'] for value in packed.values())


def test_testing_keeps_unseen_sentences():
    packing = dict(PACK, drop_unseen=False)
    clip = run(with_an_unseen_sentence(), packing)['data_samples']
    assert clip.texts == ['nowhere', 'the left one'] and clip.held_out == [True, False]
    assert clip.mask_paths == ['a', 'b', 'c']  # what the metric compares with
    assert [frame.gt_instances.visible.tolist() for frame in clip] == [[False, True], [False, False], [False, True]]
    assert clip[0].gt_instances.bboxes.tolist() == [[0] * 4, [2, 5, 5, 7]]
    nothing = run(clip_results(present=(False, False)), packing)['data_samples']
    assert nothing.texts == ['the left one'] and not any(frame.gt_instances.visible.any() for frame in nothing)
