# Table 6: 4 queries, where the full network has 10.
_base_ = './base.py'

num_queries = 4
model = dict(sim=dict(num_queries=num_queries, cluster=dict(num_queries=num_queries)))
