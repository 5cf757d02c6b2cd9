# Paper Table 8, "only encoder": 58.3 J&F.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(sim=dict(cluster=dict(decoder=None)))
