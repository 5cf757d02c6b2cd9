from .clusters import AverageCluster, BaseCluster, Conv1dCluster, KMeansCluster, NoCluster, VideoObjectCluster
from .query_content import SentenceContent, ZeroContent
from .sim import SIM

__all__ = [
    'SIM',
    'AverageCluster',
    'BaseCluster',
    'Conv1dCluster',
    'KMeansCluster',
    'NoCluster',
    'SentenceContent',
    'VideoObjectCluster',
    'ZeroContent',
]
