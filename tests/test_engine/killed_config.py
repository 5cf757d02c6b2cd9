_base_ = ['./toy_config.py']
custom_imports = dict(imports=['killed_run'], allow_failed_imports=False)

# 40 MiB per file, three files an epoch, which has two iterations.
model = dict(type='HeavyToyModel', megabytes=40)
train_dataloader = dict(batch_size=4, num_workers=0)
val_evaluator = dict(type='RisingMetric')
train_cfg = dict(max_epochs=1000)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1), logger=dict(interval=1000), report=dict(type='ReportHook'))
log_level = 'ERROR'
