# Table 5: K-means.
_base_ = './base.py'

model = dict(sim=dict(cluster=dict(_delete_=True, type='KMeansCluster')))
