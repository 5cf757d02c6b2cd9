# Ref-DAVIS17 val, for testing, beside the data set that a model is trained on (hence the names). Made from the archives by
# tools/dataset_converters/ref_davis17.py.

# Knobs
davis_root = '{{$MMSOC_DATA:data}}/ref-davis'
davis_scale = (640, 360)  # longest long side, short side

davis_dataloader = dict(
    batch_size=1,  # one video with all its sentences; videos are never padded
    num_workers=2,
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='RefYouTubeVOSDataset',
        data_root=davis_root,
        ann_file='meta_expressions/valid/meta_expressions.json',
        meta_file='valid/meta.json',
        data_prefix=dict(img='valid/JPEGImages', mask='valid/Annotations'),
        expected_videos=30,
        test_mode=True,
        require_masks=True,
        pipeline=[
            dict(type='LoadVideoFrames'),
            dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=davis_scale)]),
            dict(type='PackReferringInputs', drop_unseen=False),
        ]))
davis_evaluator = dict(type='RefDAVIS17Metric')
