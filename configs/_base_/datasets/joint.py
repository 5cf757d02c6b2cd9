# Joint training: pseudo-clips from images of RefCOCO, RefCOCO+ and RefCOCOg with Ref-YouTube-VOS, shuffled as one data
# set. Validation and test are those of Ref-YouTube-VOS, as are the knobs num_frames, scale and flip_prob.
# The original form of RefCOCO/+/g: refcoco.py.
_base_ = ['./ref_youtube_vos.py', './refcoco_train.py']

# The released loader does not change these sentences (they are clean in the file); ours lower-cases them, as always in
# training. Flips are those of the videos, not the 0.5 of pre-training.
clip_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadRefCOCOMasks'),
    dict(type='PseudoClip', num_frames=_base_.num_frames),
    *_base_.train_pipeline[2:],
]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            *[dict(part, pipeline=clip_pipeline) for part in _base_.refcoco_train],
            dict(_base_.train_dataloader.dataset, lazy_init=True),
        ]))
