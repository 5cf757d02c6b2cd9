default_scope = 'mmsoc'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    # One line every 50 iterations with losses, time per iteration and time left.
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Keeps five, as in the paper's code, and the best by the first metric of val_evaluator.
    checkpoint=dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=5, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # False: full float32. True (tools/train.py --tf32): faster on Ampere and newer, with 10-bit mantissas in products.
    tf32=dict(type='TF32Hook', enabled=False),
    # Writes nothing unless `tools/test.py --show-dir DIR` (or show_dir here) is set.
    visualization=dict(type='RVOSVisualizationHook'))

custom_hooks = [
    # Other augmentations in every epoch, and the same ones in a resumed run.
    dict(type='EpochSeedHook'),
    # Checkpoints that PyTorch >= 2.6 can load.
    dict(type='PlainCheckpointHook'),
    # A checkpoint that does not fit stops the run; allow_missing / allow_unexpected (regular expressions) make exceptions.
    dict(type='StrictLoadHook'),
]

env_cfg = dict(
    # Clips differ in size, so the search for the fastest convolution would be repeated constantly.
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # Seconds that a process waits for the others, e.g. while rank 0 computes the metrics; NCCL's default is ten minutes.
    dist_cfg=dict(backend='nccl', timeout=7200))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='RVOSLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'

# The seed of the paper's code. Ranks still draw different numbers (EpochSeedHook).
randomness = dict(seed=42)

# load_from: weights to start from; resume: also restore optimizer and epoch (tools/train.py --resume sets both).
load_from = None
resume = False
