# Table 8: only the encoder.
_base_ = './base.py'

model = dict(sim=dict(cluster=dict(decoder=None)))
