"""Data structures passed between the modules of SOC.

Letters: B clips, M sentences (expressions), T frames, L words, N object queries, C channels, D decoder layers, K classes.
Frames are always folded after their clip or sentence: (B, T) -> B*T, (M, T) -> M*T.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.structures import TrackDataSample
from torch import Tensor

from mmsoc.utils.device import to_device
from mmsoc.utils.errors import UserError


class VisualFeatures(NamedTuple):
    """Text-independent features, computed once per clip."""

    fine: Tensor
    """(B*T, C_0, h, w), the backbone's stride-4 map, un-projected."""
    levels: tuple[Tensor, ...]
    """4 x (B*T, C, h, w) at strides 8, 16, 32, 64."""
    pad_masks: tuple[Tensor, ...] | None
    """4 x (B, h, w) bool, True where a clip was padded to the size of its batch; None if no clip was padded."""
    positions: tuple[Tensor, ...]
    """4 x (B, C, h, w), 2-D positional encoding of the un-padded area; (1, C, h, w) if no clip was padded."""
    image_sizes: Tensor
    """(B, 2) float, un-padded (width, height) in pixels."""
    num_frames: int
    """T"""
    fine_pad_mask: Tensor | None = None
    """(B, h, w) bool at stride 4, like ``pad_masks``"""

    def of_sentences(self, clip_of_expr: Sequence[int]) -> 'VisualFeatures':
        """Repeats each clip for each of its sentences.

        Args:
            clip_of_expr: M, the clip of each sentence.
        """
        num_clips = len(self.image_sizes)
        if list(clip_of_expr) == list(range(num_clips)):
            return self
        clips = to_device(torch.tensor(clip_of_expr), self.fine.device)

        def pick(folded: Tensor) -> Tensor:
            return folded.unflatten(0, (num_clips, self.num_frames)).index_select(0, clips).flatten(0, 1)

        return VisualFeatures(
            fine=pick(self.fine),
            levels=tuple(map(pick, self.levels)),
            pad_masks=None if self.pad_masks is None else tuple(mask.index_select(0, clips) for mask in self.pad_masks),
            positions=self.positions
            if self.pad_masks is None
            else tuple(position.index_select(0, clips) for position in self.positions),
            image_sizes=self.image_sizes.index_select(0, clips),
            num_frames=self.num_frames,
            fine_pad_mask=None if self.fine_pad_mask is None else self.fine_pad_mask.index_select(0, clips),
        )


class TextFeatures(NamedTuple):
    """The text encoder's features of M sentences (paper section 3.1)."""

    words: Tensor
    """(M, L, C)"""
    pad_mask: Tensor | None
    """(M, L) bool, True for padding; None if all sentences are equally long."""
    sentence: Tensor
    """(M, C)"""

    def of_sentences(self, start: int, stop: int) -> 'TextFeatures':
        """Sentences ``start`` to ``stop``, with the padding of all M."""
        return TextFeatures(*(None if part is None else part[start:stop] for part in self))


class FusedFeatures(NamedTuple):
    """Output of the multi-modal fusion (paper section 3.2)."""

    levels: tuple[Tensor, ...]
    """4 x (M*T, C, h, w)"""
    guidance: Tensor | None
    """(M, C), the textual guidance of Eq. 5; None in a prediction, which does not need it."""


class FrameQueries(NamedTuple):
    """Output of SIM's frame-level content aggregation (paper section 3.3)."""

    memory: tuple[Tensor, ...]
    """3 x (M*T, C, h, w) at strides 8, 16, 32: the encoded maps."""
    queries: Tensor | tuple[Tensor, ...]
    """(D, M, T, N, C), every decoder layer's instance embeddings; a tuple of D where some layers were dropped."""
    initial_reference: Tensor
    """(M, T, N, 2), (x, y) in [0, 1]; carries gradient."""
    references: Tensor
    """(D, M, T, N, 4), cxcywh in [0, 1] after refinement by each layer; detached."""


class FrameOutputs(NamedTuple):
    """The network's frame-level results, before the cluster."""

    fused: FusedFeatures
    queries: FrameQueries
    mask_features: Tensor
    """(M*T, C_mask, h, w) at stride 4"""


class ObjectQueries(NamedTuple):
    """Output of SIM: object queries of `S` selected decoder layers."""

    layers: tuple[int, ...]
    """the S decoder layers, each in 0..D-1"""
    queries: Tensor
    """(S, M, T, N, C), frame queries enriched by the video queries."""
    video_queries: Tensor
    """(S, M, N, C)"""


class Predictions(NamedTuple):
    """The head's predictions for the `S` selected decoder layers."""

    logits: Tensor
    """(S, M, T, N, K)"""
    boxes: Tensor
    """(S, M, T, N, 4) cxcywh in [0, 1]"""
    kernels: Tensor
    """(S, M, T, N, P) dynamic-convolution parameters"""
    points: Tensor
    """(S, M, T, N, 2), the origin of each kernel's relative coordinates, in pixels (x, y)"""

    def of_layer(self, index: int) -> 'Predictions':
        """One of the S layers: the same tensors without their first dimension."""
        return Predictions(*(part[index] for part in self))

    def of_queries(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels (..., M, T, Q, P) and points (..., M, T, Q, 2) of the queries (..., M, T, Q) int64 given for each frame."""
        return self.kernels.take_along_dim(queries[..., None], -2), self.points.take_along_dim(queries[..., None], -2)


class ClipTargets(NamedTuple):
    """The referred object of M sentences."""

    masks: Tensor
    """(M, T, H, W) float 0 or 1, zero-padded like the input"""
    boxes: Tensor
    """(M, T, 4) cxcywh in [0, 1] of the un-padded frame; zeros where absent"""
    visible: Tensor
    """(M, T) bool"""
    labels: Tensor
    """(M,) int64 in 0..K-1"""


def sentences_of(data_samples: Sequence[TrackDataSample]) -> tuple[list[str], list[int]]:
    """All M sentences of a batch of clips, and the clip of each.

    Raises:
        UserError: a clip has no sentence.
    """
    for sample in data_samples:
        if not sample.metainfo.get('texts'):
            raise UserError(f'a sample without sentences (metainfo `texts`): {names_of([sample])}')
    texts = [text for sample in data_samples for text in sample.texts]
    return texts, [clip for clip, sample in enumerate(data_samples) for _ in sample.texts]


def names_of(data_samples: Sequence[TrackDataSample]) -> str:
    """Videos and sentences, for a message."""
    return '; '.join(
        f'video {sample.metainfo.get("video_id", "?")}: {sample.metainfo.get("texts")}' for sample in data_samples
    )
