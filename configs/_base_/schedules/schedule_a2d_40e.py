# SOC's schedule for A2D-Sentences from Kinetics weights: 40 epochs, the rate to a fifth after epoch 15, two clips on each of 2 GPUs,
# RoBERTa frozen. The authors' README and yaml conflict: README 5e-4 (backbone 5e-5), yaml 5e-5 (backbone 5e-6). Chosen: the
# yaml, which their script reads; the README's is five times the rate of Ref-YouTube-VOS at half the batch. The paper is silent.
_base_ = './schedule_30e.py'

max_epochs = 40
lr = 5e-5
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[15], gamma=0.2),
]
optim_wrapper = dict(optimizer=dict(lr=lr))

# The rates are for two clips on each of 2 GPUs.
auto_scale_lr = dict(base_batch_size=4)
