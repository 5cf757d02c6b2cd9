# Two sequences of Ref-DAVIS17 (90 frames, 8 sentences), small, for training *and* testing: does the model learn at all?

# Knobs
data_root = '{{$MMSOC_DATA:data}}/ref-davis17-mini'
num_frames = 4
scale = (160, 96)
cache_dir = 'work_dirs/object_frames'  # cache of the objects that the masks show

dataset_type = 'RefYouTubeVOSDataset'
dataset = dict(
    type=dataset_type,
    data_root=data_root,
    ann_file='meta_expressions/valid/meta_expressions.json',
    meta_file='valid/meta.json',
    data_prefix=dict(img='valid/JPEGImages', mask='valid/Annotations'),
    expected_videos=2)

train_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadReferredMasks'),
    dict(
        type='ForEachFrame',
        transforms=[dict(type='mmdet.RandomFlip', prob=0.309),
                    dict(type='ShortSideResize', scale=scale)]),
    dict(type='SwapLeftRight'),
    dict(type='PackReferringInputs'),
]
test_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=scale)]),
    dict(type='PackReferringInputs', drop_unseen=False),
]

train_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **dataset,
        cache_dir=cache_dir,
        clip_sampler=dict(type='WindowClipSampler', num_frames=num_frames),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, test_mode=True, require_masks=True, pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='JFMetric')
test_evaluator = val_evaluator
