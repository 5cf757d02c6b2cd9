# Paper Table 5, "1D-Conv": 55.1 J&F.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(sim=dict(cluster=dict(_delete_=True, type='Conv1dCluster', embed_dims=256)))
