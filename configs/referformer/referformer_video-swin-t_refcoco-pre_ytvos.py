# ReferFormer, Video-Swin-T, Ref-YouTube-VOS, fine-tuned from weights pre-trained on RefCOCO/+/g (59.4 J&F in the authors' README).
# Those weights: configs/pretrain/referformer_video-swin-t_refcoco.py; load_from is the knob of _base_/finetune_runtime.py.
_base_ = [
    '../_base_/models/referformer_video-swin-t.py',
    '../_base_/datasets/referformer_ytvos.py',
    '../_base_/schedules/schedule_referformer_finetune_6e.py',
    '../_base_/finetune_runtime.py',
]
