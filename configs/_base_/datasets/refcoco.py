# RefCOCO, RefCOCO+ and RefCOCOg (umd) together, as images: clips of one frame, for pre-training. Layout of the files:
# docs of RefCOCODataset. This reads the prepared form; for the original one, set in each of the four data sets
# (refs(umd).p for RefCOCOg):
#   ann_file='refcoco/instances.json', refs_file='refcoco/refs(unc).p', split='train'
_base_ = './refcoco_train.py'

# Knobs
data_root = _base_.coco_root
batch_size = 8  # per GPU
scale = (640, 360)  # longest long side, short side
flip_prob = 0.5  # here the released loader flips with this probability

dataset_type = 'RefCOCODataset'

train_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadRefCOCOMasks'),
    dict(
        type='ForEachFrame',
        transforms=[dict(type='mmdet.RandomFlip', prob=flip_prob),
                    dict(type='ShortSideResize', scale=scale)]),
    dict(type='SwapLeftRight'),
    dict(type='PackReferringInputs'),
]
test_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadRefCOCOMasks', evaluation=True),
    dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=scale)]),
    dict(type='PackReferringInputs', drop_unseen=False),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=4,
    # New workers are seeded per epoch, so that a resumed run reproduces an uninterrupted one.
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ConcatDataset',
        datasets=[dict(part, pipeline=train_pipeline) for part in _base_.refcoco_train]))

# RefCOCO val alone, to monitor training and to select a checkpoint, in a third of the time of all three. RefCOCOg's
# training images can include its images, with other sentences, so do not report this score.
val_dataloader = dict(
    batch_size=1,  # one image with all its sentences; never padded
    num_workers=2,
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='refcoco/instances_refcoco_val.json',
        expected_sentences=10834,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='RefCOCOMetric')
test_evaluator = val_evaluator
