# Table 4: vision to language only.
_base_ = './base.py'

model = dict(fusion=dict(l2v=dict(_delete_=True, type='PassThrough')))
