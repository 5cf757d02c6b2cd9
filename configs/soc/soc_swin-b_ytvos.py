# SOC, Video-Swin-B, Ref-YouTube-VOS, fine-tuned from weights pre-trained on RefCOCO/+/g (paper Table 1: 66.0 J&F).
_base_ = [
    '../_base_/models/soc_swin-b.py',
    '../_base_/datasets/ref_youtube_vos.py',
    '../_base_/schedules/schedule_finetune_20e.py',
    '../_base_/default_runtime.py',
]

# Knobs
load_from = None  # the pre-trained SOC: --cfg-options load_from=FILE.  None: the backbone's and RoBERTa's weights alone

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='StartingPointHook', wanted='a SOC pre-trained on RefCOCO/+/g, from which the paper fine-tunes (66.0 J&F)'),
]
