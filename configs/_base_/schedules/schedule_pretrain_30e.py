# SOC's schedule for pre-training on the images of RefCOCO/+/g: 30 epochs, drops after epochs 15 and 20, eight images on
# each of 8 GPUs. The authors' README and yaml conflict about the images per GPU: README 8, yaml 7, which their command
# line overrides with 8. Chosen: 8.
_base_ = './schedule_30e.py'

max_epochs = 30
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[15, 20], gamma=0.1),
]

# The rates are for eight images on each of 8 GPUs.
auto_scale_lr = dict(base_batch_size=64)
