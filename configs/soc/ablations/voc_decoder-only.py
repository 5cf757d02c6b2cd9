# Paper Table 8, "only decoder": 58.1 J&F.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(sim=dict(cluster=dict(encoder=None)))
