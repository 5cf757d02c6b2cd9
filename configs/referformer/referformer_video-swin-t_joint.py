# ReferFormer, Video-Swin-T, trained jointly on pseudo-clips of RefCOCO/+/g and on Ref-YouTube-VOS (62.6 J&F in the authors'
# README (its J and F of 59.9 and 63.3 give 61.6: one of the three is a misprint)).
_base_ = [
    '../_base_/models/referformer_video-swin-t.py',
    '../_base_/datasets/referformer_joint.py',
    '../_base_/schedules/schedule_referformer_12e.py',
    '../_base_/default_runtime.py',
]
