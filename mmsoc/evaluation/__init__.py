from .jf_metric import JFMetric, boundary_f, region_similarity

__all__ = ['JFMetric', 'boundary_f', 'region_similarity']
