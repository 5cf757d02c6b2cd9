# Parameters, gradients and optimizer state are spread over the GPUs (PyTorch's FSDP) instead of copied to each.
_base_ = './soc_swin-b_ytvos.py'

runner_type = 'FlexibleRunner'
strategy = dict(
    type='mmsoc.FSDPStrategy',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel',
        auto_wrap_policy='mmsoc.wrap_layers',
        use_orig_params=True),  # the backbone has a learning rate of its own, and RoBERTa none
    state_dict_cfg='full')  # checkpoints as of other runs: tools/test.py reads them
# The gradient is clipped by its whole norm, not by that of a process's part.
optim_wrapper = dict(type='ShardedOptimWrapper')
