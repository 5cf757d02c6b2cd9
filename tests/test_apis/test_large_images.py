import pytest
from PIL import Image

from mmsoc.apis.video_io import open_frames
from mmsoc.utils.errors import UserError


@pytest.mark.parametrize('suffix', ['.png', '.bmp'])
def test_an_image_beyond_the_limit_of_pillow(tmp_path, monkeypatch, suffix):
    """Pillow refuses more than twice as many pixels as this; its error is no OSError."""
    Image.new('L', (30, 20)).save(tmp_path / f'a{suffix}')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 299)
    for source in (tmp_path / f'a{suffix}', *([tmp_path] if suffix == '.png' else [])):
        with pytest.raises(
            UserError, match=r'the image is too large \(Image size \(600 pixels\) exceeds .*\); downscale it'
        ):
            open_frames(source)
