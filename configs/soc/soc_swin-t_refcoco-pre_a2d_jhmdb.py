# Tests the model of soc_swin-t_refcoco-pre_a2d.py on JHMDB-Sentences, on which nothing is trained.
# Knob: which frames are evaluated (_base_/datasets/jhmdb_sentences.py): --cfg-options test_dataloader.dataset.samples_file=FILE
_base_ = ['./soc_swin-t_refcoco-pre_a2d.py', '../_base_/datasets/jhmdb_sentences.py']

test_dataloader = dict(_delete_=True, **_base_.jhmdb_dataloader)
test_evaluator = dict(_delete_=True, **_base_.jhmdb_evaluator)
