# For recipes that start from a SOC pre-trained on the images of RefCOCO/+/g (configs/pretrain/soc_swin-*_refcoco.py).
_base_ = './default_runtime.py'

# Knobs
load_from = None  # the pre-trained SOC: --cfg-options load_from=FILE. None: the backbone's and RoBERTa's weights alone

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='StartingPointHook',
        wanted='a SOC pre-trained on RefCOCO/+/g, from which the paper fine-tunes',
        # As the authors' script does; everything else is loaded. Alternative: from_scratch=[], since the class is "referred" in both.
        from_scratch=[r'^head\.cls_branches\.']),
]
