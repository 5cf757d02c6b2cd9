# SOC, Video-Swin-B, MeViS, with the recipe of soc_swin-t_ytvos.py. The paper has no row for MeViS, so that there is no number to
# compare with.
_base_ = [
    '../_base_/models/soc_swin-b.py',
    '../_base_/datasets/mevis.py',
    '../_base_/schedules/schedule_30e.py',
    '../_base_/default_runtime.py',
]

# Weights to start from, gradient checkpointing: the knobs of _base_/models. Mixed precision: --amp

# Videos have up to hundreds of frames: clips of 36 are predicted on their own, as on Ref-DAVIS17 (36 is also the most that a
# video of Ref-YouTube-VOS has). No protocol says so; a motion that lasts longer is seen in parts. None: the whole video at once.
model = dict(test_cfg=dict(frames_per_clip=36))
