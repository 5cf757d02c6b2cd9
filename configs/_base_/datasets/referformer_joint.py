# Joint training of ReferFormer: pseudo-clips of RefCOCO/+/g with Ref-YouTube-VOS.
_base_ = './referformer_ytvos.py'

# Knobs
coco_root = '{{$MMSOC_DATA:data}}/coco'

clip_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadRefCOCOMasks'),
    dict(type='PseudoClip', num_frames=_base_.num_frames),
    *_base_.train_dataloader.dataset.pipeline[2:],
]

# lazy_init: ConcatDataset loads them.
_clips = dict(type='RefCOCODataset', data_root=coco_root, pipeline=clip_pipeline, lazy_init=True)

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(_clips, ann_file='refcoco/instances_refcoco_train.json', expected_sentences=120624),
            dict(_clips, ann_file='refcoco+/instances_refcoco+_train.json', expected_sentences=120191),
            dict(_clips, ann_file='refcocog/instances_refcocog_train.json', expected_sentences=80512),
            dict(_base_.train_dataloader.dataset, lazy_init=True),
        ]))
