# Table 6: 6 queries, where the full network has 15.
_base_ = './base.py'

num_queries = 6
model = dict(sim=dict(num_queries=num_queries, cluster=dict(num_queries=num_queries)))
