# Where the released implementation differs from the paper (docs/paper_vs_released.md): for configs/soc/released.
released = dict(
    head=dict(num_cls_fcs=1),
    criterion=dict(
        loss_mask=dict(loss_weight=2.),
        loss_dice=dict(loss_weight=5.),
        loss_contrastive=dict(dim_exponent=1.)),
    test_cfg=dict(predict_layer=0))
