from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmsoc.structures import FrameQueries, TextFeatures, VisualFeatures

from .config import PredictionConfig
from .features import FeaturesInMemory, FeatureStore
from .memory import KeptFrames
from .selectors import RunningScores, Selection

if TYPE_CHECKING:  # the network predicts through this package
    from mmsoc.models import SOC


class Engine:
    """Predicts M sentences together, on frames that arrive in chunks.

    All predictions run through this class: `add` runs the frame level of a chunk, `select` runs the cluster over all
    frames and chooses queries, `logits` decodes their masks::

        engine = Engine(model, text, config)
        engine.add(visual)                  # a whole clip is one chunk, a stream has many
        selection = engine.select()
        for logits in engine.logits():      # (M, t, Q, h, w), a chunk at a time
            ...

    With ``causal=True`` the three are called for each chunk in turn: a selection covers the frames since the last one,
    the cluster also sees the earlier frames that ``config.memory`` keeps, and the selector sees the scores of all
    frames so far.

    Args:
        model: in evaluation mode.
        text: of the M sentences.
        config: how to predict.
        store: holds mask features between `add` and `logits`.
        causal: whether masks are returned before all frames have been seen.
    """

    def __init__(
        self,
        model: SOC,
        text: TextFeatures,
        config: PredictionConfig,
        store: FeatureStore | None = None,
        causal: bool = False,
    ) -> None:
        self.model = model
        self.config = config
        self._text = text
        self._store = FeaturesInMemory() if store is None else store
        self._causal = causal
        self._layer, self._clustered = config.layer_of(model.sim.num_layers), model.sim.num_layers - 1
        self._pending: list[FrameQueries] = []
        self._image_sizes: Tensor | None = None
        self._chosen: tuple[Tensor, Tensor] | None = None  # kernels (M, T, Q, P) and points (M, T, Q, 2)
        self._remembered: KeptFrames | None = None
        self._so_far: RunningScores | None = RunningScores(torch.zeros(()), 0) if causal else None

    def add(self, visual: VisualFeatures) -> None:
        """Takes the next frames.

        Args:
            visual: already repeated for the M sentences (`VisualFeatures.of_sentences`).
        """
        if self._chosen is not None:
            self._store.clear()
            self._chosen = None
        frames = self.model.run_frames(visual, self._text, with_guidance=False)
        self._store.append(frames.mask_features)
        self._pending.append(self._kept(frames.queries))
        self._image_sizes = visual.image_sizes

    def select(self) -> Selection:
        """Chooses the queries of the frames since the last call."""
        queries = _joined(self._pending)
        self._pending = []
        seen = None
        if self._causal:
            self._remembered = self.config.memory.update(self._remembered, queries.queries[self._clustered])
            seen = self._remembered.queries
        assert self._image_sizes is not None
        _, predictions = self.model.run_video(
            queries, self._text.sentence, self._image_sizes, [self._layer], [self._clustered], seen
        )
        prediction = predictions.of_layer(0)
        if self._so_far is not None:
            self._so_far = self._so_far.add(prediction.logits)
        selection = self.config.selector(prediction.logits, self._so_far)
        self._chosen = prediction.of_queries(selection.queries)
        return selection

    def logits(self) -> Iterator[Tensor]:
        """Mask logits (M, t, Q, h, w) at stride 4 of the selected queries, chunk by chunk. Can be read repeatedly."""
        assert self._chosen is not None, 'select() comes first'
        kernels, points = self._chosen
        start = 0
        for features in self._store:
            stop = start + len(features) // len(kernels)
            yield self.model.head.decode_masks(features, kernels[:, start:stop], points[:, start:stop])
            start = stop

    def _kept(self, frame: FrameQueries) -> FrameQueries:
        """Drops the maps, and the queries of decoder layers that are not used (they become empty)."""
        needed = (self._layer, self._clustered)
        queries = tuple(layer if i in needed else layer[..., :0] for i, layer in enumerate(frame.queries))
        return frame._replace(memory=(), queries=queries)


def check_finite(finite: Tensor | bool, what: str, source: str = '') -> None:
    """
    Args:
        finite: of one element; the host waits for it.
        what: which predictions, for the message.
        source: videos and sentences, for the message.

    Raises:
        FloatingPointError: not ``finite``.
    """
    if not finite:
        raise FloatingPointError(
            f'the {what} are not finite{f" ({source})" if source else ""}; do the weights fit the config, and does '
            'model.test_cfg.precision=fp32 help?'
        )


def _joined(chunks: Sequence[FrameQueries]) -> FrameQueries:
    """Concatenates chunks of one video."""
    if len(chunks) == 1:
        return chunks[0]
    return FrameQueries(
        memory=(),
        queries=tuple(torch.cat(layers, 1) for layers in zip(*(chunk.queries for chunk in chunks), strict=True)),
        initial_reference=torch.cat([chunk.initial_reference for chunk in chunks], 1),
        references=torch.cat([chunk.references for chunk in chunks], 2),
    )
