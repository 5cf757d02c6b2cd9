# SOC, Video-Swin-B, Ref-YouTube-VOS, fine-tuned from weights pre-trained on RefCOCO/+/g (paper Table 1: 66.0 J&F).
# Those weights: configs/pretrain/soc_swin-b_refcoco.py; load_from is the knob of _base_/finetune_runtime.py.
_base_ = [
    '../_base_/models/soc_swin-b.py',
    '../_base_/datasets/ref_youtube_vos.py',
    '../_base_/schedules/schedule_finetune_20e.py',
    '../_base_/finetune_runtime.py',
]
