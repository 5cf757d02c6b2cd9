# ReferFormer with Video-Swin-B.
_base_ = './referformer_video-swin-t.py'

# Knobs
video_swin_weights = 'video-swin-b_22k'
with_cp = True  # as the authors do

model = dict(
    backbone=dict(arch='base', pretrained=video_swin_weights, with_cp=with_cp),
    neck=dict(in_channels=[256, 512, 1024]),
    head=dict(pixel_decoder=dict(fine_channels=128)))
