# Table 4: language to vision only.
_base_ = './base.py'

model = dict(fusion=dict(v2l=dict(_delete_=True, type='PassThrough')))
