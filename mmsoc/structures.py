"""What the modules of SOC hand to each other.

Letters: B clips, M sentences (expressions), T frames, L words, N object queries, C channels, D decoder layers, K classes.
Frames are always folded behind their clip or sentence: (B, T) -> B*T, (M, T) -> M*T.
"""
from typing import NamedTuple

from torch import Tensor


class VisualFeatures(NamedTuple):
    """What does not see the text: computed once per clip."""

    fine: Tensor
    """(B*T, C_0, h, w), the backbone's stride-4 map, un-projected."""
    levels: tuple[Tensor, ...]
    """4 x (B*T, C, h, w) at strides 8, 16, 32, 64."""
    pad_masks: tuple[Tensor, ...]
    """4 x (B, h, w) bool, True where a clip was padded to the size of its batch."""
    positions: tuple[Tensor, ...]
    """4 x (B, C, h, w), 2-D positional encoding of the un-padded area."""
    image_sizes: Tensor
    """(B, 2) float, un-padded (width, height) in pixels."""
    num_frames: int
    """T"""

    def of_sentences(self, clip_of_expr: Tensor) -> 'VisualFeatures':
        """Repeats each clip for each of its sentences.

        Args:
            clip_of_expr (Tensor): (M,) int64, the clip that each sentence speaks of.
        """
        num_clips = len(self.image_sizes)
        if clip_of_expr.tolist() == list(range(num_clips)):
            return self

        def pick(folded: Tensor) -> Tensor:
            return folded.unflatten(0, (num_clips, self.num_frames))[clip_of_expr].flatten(0, 1)

        return VisualFeatures(
            fine=pick(self.fine),
            levels=tuple(map(pick, self.levels)),
            pad_masks=tuple(mask[clip_of_expr] for mask in self.pad_masks),
            positions=tuple(position[clip_of_expr] for position in self.positions),
            image_sizes=self.image_sizes[clip_of_expr],
            num_frames=self.num_frames)


class TextFeatures(NamedTuple):
    """What the text encoder makes of M sentences (paper section 3.1)."""

    words: Tensor
    """(M, L, C)"""
    pad_mask: Tensor
    """(M, L) bool, True where there is no word."""
    sentence: Tensor
    """(M, C)"""

    def of_sentences(self, start: int, stop: int) -> 'TextFeatures':
        """Sentences ``start`` to ``stop``, with the padding of all M."""
        return TextFeatures(*(part[start:stop] for part in self))


class FusedFeatures(NamedTuple):
    """Output of the multi-modal fusion (paper section 3.2)."""

    levels: tuple[Tensor, ...]
    """4 x (M*T, C, h, w)"""
    guidance: Tensor | None
    """(M, C), the textual guidance of Eq. 5; None in a prediction, where nothing reads it."""


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


class ObjectQueries(NamedTuple):
    """Output of SIM: object queries of `S` selected decoder layers."""

    layers: tuple[int, ...]
    """the S decoder layers, each in 0..D-1"""
    queries: Tensor
    """(S, M, T, N, C), frame queries enriched by the video queries."""
    video_queries: Tensor
    """(S, M, N, C)"""


class Predictions(NamedTuple):
    """What the head says of one decoder layer."""

    logits: Tensor
    """(M, T, N, K)"""
    boxes: Tensor
    """(M, T, N, 4) cxcywh in [0, 1]"""
    kernels: Tensor
    """(M, T, N, P) dynamic-convolution parameters"""
    points: Tensor
    """(M, T, N, 2), where each kernel's relative coordinates start, in pixels (x, y)"""

    def of_queries(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels (M, T, K, P) and points (M, T, K, 2) of the queries (M, T, K) int64 that are given for each frame."""
        return self.kernels.take_along_dim(queries[..., None], 2), self.points.take_along_dim(queries[..., None], 2)


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
