from .clusters import AverageCluster, BaseCluster, Conv1dCluster, KMeansCluster, NoCluster, VideoObjectCluster
from .sim import SIM

__all__ = ['SIM', 'AverageCluster', 'BaseCluster', 'Conv1dCluster', 'KMeansCluster', 'NoCluster', 'VideoObjectCluster']
