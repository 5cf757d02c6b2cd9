# ReferFormer, Video-Swin-T, A2D-Sentences from scratch (authors' README: overall IoU 72.3, mean IoU 64.1, mAP 48.6): without drop-out
# behind backbone and text encoder, with a smaller weight decay, clips of 6 frames.
_base_ = [
    '../_base_/models/referformer_video-swin-t.py',
    '../_base_/datasets/referformer_a2d.py',
    '../_base_/schedules/schedule_referformer_12e.py',
    '../_base_/default_runtime.py',
]

# Knobs
num_frames = 6
_layer = dict(self_attn_cfg=dict(dropout=0.), ffn_cfg=dict(ffn_drop=0.))
_layer_with_cross = dict(cross_attn_cfg=dict(dropout=0.), **_layer)

model = dict(
    data_preprocessor=dict(test_pad_size_divisor=32),
    sim=dict(encoder=dict(layer_cfg=_layer), decoder=dict(layer_cfg=_layer_with_cross)),
    head=dict(pixel_decoder=dict(layer_cfg=_layer_with_cross)),
    # Mean average precision is of all queries; masks as in the released evaluation.
    test_cfg=dict(selector=dict(type='AllQueries'), output=dict(type='A2DMasks')))
train_dataloader = dict(batch_size=1, dataset=dict(num_frames=num_frames))
val_dataloader = dict(dataset=dict(num_frames=num_frames))
test_dataloader = dict(dataset=dict(num_frames=num_frames))
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
