# SOC with Video-Swin-B.
_base_ = './soc_swin-t.py'

# Knobs
video_swin_weights = 'video-swin-b_22k'  # ImageNet-22k, then Kinetics-400, as the paper's

model = dict(
    backbone=dict(arch='base', pretrained=video_swin_weights),
    neck=dict(in_channels=[256, 512, 1024]),
    head=dict(pixel_decoder=dict(fine_channels=128)))
