# SOC with Video-Swin-B.
_base_ = './soc_swin-t.py'

# Knobs
# The authors' backbone saw ImageNet-22k before Kinetics-400; mmaction2 publishes this size with ImageNet-1k only.
video_swin_weights = 'https://download.openmmlab.com/mmaction/v1.0/recognition/swin/swin-base-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb/swin-base-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb_20220930-182ec6cc.pth'  # noqa: E501

model = dict(
    backbone=dict(arch='base', pretrained=video_swin_weights),
    neck=dict(in_channels=[256, 512, 1024]),
    head=dict(pixel_decoder=dict(fine_channels=128)))
