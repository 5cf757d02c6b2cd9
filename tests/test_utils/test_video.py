"""The one reader of videos: frames, times, faults and what else than files it opens."""

import errno
import io
from fractions import Fraction

import av
import numpy as np
import pytest

from mmsoc.utils.errors import UserError
from mmsoc.utils.video import NoVideoStreamError, VideoError, VideoReader, duration_of, time_of, upright_pixels
from tests.test_apis.tiny_videos import cut, frame_pixels, level, read_video, write_sound, write_video


def break_frame(path, index):
    """Overwrites the data of a frame, but not the container's."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    place, size = packets[index]
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    return path


def levels(frames):
    return [level(upright_pixels(frame)) for frame in frames]


def test_frames_and_their_times(tmp_path):
    path = write_video(tmp_path / 'a.mp4', rate=10)
    expected, _ = read_video(path)
    with VideoReader(path) as video:
        assert (video.fps, video.duration, video.declared_frames, video.size) == (10, Fraction(6, 10), 6, (48, 64))
        frames = list(video.frames())
    assert all(np.array_equal(upright_pixels(frame), pixels) for frame, pixels in zip(frames, expected, strict=True))
    assert [time_of(frame) for frame in frames] == [Fraction(t, 10) for t in range(6)]
    assert [duration_of(frame) for frame in frames] == [Fraction(1, 10)] * 6


def test_more_threads_give_the_same_frames(tmp_path):
    path = write_video(tmp_path / 'a.mp4', length=20)
    expected, _ = read_video(path)
    with VideoReader(path, frame_threads=True) as video:
        found = [upright_pixels(frame) for frame in video.frames()]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_some_frames(tmp_path):
    path = write_video(tmp_path / 'a.mp4', length=9)
    expected, _ = read_video(path)
    with VideoReader(str(path)) as video:
        times = video.frame_times()
        assert len(times) == 9
        found = video.pixels_at([times[7], times[2], times[7]])
        assert video.pixels_at([times[0]]).keys() == {times[0]}  # also backwards
    assert found.keys() == {times[2], times[7]}
    assert np.array_equal(found[times[2]], expected[2]) and np.array_equal(found[times[7]], expected[7])


def test_a_broken_frame(tmp_path):
    path = break_frame(write_video(tmp_path / 'a.mp4'), 3)
    count = 0
    with VideoReader(path) as video, pytest.raises(VideoError, match=r'a\.mp4 cannot be read as a video: ') as error:
        for _ in video.frames():
            count += 1
    assert count == 3 and error.value.reason and error.value.reason in error.value.detail
    with VideoReader(path) as video:
        assert levels(video.frames(skip_broken=True)) == [0, 1, 2, 4, 5]
        assert (video.failed, video.corrupt, video.discarded, video.broke_off) == (1, 0, 0, None)


def test_a_source_that_breaks_off(tmp_path):
    """As a connection does: what was read before is decoded, and the reason is kept."""

    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 0.6 * self.getbuffer().nbytes:
                raise ConnectionResetError(errno.ECONNRESET, 'Connection reset by peer')
            return super().read(min(size, 512))

        def seekable(self):
            return False

    path = write_video(tmp_path / 'a.mkv', length=20, size=(480, 640), codec='mjpeg', pix_fmt='yuvj420p')
    content = path.read_bytes()
    with VideoReader(Broken(content), format='matroska') as video:
        found = levels(video.frames(skip_broken=True))
        assert (video.failed, video.broke_off) == (1, 'Connection reset by peer')
    assert found == list(range(len(found))) and 8 < len(found) < 16
    with VideoReader(Broken(content)) as video, pytest.raises(VideoError, match='Connection reset by peer'):
        list(video.frames())
    with pytest.raises(VideoError, match='Connection reset by peer'):
        VideoReader(Broken(content[:1000]))


def test_a_pipe(tmp_path):
    """A file object, with a format that cannot be told from its name."""
    path = write_video(tmp_path / 'a.mjpeg', codec='mjpeg', pix_fmt='yuvj420p')
    with path.open('rb') as file, VideoReader(file, format='mjpeg', options=dict(framerate='5')) as video:
        assert video.fps == 5 and levels(video.frames()) == list(range(6))


def test_what_cannot_be_opened(tmp_path):
    path = tmp_path / 'a.mp4'
    with pytest.raises(VideoError, match=r'a\.mp4 cannot be read as a video: No such file') as error:
        VideoReader(path)
    assert isinstance(error.value, UserError)
    path.write_bytes(b'no video')
    with pytest.raises(VideoError, match=r'a\.mp4 cannot be read as a video: Invalid data') as error:
        VideoReader(path)
    assert error.value.reason == 'Invalid data found when processing input' and str(path) in error.value.detail
    with pytest.raises(VideoError, match=r"a\.mp4 cannot be read as a video: .*'no_such'"):
        VideoReader(path, format='no_such')
    with pytest.raises(VideoError):
        VideoReader(cut(write_video(path)))  # its index is missing
    with pytest.raises(NoVideoStreamError, match=r"sound\.mp4 holds no video, only the streams \['audio'\]"):
        VideoReader(write_sound(tmp_path / 'sound.mp4'))


def test_the_cover_of_music_is_no_video(tmp_path):
    path = tmp_path / 'song.mp4'
    with av.open(str(path), 'w') as container:
        sound = container.add_stream('aac', rate=16000)
        cover = container.add_stream('mjpeg')
        cover.height, cover.width, cover.pix_fmt = 48, 64, 'yuvj420p'
        cover.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format='fltp', layout='mono')
        silence.sample_rate, silence.pts = 16000, 0
        container.mux([*sound.encode(silence), *sound.encode()])
        frame = av.VideoFrame.from_ndarray(frame_pixels((48, 64)), format='rgb24')
        container.mux([*cover.encode(frame), *cover.encode()])
    with pytest.raises(NoVideoStreamError, match=r"holds no video, only the streams \['audio', 'video'\]"):
        VideoReader(path)


def test_frames_without_times(tmp_path):
    path = tmp_path / 'a.h264'
    write_video(path)
    with VideoReader(path) as video, pytest.raises(VideoError, match='its frames are not told apart by their time'):
        video.frame_times()
