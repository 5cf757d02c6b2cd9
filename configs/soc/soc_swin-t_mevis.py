# SOC, Video-Swin-T, MeViS, with the recipe of soc_swin-t_ytvos.py. The paper does not report MeViS, so there is no
# reference score.
_base_ = [
    '../_base_/models/soc_swin-t.py',
    '../_base_/datasets/mevis.py',
    '../_base_/schedules/schedule_30e.py',
    '../_base_/default_runtime.py',
]

# Weights to start from, gradient checkpointing: the knobs of _base_/models. Mixed precision: --amp

# Videos have up to hundreds of frames: clips of 36 are predicted independently, as on Ref-DAVIS17 (36 is also the
# longest video of Ref-YouTube-VOS). This is not part of a protocol; longer motions are seen in parts. None: the whole
# video at once.
model = dict(test_cfg=dict(frames_per_clip=36))
