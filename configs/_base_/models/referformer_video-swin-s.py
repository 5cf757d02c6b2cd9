# ReferFormer with Video-Swin-S.
_base_ = './referformer_video-swin-t.py'

# Knobs
video_swin_weights = 'video-swin-s'
with_cp = True  # as the authors do

model = dict(
    backbone=dict(arch='small', pretrained=video_swin_weights, with_cp=with_cp))
