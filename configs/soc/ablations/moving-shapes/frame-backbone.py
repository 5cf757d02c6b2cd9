# Beyond the paper: the backbone sees one frame at a time, so that only the cluster combines frames.
_base_ = './base.py'

model = dict(backbone=dict(type='FrameVideoSwin'))
