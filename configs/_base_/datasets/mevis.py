# MeViS. Source and layout of the files: docs of MeViSDataset.

# Knobs
data_root = '{{$MMSOC_DATA:data}}/mevis'
num_frames = 8  # frames per training clip
scale = (640, 360)  # longest long side, short side
flip_prob = 0.309  # as for Ref-YouTube-VOS

dataset_type = 'MeViSDataset'

train_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadMeViSMasks'),
    dict(
        type='ForEachFrame',
        transforms=[dict(type='mmdet.RandomFlip', prob=flip_prob),
                    dict(type='ShortSideResize', scale=scale)]),
    dict(type='SwapLeftRight'),
    dict(type='PackReferringInputs'),
]
test_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadMeViSMasks', evaluation=True),  # adds nothing if the split has none
    dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=scale)]),
    dict(type='PackReferringInputs', drop_unseen=False),
]

train_dataloader = dict(
    batch_size=1,  # per GPU
    num_workers=4,
    # New workers are seeded per epoch, so that a resumed run reproduces an uninterrupted one.
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='train/meta_expressions.json',
        mask_file='train/mask_dict.json',
        data_prefix=dict(img='train/JPEGImages'),
        expected_videos=1662,
        clip_sampler=dict(type='WindowClipSampler', num_frames=num_frames),
        pipeline=train_pipeline))

# valid_u, the split whose masks are public; valid: soc_swin-t_mevis_submission.py
val_dataloader = dict(
    batch_size=1,  # one video with all its sentences; videos are never padded
    num_workers=1,  # a worker holds a whole video at its original size: 100 frames of 1920x1080 are 0.6 GB
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='valid_u/meta_expressions.json',
        mask_file='valid_u/mask_dict.json',
        data_prefix=dict(img='valid_u/JPEGImages'),
        expected_videos=50,
        test_mode=True,
        require_masks=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='JFMetric')
test_evaluator = val_evaluator
