# Table 3: no contrastive loss, nor the stream that serves it alone.
_base_ = './base.py'

model = dict(
    criterion=dict(loss_contrastive=None),
    fusion=dict(v2l=dict(_delete_=True, type='PassThrough')))
