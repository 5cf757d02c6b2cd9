"""Reading of videos for inference; most of it is in test_inferencer.py."""

import pytest

from mmsoc.apis import video_io
from mmsoc.apis.video_io import open_frames
from tests.test_apis.tiny_videos import ONE, turn, write_video


@pytest.fixture
def said(monkeypatch):
    """What is logged."""
    messages = []
    monkeypatch.setattr(video_io, 'print_log', lambda message, **_: messages.append(message))
    monkeypatch.setattr(video_io, '_warned', set())
    return messages


def test_a_video_that_lies_askew_is_reported_once(tmp_path, said):
    """Turned by atan(1/2), 26.6 degrees: of each frame, but the video is one."""
    path = turn(write_video(tmp_path / 'a.mp4'), (ONE, ONE // 2, 0, -ONE // 2, ONE, 0, 0, 0, 1 << 30))
    found = open_frames(path)
    assert found.size == (48, 64) and len(list(found.read())) == 6
    assert said == [f'{path}: marked as turned by -26 degrees; it is turned by the nearest multiple of 90']
