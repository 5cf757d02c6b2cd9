"""Why a query was chosen: what the network knows of each query of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.structures import TrackDataSample
from torch import Tensor

from mmsoc.structures import sentences_of

if TYPE_CHECKING:
    from mmsoc.models import SOC


class Inspection(NamedTuple):
    """Of one sentence, on the CPU, for T frames and N queries."""

    scores: Tensor
    """(T, N) in [0, 1]"""
    masks: Tensor
    """bool (T, N, h, w), at the stride of the masks"""
    chosen: Tensor
    """(T,) int64, the query whose mask the sentence gets"""
    attention: Tensor | None
    """(N, T), how much each video query attends to each frame in the cluster's last layer, summed over the frame's queries
    and averaged over heads; rows sum to 1. None if the cluster has no decoder."""
    similarity: Tensor | None
    """(N,), softmax over the video queries of their products with the textual guidance, as in the contrastive loss;
    None if the network was trained without it."""


@torch.no_grad()
def inspect_clips(model: SOC, inputs: Tensor, data_samples: Sequence[TrackDataSample]) -> list[Inspection]:
    """Predicts as `predict_clips`, all frames of a clip at once, and returns what it knew of each query.

    The masks of all queries are decoded: for N queries, N times the memory of a prediction's masks.

    Args:
        model: in evaluation mode.
        inputs: (B, T, 3, H, W), normalised and zero-padded.
        data_samples: B.

    Returns:
        One for each sentence of the batch.
    """
    config = model.test_cfg
    layer, last = config.layer_of(model.sim.num_layers), model.sim.num_layers - 1
    texts, clip_of_sentence = sentences_of(data_samples)
    visual = model.extract_visual(inputs, data_samples).of_sentences(clip_of_sentence)
    text = model.text_encoder(texts)
    frames = model.run_frames(visual, text)
    with _watched(model) as seen:
        objects, predictions = model.run_video(frames.queries, text.sentence, visual.image_sizes, [layer], [last])
    prediction = predictions.of_layer(0)
    logits = model.head.decode_masks(frames.mask_features, prediction.kernels, prediction.points)
    chosen = config.selector(prediction.logits, None).queries[..., 0]
    attention = _attention_to_frames(seen, visual.num_frames)
    similarity = _similarity(model, objects.video_queries[0], frames.fused.guidance)
    return [
        Inspection(
            scores=prediction.logits[index].float().sigmoid().amax(-1).cpu(),
            masks=(logits[index] > config.output.logit_threshold).cpu(),
            chosen=chosen[index].cpu(),
            attention=None if attention is None else attention[index].cpu(),
            similarity=None if similarity is None else similarity[index].cpu(),
        )
        for index in range(len(texts))
    ]


@contextmanager
def _watched(model: SOC) -> Iterator[dict[str, Any]]:
    """What the cluster's last cross-attention was called with."""
    seen: dict[str, Any] = {}
    decoder = getattr(model.sim.cluster, 'decoder', None)
    if decoder is None:
        yield seen
        return
    module = decoder.layers[-1].cross_attn
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs, attention=module.attn), with_kwargs=True
    )
    try:
        yield seen
    finally:
        handle.remove()


def _attention_to_frames(seen: dict[str, Any], num_frames: int) -> Tensor | None:
    """(M, N, T)."""
    if not seen:
        return None
    attention = seen['attention']
    query, key = seen['query'] + seen['query_pos'], seen['key'] + seen['key_pos']
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k = (
        F.linear(x, weight, bias).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2).float()
        for x, weight, bias in zip((query, key), weights[:2], biases[:2], strict=True)
    )
    shares = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1).mean(1)
    return shares.unflatten(-1, (num_frames, -1)).sum(-1)


def _similarity(model: SOC, video_queries: Tensor, guidance: Tensor | None) -> Tensor | None:
    """(M, N)."""
    loss = model.criterion.loss_contrastive
    if loss is None or guidance is None:
        return None
    return loss.similarity(video_queries.float(), guidance.float()).softmax(-1)
