# SOC, Video-Swin-B, Ref-YouTube-VOS.
_base_ = [
    '../_base_/models/soc_swin-b.py',
    '../_base_/datasets/ref_youtube_vos.py',
    '../_base_/schedules/schedule_30e.py',
    '../_base_/default_runtime.py',
]
