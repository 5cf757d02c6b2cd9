# Paper Table 4, "No Fusion": 38.3 J&F.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(
    fusion=dict(l2v=dict(_delete_=True, type='PassThrough'), v2l=dict(_delete_=True, type='PassThrough')))
