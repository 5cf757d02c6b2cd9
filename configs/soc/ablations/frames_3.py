# Paper Table 7, 3 frames per training clip (the base has 8, 59.2 J&F): 57.9 J&F.
_base_ = '../soc_swin-t_ytvos.py'

num_frames = 3
train_dataloader = dict(dataset=dict(clip_sampler=dict(num_frames=num_frames)))
