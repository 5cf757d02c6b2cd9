# Paper Table 5, "Average": 57.5 J&F.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(sim=dict(cluster=dict(_delete_=True, type='AverageCluster')))
