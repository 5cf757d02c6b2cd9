from .base_cluster import BaseCluster
from .simple_clusters import AverageCluster, Conv1dCluster, KMeansCluster, NoCluster
from .video_object_cluster import VideoObjectCluster

__all__ = ['AverageCluster', 'BaseCluster', 'Conv1dCluster', 'KMeansCluster', 'NoCluster', 'VideoObjectCluster']
