from .drawing import add_caption, add_legend, contact_sheet, distinct_colors, draw_box, enlarge, overlay_mask
from .local_visualizer import RVOSLocalVisualizer
from .video_writer import VideoWriter, write_video

__all__ = [
    'RVOSLocalVisualizer',
    'VideoWriter',
    'add_caption',
    'add_legend',
    'contact_sheet',
    'distinct_colors',
    'draw_box',
    'enlarge',
    'overlay_mask',
    'write_video',
]
