"""A model, a video, and its prediction as a whole, with which streams are compared."""

import pytest
import torch

from tests.helpers import make_sample, spread_model

TEXTS = ['a red car', 'the dog on the left', 'a tall tree']
SIZE, ORI, LENGTH = (64, 96), (70, 101), 11


@pytest.fixture(scope='session')
def model():
    return spread_model(frames_per_pass=2 * LENGTH, output=dict(type='MasksAndLogits'))


def make_video(length=LENGTH, seed=0):
    """uint8 (T, 3, h, w)"""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length, 3, *SIZE), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope='session')
def video():
    return make_video()


def predict_whole(model, video, texts=TEXTS):
    """By ``test_step``."""
    sample = make_sample(SIZE, texts, num_frames=len(video), ori_shape=ORI)
    return model.test_step(dict(inputs=[video], data_samples=[sample]))[0]
