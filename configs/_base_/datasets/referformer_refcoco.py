# RefCOCO, RefCOCO+ and RefCOCOg as images, with ReferFormer's augmentation, two on each GPU.
_base_ = ['./refcoco.py', './referformer_augmentation.py']

# Knobs
batch_size = 2  # per GPU

_pipeline = [
    *_base_.train_pipeline[:2],
    *_base_.referformer_augmentation,
    *_base_.train_pipeline[3:],
]
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(datasets=[dict(part, pipeline=_pipeline) for part in _base_.train_dataloader.dataset.datasets]))
