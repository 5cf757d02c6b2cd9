# SOC, Video-Swin-B, A2D-Sentences, fine-tuned from weights pre-trained on RefCOCO/+/g (paper: P@0.5 85.1, overall IoU 80.7, mean IoU
# 72.5, mAP 57.3).
# Those weights: configs/pretrain/soc_swin-b_refcoco.py; load_from is the knob of _base_/finetune_runtime.py.
_base_ = [
    '../_base_/models/soc_swin-b.py',
    '../_base_/datasets/a2d_sentences.py',
    '../_base_/schedules/schedule_a2d_finetune_20e.py',
    '../_base_/finetune_runtime.py',
]

# Mean average precision is of all queries; masks as in the released evaluation.
model = dict(test_cfg=dict(selector=dict(type='AllQueries'), output=dict(type='A2DMasks')))
train_dataloader = dict(batch_size=1)
