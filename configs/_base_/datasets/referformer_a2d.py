# A2D-Sentences with ReferFormer's augmentation.
_base_ = ['./a2d_sentences.py', './referformer_augmentation.py']

# Knobs
num_frames = 5  # per clip, of which the one in the middle is annotated

train_dataloader = dict(dataset=dict(
    num_frames=num_frames,
    pipeline=[
        *_base_.train_pipeline[:2],
        *_base_.referformer_augmentation,
        *_base_.train_pipeline[3:],
    ]))
val_dataloader = dict(dataset=dict(num_frames=num_frames))
test_dataloader = dict(dataset=dict(num_frames=num_frames))
