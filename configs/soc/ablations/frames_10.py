# Paper Table 7, 10 frames per training clip (the base has 8, 59.2 J&F): 59.1 J&F.
_base_ = '../soc_swin-t_ytvos.py'

num_frames = 10
train_dataloader = dict(dataset=dict(clip_sampler=dict(num_frames=num_frames)))
