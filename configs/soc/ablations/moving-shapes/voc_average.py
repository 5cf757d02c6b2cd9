# Table 5: average.
_base_ = './base.py'

model = dict(sim=dict(cluster=dict(_delete_=True, type='AverageCluster')))
