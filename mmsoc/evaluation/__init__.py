from .a2d_metric import A2DMetric
from .davis_metric import RefDAVIS17Metric, evaluate_folders, evaluate_sequence
from .jf_metric import JFMetric, boundary_f, mean_jf, region_similarity, subsets
from .refcoco_metric import RefCOCOMetric
from .submission import SubmissionWriter
from .temporal_stability import TemporalStabilityMetric

__all__ = [
    'A2DMetric',
    'JFMetric',
    'RefCOCOMetric',
    'RefDAVIS17Metric',
    'SubmissionWriter',
    'TemporalStabilityMetric',
    'boundary_f',
    'evaluate_folders',
    'evaluate_sequence',
    'mean_jf',
    'region_similarity',
    'subsets',
]
