# Beyond the paper: nothing combines frames but the choice of one query for the video.
_base_ = './voc_none.py'

model = dict(backbone=dict(type='FrameVideoSwin'))
