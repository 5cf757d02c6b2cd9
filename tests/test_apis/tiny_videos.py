"""Videos made on the spot, whose every frame says which one it is and how it lies."""

import struct
from fractions import Fraction

import av
import numpy as np

ONE = 0x10000
# The display matrix of MP4: x' = a x + c y, y' = b x + d y, each row with a third number that is not used.
TURNED = dict(
    clockwise=(0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
    counterclockwise=(0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
    upside_down=(-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30),
    mirrored=(-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30),
    transposed=(0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
)


def frame_pixels(size, index=0):
    """Grey, brighter from frame to frame, with a red upper left and a blue upper right quarter: uint8 (H, W, 3)."""
    height, width = size
    pixels = np.full((height, width, 3), 40 + 8 * index, np.uint8)
    pixels[: height // 2, : width // 2] = 230, 20, 20
    pixels[: height // 2, width - width // 2 :] = 20, 20, 230
    return pixels


def level(image):
    """The index of the frame that `frame_pixels` made, from the grey of its lower half (an upright frame)."""
    return round((float(image[image.shape[0] * 3 // 4 :].mean()) - 40) / 8)


def write_video(
    path, length=6, size=(48, 64), codec='libx264', pix_fmt='yuv420p', rate=10, times=None, audio=False, faststart=False
):
    """Writes frames of `frame_pixels`, each a key frame.

    Args:
        times: at which each frame is shown, in milliseconds; None: at ``rate``.
        audio: half a second of AAC besides.
        faststart: the index at the beginning of an MP4, so that it can be read where the end is missing.
    """
    with av.open(str(path), 'w', options=dict(movflags='faststart') if faststart else {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        if codec == 'libx264':
            stream.options = dict(g='1', crf='5', bf='0')
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream('aac', rate=16000) if audio else None
        for index in range(length):
            frame = av.VideoFrame.from_ndarray(frame_pixels(size, index), format='rgb24')
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format='fltp', layout='mono')
            silence.sample_rate, silence.pts = 16000, 0
            container.mux([*sound.encode(silence), *sound.encode()])
    return path


def write_sound(path):
    with av.open(str(path), 'w') as container:
        sound = container.add_stream('aac', rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format='fltp', layout='mono')
        silence.sample_rate, silence.pts = 16000, 0
        container.mux([*sound.encode(silence), *sound.encode()])
    return path


def turn(path, matrix):
    """Writes the display matrix of a telephone's video into an MP4."""
    content = bytearray(path.read_bytes())
    place = content.index(b'tkhd') + 44  # version, times, id, duration, layer and volume come before
    content[place : place + 36] = struct.pack('>9i', *matrix)
    path.write_bytes(content)
    return path


def cut(path, share=0.6):
    """The file's first part."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def read_video(path):
    """Frames, uint8 (H, W, 3), and the stream."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.to_ndarray(format='rgb24') for frame in container.decode(stream)], stream
