# MovingShapes (docs/moving_shapes.md), made by `python tools/dataset_converters/moving_shapes.py`.

# Knobs
data_root = '{{$MMSOC_DATA:data}}/moving-shapes'
num_frames = 4  # a whole video: the events of `change` and `order` lie inside one training sample
batch_size = 4  # per process
sentences_per_clip = 2  # all that a video has; the text-independent part runs once for both
epoch_size = 800  # samples between two checkpoints, over all processes

# Like the paper's pre-training on images: first single frames, with the sentences that one frame decides, then videos
# with all sentences. A single frame takes less than half of the time, and naming is learned faster without look-alikes.
image_epochs = 36
family_starts = dict(appearance=0, relation=25, change=image_epochs, order=image_epochs + 2)

categories = ['circle', 'square', 'triangle', 'star', 'cross', 'heart']
# what sentences about change, and those about order, say
events = [
    'moves', 'stays_still', 'flickers', 'changes_colour', 'turns', 'changes_size',
    'moves_right', 'moves_left', 'moves_down', 'moves_up', 'turns_clockwise', 'turns_counterclockwise', 'grows', 'shrinks',
    'red_green_blue', 'red_blue_green',
]

dataset_type = 'RefYouTubeVOSDataset'

image_pipeline = [
    dict(type='RandomFrames', num_frames=1),
    dict(type='LoadVideoFrames'),
    dict(type='LoadReferredMasks'),
    dict(type='LoadCategoryMaps', classes=categories),
    dict(type='ForEachFrame', transforms=[dict(type='mmdet.RandomFlip', prob=0.5)]),
    dict(type='SwapLeftRight'),
    dict(type='PackReferringInputs'),
]
# No augmentation: a flip would turn "clockwise" into its opposite.
video_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadReferredMasks'),
    dict(type='LoadCategoryMaps', classes=categories),
    dict(type='PackReferringInputs'),
]
test_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='PackReferringInputs', drop_unseen=False),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=0,  # reading small images is faster than transferring them between processes
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='ShortEpochSampler', epoch_size=epoch_size, family_starts=family_starts),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='meta_expressions/train/meta_expressions.json',
        meta_file='train/meta.json',
        data_prefix=dict(img='train/JPEGImages', mask='train/Annotations'),
        clip_sampler=dict(type='WindowClipSampler', num_frames=num_frames),
        sentences_per_clip=sentences_per_clip,
        pipeline=image_pipeline))
_valid_loader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=False))
_valid = dict(
    type=dataset_type,
    data_root=data_root,
    ann_file='meta_expressions/valid/meta_expressions.json',
    data_prefix=dict(img='valid/JPEGImages', mask='valid/Annotations'),
    test_mode=True,
    require_masks=True,
    pipeline=test_pipeline)
# 192 of the 432 videos of the valid split are for testing. The others select the best checkpoint, which needs that
# many.
val_dataloader = dict(**_valid_loader, dataset=dict(**_valid, indices=[*range(48), *range(240, 432)]))
test_dataloader = dict(**_valid_loader, dataset=dict(**_valid, indices=list(range(48, 240))))

val_evaluator = dict(type='JFMetric', max_table_videos=0)
test_evaluator = val_evaluator

video_switch = dict(type='mmdet.PipelineSwitchHook', switch_epoch=image_epochs, switch_pipeline=video_pipeline)
