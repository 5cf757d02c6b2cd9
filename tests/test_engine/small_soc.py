"""The small SOC on a data set of a few boxes, as a config file for the tools: a step takes a fraction of a second."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from tests.helpers import small_model
from tests.test_datasets.tiny_ref_youtube_vos import write_frame, write_split

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / 'configs' / '_base_'


TEXTS = ('the left box', 'a box on the right', 'what is in the middle')


def write_data(root):
    """20 training samples of 2 frames, and 7 test videos that differ in length, number of sentences and content."""
    train = {f't{i}': dict(objects={'1': [True] * 10}, sentences=[(TEXTS[i % 3], '1')]) for i in range(4)}
    valid = {}
    for i in range(7):
        length, objects = 2 + i % 4, [str(1 + (i + k) % 5) for k in range(1 + i % 3)]
        sentences = [(TEXTS[(i + k) % 3], obj_id) for k, obj_id in enumerate(objects)]
        valid[f'v{i}'] = dict(objects={obj_id: [True] * length for obj_id in objects}, sentences=sentences)
    for split, videos in (('train', train), ('valid', valid)):
        write_split(root, split, videos, size=(48, 64), meta_frames=True)
        for seed, name in enumerate(videos):
            noise = np.random.default_rng(seed)
            for path in sorted((root / split / 'JPEGImages' / name).iterdir()):
                # Blocks: noise of single pixels looks the same everywhere to a network with strides.
                write_frame(path, np.kron(noise.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))))
    return root


def write_config(path, data_root, dropout=0.0, **options):
    """Writes a config of the small SOC; ``dropout`` everywhere where the network has one."""
    names = ('models/soc_tiny', 'datasets/ref_youtube_vos', 'schedules/schedule_30e', 'default_runtime')
    source = path.with_name('source.py')
    source.write_text(f'_base_ = {[str(BASE / f"{name}.py") for name in names]}\n')
    cfg = Config.fromfile(source)
    set_dropout(cfg.model, dropout)
    cfg.model.backbone.drop_path_rate = cfg.model.text_encoder.dropout = dropout
    cfg.model.text_encoder.config.update(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    cfg.merge_from_dict(
        {
            'train_dataloader.dataset.clip_sampler.num_frames': 2,
            'train_dataloader.num_workers': 2,
            'val_dataloader.num_workers': 0,
            'test_dataloader.num_workers': 0,
            'log_processor.window_size': 1,
            'default_hooks.logger.interval': 1,
            **options,
        }
    )
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.update(data_root=str(data_root), expected_videos=None)
        for transform in loader.dataset.pipeline:
            for inner in transform.get('transforms', []):
                inner.update({'ShortSideResize': dict(scale=(64, 48)), 'mmdet.RandomFlip': dict(prob=0.5)}[inner.type])
    cfg.dump(path)
    return path


def set_dropout(node, rate):
    for key, value in node.items():
        if key in ('dropout', 'ffn_drop'):
            node[key] = rate
        elif isinstance(value, dict):
            set_dropout(value, rate)


def write_weights(path):
    """A checkpoint of random weights, spread out so that the sentences differ."""
    init_default_scope('mmsoc')
    torch.save(dict(state_dict=small_model(ROOT).state_dict()), path)
    return path
