# ReferFormer, Video-Swin-B, A2D-Sentences, fine-tuned from weights pre-trained on RefCOCO/+/g (authors' README: overall IoU 78.6, mean
# IoU 70.3, mAP 55.0). Those weights: configs/pretrain/referformer_video-swin-b_refcoco.py.
_base_ = [
    '../_base_/models/referformer_video-swin-b.py',
    '../_base_/datasets/referformer_a2d.py',
    '../_base_/schedules/schedule_referformer_finetune_6e.py',
    '../_base_/finetune_runtime.py',
]

# Mean average precision is of all queries; masks as in the released evaluation, which pads as training does.
model = dict(
    data_preprocessor=dict(test_pad_size_divisor=32),
    test_cfg=dict(selector=dict(type='AllQueries'), output=dict(type='A2DMasks')))

# The rates are for two clips on each of 8 GPUs.
auto_scale_lr = dict(base_batch_size=16)
