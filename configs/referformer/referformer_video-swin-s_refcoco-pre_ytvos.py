# ReferFormer, Video-Swin-S, Ref-YouTube-VOS, fine-tuned from weights pre-trained on RefCOCO/+/g (60.1 J&F in the authors' README).
# Those weights: configs/pretrain/referformer_video-swin-s_refcoco.py; load_from is the knob of _base_/finetune_runtime.py.
_base_ = [
    '../_base_/models/referformer_video-swin-s.py',
    '../_base_/datasets/referformer_ytvos.py',
    '../_base_/schedules/schedule_referformer_finetune_6e.py',
    '../_base_/finetune_runtime.py',
]
