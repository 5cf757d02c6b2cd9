# Table 3: neither cluster nor contrastive loss.
_base_ = './base.py'

model = dict(
    sim=dict(cluster=dict(_delete_=True, type='NoCluster')),
    criterion=dict(loss_contrastive=None),
    fusion=dict(v2l=dict(_delete_=True, type='PassThrough')))
