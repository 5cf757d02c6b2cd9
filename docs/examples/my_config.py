# A config outside the repository: mmsoc's small model with three parts of one's own.
_base_ = 'mmsoc::soc/soc_tiny_moving-shapes.py'

custom_imports = dict(imports=['my_parts'])  # docs/examples/my_parts.py, in a folder on PYTHONPATH

model = dict(
    # Another type takes none of the old one's arguments: _delete_.
    backbone=dict(
        _delete_=True, type='FrameBackbone', backbone=dict(type='ThreeConvBackbone', channels=(32, 64, 128, 256))
    ),
    sim=dict(cluster=dict(_delete_=True, type='AttentionPoolCluster', embed_dims=128)),
    criterion=dict(loss_dice=dict(_delete_=True, type='TverskyLoss', loss_weight=2.0)),
)
