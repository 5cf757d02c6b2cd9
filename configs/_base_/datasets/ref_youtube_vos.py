# Ref-YouTube-VOS. Source and layout of the files: docs, "Data".

# Knobs
data_root = '{{$MMSOC_DATA:data}}/ref-youtube-vos'
num_frames = 8  # frames per training clip (paper section 4.2)
scale = (640, 360)  # longest long side, short side
use_category = False  # True: the label is one of 65 categories, and the model needs num_classes=65
flip_prob = 0.309  # the released loader flips when a standard normal number exceeds 0.5

dataset_type = 'RefYouTubeVOSDataset'

train_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadReferredMasks'),
    dict(
        type='ForEachFrame',
        transforms=[dict(type='mmdet.RandomFlip', prob=flip_prob),
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
    batch_size=1,  # per GPU; the paper trains on 8
    num_workers=4,
    # Persistent workers would draw from one stream over all epochs; new ones are seeded per epoch, so that a resumed
    # run reproduces an uninterrupted one.
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='meta_expressions/train/meta_expressions.json',
        meta_file='train/meta.json',
        data_prefix=dict(img='train/JPEGImages', mask='train/Annotations'),
        expected_videos=3471,
        use_category=use_category,
        clip_sampler=dict(type='WindowClipSampler', num_frames=num_frames),
        pipeline=train_pipeline))

val_dataloader = dict(
    batch_size=1,  # one video with all its sentences; videos are never padded
    num_workers=2,
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='meta_expressions/valid/meta_expressions.json',
        exclude_ann_file='meta_expressions/test/meta_expressions.json',
        data_prefix=dict(img='valid/JPEGImages', mask='valid/Annotations'),
        expected_videos=202,
        test_mode=True,
        # The masks (and the obj_id) of this split are not in the public download. The check comes before training starts, not
        # after its first epoch.
        require_masks=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='JFMetric')
test_evaluator = val_evaluator
