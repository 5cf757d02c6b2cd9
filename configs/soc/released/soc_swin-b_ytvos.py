# The released implementation with Video-Swin-B: for checkpoints made by tools/model_converters/released_to_mmsoc.py.
_base_ = ['../soc_swin-b_ytvos.py', '../../_base_/models/released.py']

model = _base_.released
