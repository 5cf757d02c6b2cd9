# For tools/test.py: the masks of a model (soc_swin-t_mevis.py) on MeViS valid, packed for the evaluation server, which has the true
# ones.  tools/analysis_tools/validate_submission.py checks the archive.
_base_ = './soc_swin-t_mevis.py'

# Knobs
zip_file = 'work_dirs/soc_swin-t_mevis_submission/mevis_valid.zip'

test_dataloader = dict(
    dataset=dict(
        ann_file='valid/meta_expressions.json',
        mask_file=None,
        data_prefix=dict(img='valid/JPEGImages'),
        expected_videos=140,
        require_masks=False))
test_evaluator = dict(_delete_=True, type='SubmissionWriter', zip_file=zip_file, layout='mevis')
