# SOC's schedule for fine-tuning on Ref-YouTube-VOS from image-pretrained weights: the authors' script (their README says 25 epochs;
# both drop after epoch 10, with one clip on each of 8 GPUs and RoBERTa frozen).
_base_ = './schedule_30e.py'

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[10], gamma=0.1),
]
