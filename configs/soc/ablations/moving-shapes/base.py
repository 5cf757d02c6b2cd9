# SOC as in the paper, small, on MovingShapes: the base of the ablations' twins, which tools/analysis_tools/run_ablations.py trains.
_base_ = ['../../soc_mini_moving-shapes_short.py']

# Knobs
max_epochs = 12
image_epochs = 6
batch_size = 8  # one process
load_from = 'soc-mini_pretrained'  # a backbone that no SOC has trained

model = dict(
    sim=dict(cluster=dict(frame_position=False)),
    head=dict(mask_stride=4, pixel_decoder=dict(type='FPNPixelDecoder')))
train_dataloader = dict(
    batch_size=batch_size,
    sampler=dict(family_starts=dict(relation=2, change=image_epochs, order=image_epochs)))
# No validation.
train_cfg = dict(max_epochs=max_epochs, val_begin=max_epochs + 1)
val_dataloader = dict(dataset=dict(indices=1))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', power=1., by_epoch=True, begin=0, end=max_epochs, eta_min=0., convert_to_iter_based=True),
]
custom_hooks = [*_base_.custom_hooks[:-1], {**_base_.custom_hooks[-1], 'switch_epoch': image_epochs}]
# The last checkpoint counts, not the best: every variant gets the same number of updates.
default_hooks = dict(checkpoint=dict(save_best=None))
# A second metric: the paper's Figure 4.
test_evaluator = [
    dict(type='JFMetric', max_table_videos=0),
    dict(type='TemporalStabilityMetric'),
]
