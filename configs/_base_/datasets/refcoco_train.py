# The training sentences of RefCOCO, RefCOCO+ and RefCOCOg (umd), without a pipeline. lazy_init: ConcatDataset loads them.

# Knobs
coco_root = '{{$MMSOC_DATA:data}}/coco'

_part = dict(type='RefCOCODataset', data_root=coco_root, lazy_init=True)
refcoco_train = [
    dict(_part, ann_file='refcoco/instances_refcoco_train.json', expected_sentences=120624),
    dict(_part, ann_file='refcoco+/instances_refcoco+_train.json', expected_sentences=120191),
    dict(_part, ann_file='refcocog/instances_refcocog_train.json', expected_sentences=80512),
]
