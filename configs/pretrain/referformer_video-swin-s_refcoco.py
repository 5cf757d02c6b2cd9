# ReferFormer, Video-Swin-S, pre-trained on the images of RefCOCO, RefCOCO+ and RefCOCOg, from Kinetics-400 and RoBERTa, which is
# trained. The authors report no score of this stage.
_base_ = [
    '../_base_/models/referformer_video-swin-s.py',
    '../_base_/datasets/referformer_refcoco.py',
    '../_base_/schedules/schedule_referformer_12e.py',
    '../_base_/default_runtime.py',
]

model = dict(text_encoder=dict(frozen=False))

# The rates are for two images on each of 8 GPUs.
auto_scale_lr = dict(base_batch_size=16)
