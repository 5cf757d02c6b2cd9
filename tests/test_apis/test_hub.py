"""The layout of the Hugging Face Hub."""

import json

import numpy as np
import pytest
import torch

from mmsoc.apis import SOCInferencer
from mmsoc.apis.hub import WEIGHTS
from mmsoc.version import __version__
from tests.test_engine.small_soc import TEXTS


def test_there_and_back(infer, tmp_path):
    infer.save_pretrained(tmp_path / 'folder')
    assert sorted(path.name for path in (tmp_path / 'folder').iterdir()) == ['README.md', 'config.json', WEIGHTS]
    assert json.loads((tmp_path / 'folder' / 'config.json').read_text()) == {'mmsoc_version': __version__}
    card = (tmp_path / 'folder' / 'README.md').read_text()
    assert 'library_name: mmsoc' in card and 'arxiv.org/abs/2305.17011' in card
    again = SOCInferencer.from_pretrained(tmp_path / 'folder', device='cpu', show_progress=False)
    for name, value in infer.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    frames = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), np.uint8)
    results = [one(frames, TEXTS[0])['predictions']['sentences'][0] for one in (infer, again)]
    assert results[0] == results[1]


def test_a_config_of_one_s_own(infer, config, tmp_path):
    infer.save_pretrained(tmp_path)
    again = SOCInferencer.from_pretrained(tmp_path, config=str(config), device='cpu')
    assert again.loaded.config == str(config)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'{WEIGHTS}: there is no such file'):
        SOCInferencer.from_pretrained(tmp_path)
