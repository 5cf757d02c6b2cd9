"""Names of files: those that must stay as they are, and those that are made of any text."""

import itertools
import os

import pytest
from PIL import Image

from mmsoc.utils.errors import UserError
from mmsoc.utils.files import check_file_name, read_frame, safe_file_name


@pytest.mark.parametrize('name', ['0a1b', 'v_EadxBPmQvtg_f_1', 'car-1', 'Straße 3', '..x', '.hidden', 'x' * 255])
def test_names_that_can_be_files(name, tmp_path):
    assert check_file_name(name, 'x') == name
    (tmp_path / name).touch()
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    'name, fault',
    [
        ('', 'it is empty'),
        ('.', 'names a folder above'),
        ('..', 'names a folder above'),
        ('a/b', 'path separator'),
        ('/etc/passwd', 'path separator'),
        ('../x', 'path separator'),
        ('a\\b', 'path separator'),
        ('C:\\x', 'path separator'),
        ('a\0b', 'control character'),
        ('a\nb', 'control character'),
        ('a\x7f', 'control character'),
        ('a\x85', 'control character'),
        ('x' * 256, 'it is 256 bytes long, and a file system takes 255'),
        ('ü' * 128, 'it is 256 bytes long'),
        ('\ud800', 'not valid Unicode'),
        (3, 'it is int, not text'),
    ],
)
def test_names_that_cannot_be_files(name, fault):
    with pytest.raises(
        UserError, match='^meta.json: videos: expected a name that can be a file or folder, found '
    ) as info:
        check_file_name(name, 'meta.json: videos')
    assert fault in str(info.value)


@pytest.mark.parametrize(
    'text, name',
    [
        ('car-1_0.x', 'car-1_0.x'),
        ('a b', 'a%20b'),
        ('a/b', 'a%2fb'),
        ('..', '%2e.'),
        ('.a', '%2ea'),
        ('', '%'),
        ('aBC', 'a+B+C'),
        ('a+b', 'a%2bb'),
        ('%2f', '%252f'),
        ('ü', '%c3%bc'),
        ('\0', '%00'),
        ('\ud800', '%ed%a0%80'),
    ],
)
def test_a_file_name_of_any_text(text, name, tmp_path):
    assert safe_file_name(text) == name and check_file_name(name, 'x') == name
    (tmp_path / name).touch()
    assert os.listdir(tmp_path) == [name]


def test_different_texts_have_different_names():
    """All texts of up to four of the characters that the escape is made of, also where case does not count."""
    texts = [''.join(text) for length in range(5) for text in itertools.product('aAbB2f%+~./_', repeat=length)]
    assert len({safe_file_name(text).lower() for text in texts}) == len(texts) == sum(12**n for n in range(5))


def test_long_texts(tmp_path):
    texts = ['x' * length for length in (200, 201, 10_000)] + ['x' * 201 + 'y', 'ü' * 34, 'ü' * 33]
    names = [safe_file_name(text) for text in texts]
    assert names[0] == 'x' * 200 and names[5] == '%c3%bc' * 33
    assert len(set(names)) == len(texts) and max(map(len, names)) == 200
    assert safe_file_name('x' * 201) != safe_file_name(safe_file_name('x' * 201))


def test_an_image_beyond_the_limit_of_pillow(tmp_path, monkeypatch):
    """Pillow refuses more than twice as many pixels as this; its error is no OSError."""
    Image.new('L', (30, 20)).save(tmp_path / 'a.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 299)
    with pytest.raises(
        UserError, match=r'frame .*a\.png cannot be read \(video v\): Image size \(600 pixels\) exceeds'
    ):
        read_frame(tmp_path / 'a.png', 'video v')
