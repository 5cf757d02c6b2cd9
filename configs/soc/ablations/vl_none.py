# Paper Table 3 without VL: 58.0 J&F.
_base_ = '../soc_swin-t_ytvos.py'

# The words' attention to the image serves only this loss; without the loss its parameters would get no gradient.
model = dict(
    criterion=dict(loss_contrastive=None),
    fusion=dict(v2l=dict(_delete_=True, type='PassThrough')))
