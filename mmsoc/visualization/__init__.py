from .drawing import add_caption, contact_sheet, draw_box, overlay_mask
from .local_visualizer import RVOSLocalVisualizer
from .video_writer import VideoWriter

__all__ = ['RVOSLocalVisualizer', 'VideoWriter', 'add_caption', 'contact_sheet', 'draw_box', 'overlay_mask']
