# Joint training: pseudo-clips from images of RefCOCO, RefCOCO+ and RefCOCOg with Ref-YouTube-VOS, shuffled as one data
# set. Validation and test are those of Ref-YouTube-VOS, as are the knobs num_frames, scale and flip_prob.
# The original form of RefCOCO/+/g: refcoco.py.
_base_ = './ref_youtube_vos.py'

# Knobs
coco_root = '{{$MMSOC_DATA:data}}/coco'

# The released loader does not change these sentences (they are clean in the file); ours lower-cases them, as always in
# training. Flips are those of the videos, not the 0.5 of pre-training.
clip_pipeline = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadRefCOCOMasks'),
    dict(type='PseudoClip', num_frames=_base_.num_frames),
    *_base_.train_pipeline[2:],
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
