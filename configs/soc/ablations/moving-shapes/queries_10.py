# Table 6: 10 queries, where the full network has 25.
_base_ = './base.py'

num_queries = 10
model = dict(sim=dict(num_queries=num_queries, cluster=dict(num_queries=num_queries)))
