# SOC with Video-Swin-B.
_base_ = './soc_swin-t.py'

model = dict(
    backbone=dict(arch='base'),
    neck=dict(in_channels=[256, 512, 1024]),
    head=dict(pixel_decoder=dict(fine_channels=128)))
