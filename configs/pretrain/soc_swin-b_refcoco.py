# SOC, Video-Swin-B, pre-trained on the images of RefCOCO, RefCOCO+ and RefCOCOg, from Kinetics-400 and RoBERTa: the
# start of the recipes soc_*_refcoco-pre_* and soc_swin-b_*. The paper reports no score of this stage.
_base_ = [
    '../_base_/models/soc_swin-b.py',
    '../_base_/datasets/refcoco.py',
    '../_base_/schedules/schedule_pretrain_30e.py',
    '../_base_/default_runtime.py',
]

# README and yaml agree: RoBERTa is trained, at 5e-6 (the schedule).
model = dict(text_encoder=dict(frozen=False))
