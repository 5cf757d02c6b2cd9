from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models.mot.base import BaseMOTModel
from mmdet.structures import TrackDataSample
from torch import Tensor, nn

from mmsoc.inference import PredictionConfig, predict_clips
from mmsoc.registry import MODELS
from mmsoc.structures import (
    FrameOutputs,
    FrameQueries,
    FusedFeatures,
    ObjectQueries,
    Predictions,
    TextFeatures,
    VisualFeatures,
    names_of,
    sentences_of,
)
from mmsoc.utils.device import to_device

from .batch import key_frames, pad_masks, targets_of
from .layers.positional_encoding import MapPositions
from .loss_monitor import LossMonitor


@MODELS.register_module()
class SOC(BaseMOTModel):
    """Semantic-assisted Object Cluster for referring video object segmentation (NeurIPS 2023, Fig. 2).

    The path is extract -> fuse -> aggregate -> integrate -> head. `extract_visual` does not depend on the text and runs
    once per clip; `run_frames` processes frames independently and `run_video` across frames, each for a batch of M
    sentences. `mmsoc.inference` decides which frames they see in a prediction, and what happens to the masks.

    Args:
        backbone: maps (B, T, 3, H, W) to four maps (B*T, C_i, h_i, w_i) at strides 4, 8, 16, 32: `VideoSwin`, or an image
            backbone within `FrameBackbone`.
        neck: ``mmdet.ChannelMapper`` of the last three to C channels and a fourth level at stride 64.
        positional_encoding: ``mmdet.SinePositionalEncoding``.
        text_encoder: `RobertaTextEncoder`.
        fusion: `MMF`.
        sim: `SIM`.
        head: `DynamicMaskHead`.
        criterion: `ClipCriterion`.
        auxiliary_heads: heads for training only, e.g. `FusionMaskHead`, `CategoryMapHead`. None by default.
        test_cfg: the fields of `PredictionConfig`.
        data_preprocessor: `ClipDataPreprocessor`.

    Raises:
        UserError: an unknown key or a value out of range in ``test_cfg``.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict,
        positional_encoding: dict,
        text_encoder: dict,
        fusion: dict,
        sim: dict,
        head: dict,
        criterion: dict,
        auxiliary_heads: Sequence[dict] = (),
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.positional_encoding = MODELS.build(positional_encoding)
        self.text_encoder = MODELS.build(text_encoder)
        self.fusion = MODELS.build(fusion)
        self.sim = MODELS.build(sim)
        self.head = MODELS.build(head)
        self.criterion = MODELS.build(criterion)
        self.auxiliary_heads = nn.ModuleList(MODELS.build(head) for head in auxiliary_heads)
        self.test_cfg = PredictionConfig.from_dict(test_cfg)
        self.test_cfg.layer_of(self.sim.num_layers)
        self._positions = MapPositions()
        self._monitor = LossMonitor()

    # ------------------------------------------------------------------------------------------------ the steps

    def extract_visual(
        self,
        inputs: Tensor,
        data_samples: Sequence[TrackDataSample],
        backbone: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
    ) -> VisualFeatures:
        """Backbone, channel projections, padding and positions of B clips.

        If only some frames are annotated (``key_frames_inds``), all frames go through the backbone, but only those
        continue.

        Args:
            inputs: (B, T, 3, H, W), normalised and zero-padded to the size of the largest clip.
            data_samples: B; ``img_shape`` of their frames determines the padding.
            backbone: replaces the model's, e.g. a compiled one.
        """
        num_clips, num_frames, _, height, width = inputs.shape
        outputs = (self.backbone if backbone is None else backbone)(inputs)
        kept = key_frames(data_samples, num_frames)
        if kept is not None:
            rows = to_device((torch.arange(num_clips)[:, None] * num_frames + kept).flatten(), inputs.device)
            outputs = tuple(output.index_select(0, rows) for output in outputs)
            num_frames = kept.shape[1]
        levels = tuple(self.neck(outputs[1:]))
        sizes = [tuple(sample[0].img_shape) for sample in data_samples]
        fine_padding: Tensor | None = None
        padding: tuple[Tensor, ...] | None = None
        if any(size != (height, width) for size in sizes):
            shapes = [level.shape[-2:] for level in (outputs[0], *levels)]
            masks = pad_masks(sizes, (height, width), shapes, inputs.device)
            fine_padding, padding = masks[0], masks[1:]
        return VisualFeatures(
            fine=outputs[0],
            levels=levels,
            pad_masks=padding,
            positions=self._positions(self.positional_encoding, levels, padding),
            image_sizes=to_device(torch.tensor([(w, h) for h, w in sizes], dtype=torch.float32), inputs.device),
            num_frames=num_frames,
            fine_pad_mask=fine_padding,
        )

    def fuse(self, visual: VisualFeatures, text: TextFeatures, with_guidance: bool = True) -> FusedFeatures:
        """Multi-modal fusion; ``visual`` is already repeated for the M sentences (`VisualFeatures.of_sentences`)."""
        return self.fusion(
            visual.levels, text.words, text.pad_mask, visual.pad_masks, visual.positions, with_guidance=with_guidance
        )

    def aggregate(self, visual: VisualFeatures, fused: FusedFeatures, sentence: Tensor) -> FrameQueries:
        """SIM's frame level; the head's box branches refine its references."""
        return self.sim.aggregate(
            fused.levels, visual.pad_masks, visual.positions, self.head.box_branches, visual.num_frames, sentence
        )

    def run_frames(self, visual: VisualFeatures, text: TextFeatures, with_guidance: bool = True) -> FrameOutputs:
        """All frame-level steps: fusion, SIM's frame level, mask features.

        Args:
            visual: already repeated for the M sentences.
            text: of the M sentences.
            with_guidance: whether the fusion computes the textual guidance, which only the losses use.
        """
        fused = self.fuse(visual, text, with_guidance)
        queries = self.aggregate(visual, fused, text.sentence)
        return FrameOutputs(fused, queries, self.head.mask_features(queries.memory, visual, text))

    def run_video(
        self,
        queries: FrameQueries,
        sentence: Tensor,
        image_sizes: Tensor,
        layers: Sequence[int],
        video_layers: Sequence[int],
        seen: Tensor | None = None,
    ) -> tuple[ObjectQueries, Predictions]:
        """All steps across frames: SIM's cluster, and the head except for masks.

        Args:
            queries: of all frames.
            sentence: (M, C).
            image_sizes: (M, 2), un-padded (width, height) in pixels.
            layers: the S decoder layers that predict.
            video_layers: for each of them, the layer whose frame queries are clustered.
            seen: (M, F, N, C), frame queries to cluster instead of those of ``queries``.
        """
        objects = self.sim.integrate(queries, sentence, layers, video_layers, seen)
        return objects, self.head(objects, queries, image_sizes)

    # ------------------------------------------------------------------------------------------------ MMEngine's modes

    def loss(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], **kwargs) -> dict[str, Tensor]:
        """Losses of a batch (Eq. 9); a clip may have several sentences, each with its object in ``gt_instances``.

        Raises:
            FloatingPointError: a prediction or a loss is not finite; names the iteration, videos and sentences.
            UserError: a sentence is empty or too long.
        """
        layers = range(self.sim.num_layers)
        of_clips, frames, objects, predictions = self._run(inputs, data_samples, layers, layers)
        targets = targets_of(data_samples, inputs)
        losses = self.criterion(
            predictions,
            objects.video_queries,
            frames.fused.guidance,
            frames.mask_features,
            self.head.decode_masks,
            targets,
        )
        for head in self.auxiliary_heads:
            losses |= head.loss(of_clips, frames.fused, targets, data_samples)
        suspects = {
            'class logits': predictions.logits,
            'boxes': predictions.boxes,
            'mask kernels': predictions.kernels,
            'mask features': frames.mask_features,
        }
        self._monitor.check(losses, suspects, names_of(data_samples))
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """The sum of all losses, and the logged values, without waiting for numbers that `loss` has already read."""
        return self._monitor.parse(losses) or super().parse_losses(losses)

    def predict(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], **kwargs) -> list[TrackDataSample]:
        """Segments the object of each sentence as set by ``test_cfg``; see `predict_clips`."""
        return predict_clips(self, inputs, data_samples)

    def _forward(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], **kwargs) -> list[dict[str, Tensor]]:
        """Raw outputs, without choosing a query (mode ``'tensor'``).

        Returns:
            Per decoder layer in training, of the predicting layer alone in evaluation: ``logits`` (M, T, N, K), ``boxes``
            (M, T, N, 4), ``masks`` (M, T, N, h, w) at stride 4, ``video_queries`` (M, N, C) and ``guidance`` (M, C).
        """
        every = range(self.sim.num_layers)
        layers, video_layers = (every, every) if self.training else ([self.test_cfg.layer_of(len(every))], every[-1:])
        _, frames, objects, predictions = self._run(inputs, data_samples, layers, video_layers)
        return [
            dict(
                logits=prediction.logits,
                boxes=prediction.boxes,
                masks=self.head.decode_masks(frames.mask_features, prediction.kernels, prediction.points),
                video_queries=video_queries,
                guidance=frames.fused.guidance,
            )
            for prediction, video_queries in zip(
                map(predictions.of_layer, range(len(layers))), objects.video_queries, strict=True
            )
        ]

    def _run(
        self,
        inputs: Tensor,
        data_samples: Sequence[TrackDataSample],
        layers: Sequence[int],
        video_layers: Sequence[int],
    ) -> tuple[VisualFeatures, FrameOutputs, ObjectQueries, Predictions]:
        """The whole path, for all sentences of a batch at once; returns the clips' visual features as well."""
        texts, clip_of_sentence = sentences_of(data_samples)
        of_clips = self.extract_visual(inputs, data_samples)
        visual = of_clips.of_sentences(clip_of_sentence)
        text = self.text_encoder(texts)
        frames = self.run_frames(visual, text)
        objects, predictions = self.run_video(frames.queries, text.sentence, visual.image_sizes, layers, video_layers)
        return of_clips, frames, objects, predictions
