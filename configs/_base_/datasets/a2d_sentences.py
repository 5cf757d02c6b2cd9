# A2D-Sentences, as in MTTR and SOC: clips around annotated frames. Layout of the files: docs of A2DSentencesDataset.

# Knobs
data_root = '{{$MMSOC_DATA:data}}/a2d_sentences'
num_frames = 8  # frames per clip, of which the one in the middle is annotated
scale = (576, 320)  # longest long side, short side
flip_prob = 0.309  # the released loader flips when a standard normal number exceeds 0.5

dataset_type = 'A2DSentencesDataset'

train_pipeline = [
    dict(type='LoadVideoWindow'),
    dict(type='LoadA2DMasks'),
    dict(
        type='ForEachFrame',
        transforms=[dict(type='mmdet.RandomFlip', prob=flip_prob),
                    dict(type='ShortSideResize', scale=scale)]),
    dict(type='SwapLeftRight'),
    dict(type='PackReferringInputs'),
]
test_pipeline = [
    dict(type='LoadVideoWindow'),
    dict(type='LoadA2DMasks', evaluation=True),
    dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=scale)]),
    dict(type='PackReferringInputs', drop_unseen=False),
]

train_dataloader = dict(
    batch_size=2,  # per GPU; the authors train on 2
    num_workers=4,
    # New workers are seeded per epoch, so that a resumed run reproduces an uninterrupted one.
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        subset='train',
        num_frames=num_frames,
        expected_videos=3017,
        pipeline=train_pipeline))

val_dataloader = dict(
    batch_size=1,  # one annotated frame with all its sentences; never padded
    num_workers=2,
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        subset='test',
        num_frames=num_frames,
        expected_videos=737,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

# The data set has no validation subset: like the authors, this selects the best checkpoint on the test subset.
val_evaluator = dict(type='A2DMetric')
test_evaluator = val_evaluator
