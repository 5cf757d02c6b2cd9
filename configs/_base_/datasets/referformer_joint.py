# Joint training of ReferFormer: pseudo-clips of RefCOCO/+/g with Ref-YouTube-VOS.
_base_ = ['./referformer_ytvos.py', './refcoco_train.py']

clip_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadRefCOCOMasks'),
    dict(type='PseudoClip', num_frames=_base_.num_frames),
    *_base_.train_dataloader.dataset.pipeline[2:],
]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            *[dict(part, pipeline=clip_pipeline) for part in _base_.refcoco_train],
            dict(_base_.train_dataloader.dataset, lazy_init=True),
        ]))
