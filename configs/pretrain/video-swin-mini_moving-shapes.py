# Pre-trains the backbone of soc_tiny_moving-shapes.py on shapes for a minute or two, in place of the paper's
# Kinetics-400.
_base_ = ['../soc/soc_tiny_moving-shapes.py']

# Knobs
max_epochs = 16
batch_size = 8  # per process
lr = 2e-3  # for a batch of 16

model = dict(
    _delete_=True,
    type='BackbonePretrainer',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    neck={**_base_.model.neck, 'num_outs': 3},  # no loss would train the stride-64 level
    head=dict(type='CategoryMapHead', embed_dims=128, num_classes=len(_base_.categories)))

# All families: as single images of objects they are alike.
train_dataloader = dict(
    batch_size=batch_size,
    sampler=dict(family_starts=None),
    dataset=dict(sentences_per_clip=1))
# The model does not predict: the log shows the accuracy of the cells' categories.
val_dataloader = None
val_cfg = None
val_evaluator = None
test_dataloader = None
test_cfg = None
test_evaluator = None

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', power=1., by_epoch=True, begin=0, end=max_epochs, eta_min=0., convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(save_best=None))
custom_hooks = _base_.custom_hooks[:-1]  # single frames to the end
