# JHMDB-Sentences, for evaluation only. A config of A2D-Sentences takes these two in place of its own: soc_swin-t_a2d_jhmdb.py.

# Knobs
jhmdb_root = '{{$MMSOC_DATA:data}}/jhmdb_sentences'
# Published scores use a randomly drawn list of 3 frames per video; the lists of MTTR and SOC differ. MTTR's
# (Apache-2.0; its repository, datasets/jhmdb_sentences/jhmdb_sentences_samples_metadata.json): put it into jhmdb_root,
# then --cfg-options test_dataloader.dataset.samples_file=jhmdb_sentences_samples_metadata.json
# None: other frames are drawn, which the report notes.
samples_file = None

jhmdb_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=False,
    worker_init_fn=dict(type='mmsoc.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='JHMDBSentencesDataset',
        data_root=jhmdb_root,
        samples_file=samples_file,
        num_frames=8,
        expected_samples=2784,
        test_mode=True,
        pipeline=[
            dict(type='LoadVideoFrames'),
            dict(type='LoadJHMDBMask'),
            dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=(576, 320))]),
            dict(type='PackReferringInputs', drop_unseen=False),
        ]))
jhmdb_evaluator = dict(type='A2DMetric', prefix='jhmdb')
