# Tests the model of referformer_video-swin-b_refcoco-pre_a2d.py on JHMDB-Sentences, on which nothing is trained.
_base_ = ['./referformer_video-swin-b_refcoco-pre_a2d.py', '../_base_/datasets/jhmdb_sentences.py']

test_dataloader = dict(_delete_=True, **_base_.jhmdb_dataloader)
test_evaluator = dict(_delete_=True, **_base_.jhmdb_evaluator)
