# MovingShapes (docs/moving_shapes.md), made by `python tools/dataset_converters/moving_shapes.py`.

# Knobs
data_root = '{{$MMSOC_DATA:data}}/moving-shapes'
num_frames = 6  # a whole video: the events of `change` and `order` lie inside one training sample
batch_size = 2  # per process
epoch_size = 400  # samples between two checkpoints, over all processes
num_select = 48  # videos of the valid split that choose the best checkpoint; the test is on the others

dataset_type = 'RefYouTubeVOSDataset'

# No augmentation: the generator makes as many videos as are wanted, and a flip would turn "clockwise" into its opposite.
train_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadReferredMasks'),
    dict(type='PackReferringInputs'),
]
test_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='PackReferringInputs'),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=0,  # reading small pictures takes less time than handing them over
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='ShortEpochSampler', epoch_size=epoch_size),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='meta_expressions/train/meta_expressions.json',
        meta_file='train/meta.json',
        data_prefix=dict(img='train/JPEGImages', mask='train/Annotations'),
        clip_sampler=dict(type='WindowClipSampler', num_frames=num_frames),
        pipeline=train_pipeline))
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
val_dataloader = dict(**_valid_loader, dataset=dict(**_valid, indices=num_select))
test_dataloader = dict(**_valid_loader, dataset=dict(**_valid, indices=list(range(num_select, 240))))

val_evaluator = dict(type='JFMetric', max_table_videos=0)
test_evaluator = val_evaluator
