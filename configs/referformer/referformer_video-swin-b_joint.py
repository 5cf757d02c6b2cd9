# ReferFormer, Video-Swin-B, trained jointly on pseudo-clips of RefCOCO/+/g and on Ref-YouTube-VOS (64.9 J&F in the authors'
# README).
_base_ = [
    '../_base_/models/referformer_video-swin-b.py',
    '../_base_/datasets/referformer_joint.py',
    '../_base_/schedules/schedule_referformer_12e.py',
    '../_base_/default_runtime.py',
]
