# Table 4: no fusion.
_base_ = './base.py'

model = dict(fusion=dict(l2v=dict(_delete_=True, type='PassThrough'), v2l=dict(_delete_=True, type='PassThrough')))
