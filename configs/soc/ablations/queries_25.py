# Paper Table 6, 25 queries per frame and per video (the base has 20, 59.2 J&F): 58.5 J&F.
_base_ = '../soc_swin-t_ytvos.py'

num_queries = 25
model = dict(sim=dict(num_queries=num_queries, cluster=dict(num_queries=num_queries)))
