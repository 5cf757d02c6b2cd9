# Tables 3 and 8: no cluster.
_base_ = './base.py'

model = dict(sim=dict(cluster=dict(_delete_=True, type='NoCluster')))
