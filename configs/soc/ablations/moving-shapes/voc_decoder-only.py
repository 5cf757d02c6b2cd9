# Table 8: only the decoder.
_base_ = './base.py'

model = dict(sim=dict(cluster=dict(encoder=None)))
