# ReferFormer's losses and matching costs, which replace those of SOC.
referformer_criterion = dict(
    type='ReferFormerCriterion',
    assigner=dict(
        match_costs=[
            dict(type='ClipFocalCost', weight=2.),
            dict(type='ClipBoxL1Cost', weight=5.),
            dict(type='ClipGIoUCost', weight=2.),
            dict(type='WholeClipFocalCost', weight=2.),
            dict(type='WholeClipDiceCost', weight=5.),
        ]),
    loss_mask=dict(loss_weight=2.),
    loss_dice=dict(loss_weight=5.),
    loss_bbox=dict(loss_weight=5.),
    loss_contrastive=None)
