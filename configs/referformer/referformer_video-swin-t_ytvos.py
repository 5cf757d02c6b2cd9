# ReferFormer, Video-Swin-T, Ref-YouTube-VOS from scratch (56.0 J&F in the authors' README): the backbone starts from Kinetics-400, the
# text encoder from RoBERTa.
_base_ = [
    '../_base_/models/referformer_video-swin-t.py',
    '../_base_/datasets/referformer_ytvos.py',
    '../_base_/schedules/schedule_referformer_10e.py',
    '../_base_/default_runtime.py',
]
