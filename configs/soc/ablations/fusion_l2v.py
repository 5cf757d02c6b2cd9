# Paper Table 4, "L2V": 58.7 J&F.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(fusion=dict(v2l=dict(_delete_=True, type='PassThrough')))
