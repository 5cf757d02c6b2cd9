# SOC, Video-Swin-T, A2D-Sentences: the paper's scratch row (P@0.5 79.0, overall IoU 74.7, mean IoU 66.9, mAP 50.4).  "Scratch" means
# without images: the backbone starts from Kinetics-400, the text encoder from RoBERTa. Where the authors' README and yaml
# conflict (the learning rate): _base_/schedules/schedule_a2d_40e.py.
_base_ = [
    '../_base_/models/soc_swin-t.py',
    '../_base_/datasets/a2d_sentences.py',
    '../_base_/schedules/schedule_a2d_40e.py',
    '../_base_/default_runtime.py',
]

# Weights to start from, gradient checkpointing: the knobs of _base_/models. Mixed precision: --amp

# Mean average precision is of all queries; masks as in the released evaluation.
model = dict(test_cfg=dict(selector=dict(type='AllQueries'), output=dict(type='A2DMasks')))
