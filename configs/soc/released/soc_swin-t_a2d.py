# The released implementation with Video-Swin-T for A2D-Sentences: for checkpoints made by tools/model_converters/released_to_mmsoc.py.
_base_ = ['../soc_swin-t_a2d.py', '../../_base_/models/released.py']

model = _base_.released
