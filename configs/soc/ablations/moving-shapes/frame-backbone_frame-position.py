# Beyond the paper: only the cluster combines frames, and it knows which frame a query is from.
_base_ = './frame-position.py'

model = dict(backbone=dict(type='FrameVideoSwin'))
