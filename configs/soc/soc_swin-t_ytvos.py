# SOC, Video-Swin-T, Ref-YouTube-VOS from scratch (paper Table 1: 59.2 J&F).
_base_ = [
    '../_base_/models/soc_swin-t.py',
    '../_base_/datasets/ref_youtube_vos.py',
    '../_base_/schedules/schedule_30e.py',
    '../_base_/default_runtime.py',
]
