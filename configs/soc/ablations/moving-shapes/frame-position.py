# Beyond the paper: the cluster knows which frame a query is from.
_base_ = './base.py'

model = dict(sim=dict(cluster=dict(frame_position=True)))
