"""mmdet's transformer layers, made available to configs.

They are in no registry of mmdet's, so ``type='mmdet.DeformableDetrTransformerEncoder'`` cannot be built; the unmodified classes
are registered here under their own names.
"""
from mmdet.models.layers import (
    DeformableDetrTransformerDecoder,
    DeformableDetrTransformerEncoder,
    DetrTransformerEncoder,
    Mask2FormerTransformerDecoder,
)

from mmsoc.registry import MODELS

for layer in (DeformableDetrTransformerEncoder, DeformableDetrTransformerDecoder, DetrTransformerEncoder,
              Mask2FormerTransformerDecoder):
    MODELS.register_module(module=layer)
