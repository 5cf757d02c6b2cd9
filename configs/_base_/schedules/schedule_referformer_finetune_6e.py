# ReferFormer's schedule for fine-tuning: 6 epochs, drops after 3 and 5.
_base_ = './schedule_referformer_10e.py'

max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[3, 5], gamma=0.1),
]
