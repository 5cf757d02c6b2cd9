from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmdet.structures import TrackDataSample
from pycocotools.mask import encode as encode_masks
from torch import Tensor

from mmsoc.structures import TextFeatures, VisualFeatures, names_of, sentences_of
from mmsoc.utils.device import to_host
from mmsoc.utils.errors import UserError

from .config import PredictionConfig
from .engine import Engine, check_finite
from .outputs import Masks, MaskSizes

if TYPE_CHECKING:
    from mmsoc.models import SOC


class _Sentence:
    """The results of one sentence, accumulated over clips."""

    def __init__(self, sample: TrackDataSample, clip: int) -> None:
        self.sample = sample
        self.clip = clip
        self.codes: list[list[dict]] = []  # T lists of Q
        self.scores: list[Tensor] = []  # (t, Q)
        self.queries: list[Tensor] = []  # (t, Q)
        self.logits: list[Tensor] = []  # (t, Q, h, w), if the output keeps them


@torch.no_grad()
def predict_clips(
    model: SOC, inputs: Tensor, data_samples: Sequence[TrackDataSample], config: PredictionConfig | None = None
) -> list[TrackDataSample]:
    """Segments the objects that each sentence names, all frames of a clip at once.

    The visual features are computed once per clip. Queries are chosen first, and only their masks are decoded.

    Args:
        model: in evaluation mode.
        inputs: (B, T, 3, H, W), normalised and zero-padded.
        data_samples: B, each with E sentences.
        config: ``model.test_cfg`` by default.

    Returns:
        The samples, with ``pred_masks`` (per sentence, per frame a COCO RLE of the original frame size), ``pred_frame_scores``
        (E, T) in [0, 1], ``pred_scores`` (E,), their mean over the frames, and ``pred_queries`` (E, T) int64, the query
        of each mask.

        With an output that keeps them also ``pred_logits``, per sentence the mask logits, float32 (T, h, w) on the CPU, at
        stride 4 (of a clip that was padded to the size of its batch: at the size of the network's input, without the padding).

        With a selector of several queries also ``pred_masks_all`` (per sentence Q RLEs of the one annotated frame) and
        ``pred_scores_all`` (E, Q); the other fields are those of the query with the highest score.

    Raises:
        UserError: ``frames_per_clip`` would cut a clip with only some frames annotated, a selector of several queries
            is used on a clip without exactly one annotated frame, or a sentence is empty or too long.
        FloatingPointError: the predictions are not finite.
    """
    config = model.test_cfg if config is None else config
    num_frames = inputs.shape[1]
    step = config.frames_per_clip or num_frames
    _check(config, num_frames, data_samples)
    texts, clip_of_sentence = sentences_of(data_samples)
    found = [_Sentence(data_samples[clip], clip) for clip in clip_of_sentence]
    with config.autocast(inputs.device):
        text = model.text_encoder(texts)
        for clips in inputs.split(step, 1):
            visual = model.extract_visual(clips, data_samples, config.backbone_of(model))
            at_once = config.sentences_at_once(visual.num_frames)
            for start in range(0, len(texts), at_once):
                of_pass = found[start : start + at_once]
                _predict(
                    model, config, visual, text.of_sentences(start, start + at_once), of_pass, tuple(inputs.shape[-2:])
                )
    _write(found, data_samples)
    return list(data_samples)


def _check(config: PredictionConfig, num_frames: int, data_samples: Sequence[TrackDataSample]) -> None:
    """Raises UserError if the config cannot predict these clips."""
    step = config.frames_per_clip or num_frames
    if step < num_frames and any('key_frames_inds' in sample for sample in data_samples):
        raise UserError(
            f'model.test_cfg.frames_per_clip={step} cuts a clip of {num_frames} frames of which only some are '
            f'annotated ({names_of(data_samples)}); set it to None'
        )
    annotated = {len(getattr(sample, 'key_frames_inds', range(num_frames))) for sample in data_samples}
    if not config.selector.single and annotated != {1}:
        raise UserError(
            f'model.test_cfg.selector={type(config.selector).__name__}: expected clips with one annotated frame '
            f'(key_frames_inds), found {", ".join(map(str, sorted(annotated)))} ({names_of(data_samples)})'
        )


def _predict(
    model: SOC,
    config: PredictionConfig,
    visual: VisualFeatures,
    text: TextFeatures,
    sentences: Sequence[_Sentence],
    input_size: tuple[int, int],
) -> None:
    """Adds the results in these frames to the sentences of a pass."""
    engine = Engine(model, text, config)
    engine.add(visual.of_sentences([sentence.clip for sentence in sentences]))
    selection = engine.select()
    (logits_MTQHW,) = engine.logits()
    made = [
        config.output(logits.flatten(0, 1), _sizes(sentence.sample, input_size))
        for logits, sentence in zip(logits_MTQHW, sentences, strict=True)
    ]
    num_queries = selection.queries.shape[-1]
    for i, (sentence, codes) in enumerate(zip(sentences, _encode(made, logits_MTQHW, sentences), strict=True)):
        sentence.codes += [codes[first : first + num_queries] for first in range(0, len(codes), num_queries)]
        sentence.scores.append(selection.scores[i])
        sentence.queries.append(selection.queries[i])
    if config.output.keeps_logits:
        for sentence, logits in zip(sentences, _to_host([masks.logits for masks in made]), strict=True):
            sentence.logits.append(logits.unflatten(0, (-1, num_queries)))


def _sizes(sample: TrackDataSample, input_size: tuple[int, int]) -> MaskSizes:
    return MaskSizes(input_size, tuple(sample[0].img_shape), tuple(sample[0].ori_shape))


def _encode(made: Sequence[Masks], logits: Tensor, sentences: Sequence[_Sentence]) -> list[list[dict]]:
    """The run-length codes of each sentence's masks; masks and finiteness check leave the device in one transfer."""
    is_finite = torch.isfinite(logits).all().view(1)
    joined = to_host(torch.cat([*(masks.masks.flatten() for masks in made), is_finite])).numpy().view(np.uint8)
    check_finite(bool(joined[-1]), 'mask logits', names_of([sentence.sample for sentence in sentences]))
    sizes = np.cumsum([masks.masks.numel() for masks in made])
    # The codes are made from column-major masks: (H, W, n) in Fortran order.
    return [
        encode_masks(part.reshape(masks.masks.shape).T)
        for part, masks in zip(np.split(joined[:-1], sizes[:-1]), made, strict=True)
    ]


def _to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors in float32 on the CPU, moved in one transfer."""
    joined = to_host(torch.cat([tensor.float().flatten() for tensor in tensors]))
    parts = joined.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _write(found: Sequence[_Sentence], data_samples: Sequence[TrackDataSample]) -> None:
    """Writes the results into the samples; the scores of all sentences leave the device at once."""
    score_MTQ = torch.stack([torch.cat(sentence.scores) for sentence in found]).cpu()
    query_MTQ = torch.stack([torch.cat(sentence.queries) for sentence in found]).cpu()
    check_finite(torch.isfinite(score_MTQ).all(), 'scores', names_of(data_samples))
    best_M = score_MTQ.mean(1).argmax(1)
    frame_scores = score_MTQ.take_along_dim(best_M[:, None, None], 2)[..., 0]
    queries = query_MTQ.take_along_dim(best_M[:, None, None], 2)[..., 0]
    for index, sample in enumerate(data_samples):
        own = [row for row, sentence in enumerate(found) if sentence.clip == index]
        best = best_M[own].tolist()
        sample.set_data(
            dict(
                pred_masks=[[of_frame[q] for of_frame in found[row].codes] for row, q in zip(own, best, strict=True)],
                pred_frame_scores=frame_scores[own],
                pred_scores=frame_scores[own].mean(1),
                pred_queries=queries[own],
            )
        )
        if found[own[0]].logits:
            sample.set_data(
                dict(pred_logits=[torch.cat(found[row].logits)[:, q] for row, q in zip(own, best, strict=True)])
            )
        if score_MTQ.shape[-1] > 1:
            sample.set_data(
                dict(pred_masks_all=[found[row].codes[0] for row in own], pred_scores_all=score_MTQ[own, 0])
            )
