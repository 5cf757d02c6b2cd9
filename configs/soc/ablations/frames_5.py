# Paper Table 7, 5 frames per training clip (the base has 8, 59.2 J&F): 58.4 J&F.
_base_ = '../soc_swin-t_ytvos.py'

num_frames = 5
train_dataloader = dict(dataset=dict(clip_sampler=dict(num_frames=num_frames)))
