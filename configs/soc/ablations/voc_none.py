# Paper Table 3 without VOC, Table 8 "None": 57.1 J&F.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(sim=dict(cluster=dict(_delete_=True, type='NoCluster')))
