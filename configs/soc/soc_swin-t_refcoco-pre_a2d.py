# SOC, Video-Swin-T, A2D-Sentences, fine-tuned from weights pre-trained on RefCOCO/+/g (paper: P@0.5 83.1, overall IoU 78.3, mean IoU
# 70.6, mAP 54.8).
# Those weights: configs/pretrain/soc_swin-t_refcoco.py; load_from is the knob of _base_/finetune_runtime.py.
_base_ = [
    '../_base_/models/soc_swin-t.py',
    '../_base_/datasets/a2d_sentences.py',
    '../_base_/schedules/schedule_a2d_finetune_20e.py',
    '../_base_/finetune_runtime.py',
]

# Mean average precision is of all queries; masks as in the released evaluation.
model = dict(test_cfg=dict(selector=dict(type='AllQueries'), output=dict(type='A2DMasks')))
train_dataloader = dict(batch_size=1)
