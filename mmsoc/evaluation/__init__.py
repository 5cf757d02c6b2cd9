from .jf_metric import JFMetric, boundary_f, mean_jf, region_similarity, subsets

__all__ = ['JFMetric', 'boundary_f', 'mean_jf', 'region_similarity', 'subsets']
