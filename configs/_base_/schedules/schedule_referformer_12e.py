# ReferFormer's schedule for pre-training on images and for joint training: 12 epochs, drops after 8 and 10.
_base_ = './schedule_referformer_10e.py'

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[8, 10], gamma=0.1),
]
