# Paper Table 3 without VL: 58.0 J&F.
_base_ = '../soc_swin-t_ytvos.py'

# The words' look at the picture serves this loss alone: without it, its parameters would get no gradient.
model = dict(
    criterion=dict(loss_contrastive=None),
    fusion=dict(v2l=dict(_delete_=True, type='PassThrough')))
