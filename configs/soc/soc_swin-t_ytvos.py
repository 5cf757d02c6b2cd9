# SOC, Video-Swin-T, Ref-YouTube-VOS: the paper's scratch row (Table 1: 59.2 J&F).  "Scratch" means without images: the backbone
# starts from Kinetics-400, the text encoder from RoBERTa.
_base_ = [
    '../_base_/models/soc_swin-t.py',
    '../_base_/datasets/ref_youtube_vos.py',
    '../_base_/schedules/schedule_30e.py',
    '../_base_/default_runtime.py',
]

# Weights to start from, gradient checkpointing: the knobs of _base_/models. Mixed precision: --amp
