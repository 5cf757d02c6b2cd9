# SOC, Video-Swin-T, A2D-Sentences: the paper's scratch row (P@0.5 79.0, overall IoU 74.7, mean IoU 66.9, mAP 50.4).  "Scratch" means
# without images: the backbone starts from Kinetics-400, the text encoder from RoBERTa.  Where the authors' README and yaml
# conflict (the learning rate): _base_/schedules/schedule_a2d_40e.py.
_base_ = [
    '../_base_/models/soc_swin-t.py',
    '../_base_/datasets/a2d_sentences.py',
    '../_base_/schedules/schedule_a2d_40e.py',
    '../_base_/default_runtime.py',
]

# Knobs
# An address is downloaded once; a local file in its place: --cfg-options model.backbone.pretrained=FILE
video_swin_weights = 'https://download.openmmlab.com/mmaction/v1.0/recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb_20220930-241016b2.pth'  # noqa: E501
# A hub name, or a local folder: --cfg-options model.text_encoder.pretrained=FOLDER
text_encoder = 'roberta-base'
# Recompute the backbone's blocks in the backward pass (docs/benchmarks.md): --cfg-options model.backbone.with_cp=True
with_cp = False
# Mixed precision: --amp

model = dict(
    backbone=dict(pretrained=video_swin_weights, with_cp=with_cp),
    text_encoder=dict(pretrained=text_encoder),
    test_cfg=dict(all_queries=True))  # mean average precision is of all queries
