# The released implementation with Video-Swin-T: for checkpoints made by tools/model_converters/released_to_mmsoc.py.
_base_ = '../soc_swin-t_ytvos.py'

model = dict(
    head=dict(num_cls_fcs=1),
    criterion=dict(
        loss_mask=dict(loss_weight=2.),
        loss_dice=dict(loss_weight=5.),
        loss_contrastive=dict(dim_exponent=1.)),
    test_cfg=dict(predict_layer=0))
