# SOC, Video-Swin-B, Ref-YouTube-VOS, fine-tuned from weights pre-trained on RefCOCO/+/g (paper Table 1: 66.0 J&F).
_base_ = [
    '../_base_/models/soc_swin-b.py',
    '../_base_/datasets/ref_youtube_vos.py',
    '../_base_/schedules/schedule_finetune_20e.py',
    '../_base_/default_runtime.py',
]

# Knobs
load_from = None  # the pre-trained SOC: --cfg-options load_from=FILE.  None: the backbone's and RoBERTa's weights alone
# An address is downloaded once; a local file in its place: --cfg-options model.backbone.pretrained=FILE
# The authors' backbone saw ImageNet-22k before Kinetics-400; mmaction2 publishes this size with ImageNet-1k only.
video_swin_weights = 'https://download.openmmlab.com/mmaction/v1.0/recognition/swin/swin-base-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb/swin-base-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb_20220930-182ec6cc.pth'  # noqa: E501
# A hub name, or a local folder: --cfg-options model.text_encoder.pretrained=FOLDER
text_encoder = 'roberta-base'
# Recompute the backbone's blocks in the backward pass (docs/benchmarks.md): --cfg-options model.backbone.with_cp=True
with_cp = False
# Mixed precision: --amp

model = dict(
    backbone=dict(pretrained=video_swin_weights, with_cp=with_cp),
    text_encoder=dict(pretrained=text_encoder))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='StartingPointHook', wanted='a SOC pre-trained on RefCOCO/+/g, from which the paper fine-tunes (66.0 J&F)'),
]
