# Table 5: 1D convolution.
_base_ = './base.py'

model = dict(sim=dict(cluster=dict(_delete_=True, type='Conv1dCluster', embed_dims=128)))
