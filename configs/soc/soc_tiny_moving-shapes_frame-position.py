# The cluster knows which frame a query comes from; the paper's does not.
_base_ = './soc_tiny_moving-shapes_videos.py'

model = dict(sim=dict(cluster=dict(frame_position=True)))
