# Paper Table 5, "K-Means": 33.8 J&F.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(sim=dict(cluster=dict(_delete_=True, type='KMeansCluster')))
