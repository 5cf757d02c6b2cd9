"""What several tests need: samples made on the spot, small text encoders, small models."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample, TrackDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from mmsoc.registry import TASK_UTILS

TINY_ROBERTA = dict(
    vocab_size=1000,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=66,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


@TASK_UTILS.register_module(force=True)
class FixedTokenizer:
    """Ids that were written down: the sentence is the row's number."""

    def __init__(self, *, rows: Sequence[Sequence[int]]) -> None:
        self.rows = rows

    def __call__(self, texts: Sequence[str]) -> dict:
        return dict(input_ids=[list(self.rows[int(text)]) for text in texts])


def make_sample(
    size: tuple[int, int],
    texts: Sequence[str],
    masks: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    visible: Sequence[bool] | None = None,
    label: int = 0,
    num_frames: int | None = None,
    padded: tuple[int, int] | None = None,
    ori_shape: tuple[int, int] | None = None,
) -> TrackDataSample:
    """A sample as the pipeline and the preprocessor make it.

    Args:
        size: (h, w) of the clip without padding.
        texts: its sentences.
        masks: (T, h, w); None: a test sample.
        boxes: (T, 4) xyxy in pixels; None: from the masks.
        visible: (T,); None: from the masks.
        padded: (H, W) of the batch.
    """
    num_frames = len(masks) if masks is not None else num_frames
    frames = []
    for t in range(num_frames):
        frame = DetDataSample(
            metainfo=dict(img_shape=size, ori_shape=ori_shape or size, batch_input_shape=padded or size)
        )
        if masks is not None:
            rows, cols = np.nonzero(masks[t])
            box = (
                boxes[t]
                if boxes is not None
                else ((cols.min(), rows.min(), cols.max(), rows.max()) if len(rows) else (0, 0, 0, 0))
            )
            bitmap = BitmapMasks(masks[t][None].astype(np.uint8), *size)
            frame.gt_instances = InstanceData(
                bboxes=torch.tensor(np.asarray(box, dtype=np.float32))[None],
                labels=torch.tensor([label]),
                masks=bitmap.pad(padded) if padded else bitmap,
                visible=torch.tensor([bool(visible[t]) if visible is not None else len(rows) > 0]),
            )
            # as `LoadCategoryMaps` makes it: the only object is of the first category, and its event is the first
            frame.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(bitmap.masks.repeat(2, 0)))
        frames.append(frame)
    sample = TrackDataSample()
    sample.video_data_samples = frames
    sample.set_metainfo(dict(texts=list(texts), video_id='video'))
    return sample


def random_clip(num_frames: int, size: tuple[int, int], seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """(T, 3, h, w) noise and (T, h, w) masks of a rectangle that moves right."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn((num_frames, 3, *size), generator=generator)
    masks = np.zeros((num_frames, *size), dtype=np.uint8)
    for t in range(num_frames):
        masks[t, size[0] // 4 : size[0] // 2, 2 + 3 * t + seed : size[1] // 2 + 3 * t] = 1
    return video, masks


def stack_clips(clips: Sequence[Tensor]) -> Tensor:
    """Clips of several sizes -> (B, T, 3, H, W), zero-padded bottom and right."""
    height = max(clip.shape[-2] for clip in clips)
    width = max(clip.shape[-1] for clip in clips)
    return torch.stack(
        [torch.nn.functional.pad(clip, (0, width - clip.shape[-1], 0, height - clip.shape[-2])) for clip in clips]
    )


def offline_text_encoder(cfg) -> None:
    """Replaces a config's text encoder by a small one that needs no download; frozen or not as before."""
    cfg.text_encoder.update(
        pretrained='none', config=TINY_ROBERTA, tokenizer=dict(type='HashTokenizer', vocab_size=1000)
    )


def small_model(root, **overrides):
    """The small SOC, its random weights spread out so that queries and sentences differ, in evaluation mode."""
    from mmengine import Config

    from mmsoc.registry import MODELS

    cfg = Config.fromfile(root / 'configs' / '_base_' / 'models' / 'soc_tiny.py').model
    cfg.merge_from_dict(overrides) if hasattr(cfg, 'merge_from_dict') else cfg.update(overrides)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    for module in model.text_encoder.modules():
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight)
    return model.eval()


def spread_model(**test_cfg: Any):
    """The model of MovingShapes with weights of which scores and masks differ between queries, sentences and frames."""
    from mmengine import Config

    from mmsoc.registry import MODELS
    from tests.conftest import ROOT

    torch.manual_seed(3)
    cfg = Config.fromfile(ROOT / 'configs' / 'soc' / 'soc_tiny_moving-shapes.py').model
    cfg.test_cfg = test_cfg
    model = MODELS.build(cfg).eval()
    model.init_weights()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def set_test_cfg(model: torch.nn.Module, monkeypatch: Any, **changes: Any) -> None:
    """Other values of ``model.test_cfg`` until the test ends."""
    monkeypatch.setattr(model, 'test_cfg', replace(model.test_cfg, **changes))
