# Paper Table 4, "V2L": 39.8 J&F.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(fusion=dict(l2v=dict(_delete_=True, type='PassThrough')))
