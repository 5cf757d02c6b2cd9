_base_ = ['../../configs/_base_/default_runtime.py', '../../configs/_base_/schedules/schedule_30e.py']
custom_imports = dict(imports=['toy'], allow_failed_imports=False)

model = dict(type='ToyModel')
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ToyDataset'),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ToyDataset', noise=False, length=5),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyMetric')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=30, milestones=[1, 2], gamma=0.1)]
default_hooks = dict(logger=dict(interval=1))
visualizer = dict(_delete_=True, type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
