import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from mmdet.models.mot.base import BaseMOTModel
from mmdet.structures import TrackDataSample
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.logging import MessageHub
from pycocotools.mask import encode as encode_masks
from torch import Tensor, nn

from mmsoc.models.layers.recompute import max_elements
from mmsoc.registry import MODELS
from mmsoc.structures import ClipTargets, FrameQueries, FusedFeatures, Predictions, TextFeatures, VisualFeatures
from mmsoc.utils.device import to_device, to_host
from mmsoc.utils.errors import UserError
from mmsoc.utils.precision import use_tf32

PRECISIONS = ('fp32', 'tf32', 'bf16', 'fp16')
# Iterations in a row whose losses may overflow in float16 before training stops: a scale of 65,536 takes 16 to come down to 1.
MAX_OVERFLOWS = 50
# Sizes of clips whose positions are kept, 5 MB for 360x640.
MAX_KNOWN_POSITIONS = 16


@MODELS.register_module()
class SOC(BaseMOTModel):
    """Semantic-assisted Object Cluster for referring video object segmentation (NeurIPS 2023, Fig. 2).

    The path is extract -> fuse -> integrate -> head, in methods that another program can call one by one. `extract_visual` does
    not see the text and runs once per clip; everything behind it runs on a batch of M sentences, of which ``clip_of_expr`` says
    which clip each speaks of.

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
        test_cfg: ``predict_layer``, the decoder layer whose queries predict (-1, the last: the paper; 0: the released
            implementation); ``query_per_frame``, whether each frame's mask is that of the query with the highest score there,
            instead of one query's for the whole video (False by default, as in the paper); ``frames_per_pass``, how many frames run
            at once behind the backbone, counted anew for each sentence (a clip's frames always do, so that of a long clip it is one
            sentence after the other); ``frames_per_clip``, where a longer video is cut into clips that are predicted on their own,
            each with a query of its own (None: never; the published protocol of Ref-DAVIS17 is 36); ``mask_threshold`` in (0, 1);
            ``return_logits``, whether predictions also hold ``pred_logits`` (False by default: they are large), by which
            `RefDAVIS17Metric` says whose a pixel is; ``all_queries``, whether all queries of the one annotated frame are predicted,
            as `A2DMetric` needs them (False by default; not together with ``return_logits``); ``precision`` of predictions, one of
            ``PRECISIONS`` (fp32 by default; tf32 concerns GPUs; in bf16 and fp16, PyTorch's autocast, the deformable attention's
            sampling stays in float32); ``compile``, whether the backbone runs through ``torch.compile`` (False by default).
        data_preprocessor: ``mmdet.TrackDataPreprocessor``.
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
        self._known_positions: dict[tuple, tuple[Tensor, ...]] = {}  # of clips without padding, by the levels' sizes
        self._overflows = 0  # iterations in a row
        self._logged: dict[str, tuple[Tensor, float]] = {}  # the last losses, where they are and as numbers
        self.auxiliary_heads = nn.ModuleList(MODELS.build(head) for head in auxiliary_heads)
        defaults = dict(
            predict_layer=-1,
            query_per_frame=False,
            frames_per_pass=32,
            frames_per_clip=None,
            mask_threshold=0.5,
            return_logits=False,
            all_queries=False,
            precision='fp32',
            compile=False,
        )
        unknown = set(test_cfg or {}) - set(defaults)
        if unknown:
            raise UserError(f'model.test_cfg: unknown {sorted(unknown)}; expected some of {sorted(defaults)}')
        self.test_cfg = {**defaults, **(test_cfg or {})}
        if self.test_cfg['all_queries'] and self.test_cfg['return_logits']:
            raise UserError(
                'model.test_cfg: all_queries and return_logits do not go together; expected one of them at most'
            )
        if self.test_cfg['precision'] not in PRECISIONS:
            raise UserError(f'model.test_cfg.precision={self.test_cfg["precision"]!r}: expected one of {PRECISIONS}')
        if self.test_cfg['frames_per_pass'] < 1:
            raise UserError(f'model.test_cfg.frames_per_pass={self.test_cfg["frames_per_pass"]}: expected at least 1')
        if self.test_cfg['compile']:
            # Not with symbolic sizes, to which PyTorch goes over at the second one: deriving windows from them takes it minutes.
            self.backbone.compile(dynamic=False)
            # einops notes each type of tensor that it meets, and what is compiled before it met another one is compiled again.
            for tensor in (torch.zeros(1), nn.Parameter(torch.zeros(1))):
                rearrange(tensor, 'n -> n')
        layers = self.sim.num_layers
        if not -layers <= self.test_cfg['predict_layer'] < layers:
            raise UserError(
                f'model.test_cfg.predict_layer={self.test_cfg["predict_layer"]}: the decoder has {layers} layers'
            )

    # ---------------------------------------------------------------------------------------------- the four steps

    def extract_visual(self, inputs: Tensor, data_samples: Sequence[TrackDataSample]) -> VisualFeatures:
        """Backbone, channel projections, padding and positions of B clips.

        Where only some frames are annotated (``key_frames_inds``), all frames go through the backbone and only those go on.

        Args:
            inputs: (B, T, 3, H, W), normalised and zero-padded to the size of the largest clip.
            data_samples: B; their frames' ``img_shape`` says what is padding.
        """
        num_clips, num_frames, _, height, width = inputs.shape
        outputs = self.backbone(inputs)
        kept = _key_frames(data_samples, num_frames)
        if kept is not None:
            rows = to_device((torch.arange(num_clips)[:, None] * num_frames + kept).flatten(), inputs.device)
            outputs = tuple(output.index_select(0, rows) for output in outputs)
            num_frames = kept.shape[1]
        levels = tuple(self.neck(outputs[1:]))
        sizes = [tuple(sample[0].img_shape) for sample in data_samples]
        pad_masks = None
        if any(size != (height, width) for size in sizes):
            pad_masks = _pad_masks(sizes, (height, width), [level.shape[-2:] for level in levels], inputs.device)
        return VisualFeatures(
            fine=outputs[0],
            levels=levels,
            pad_masks=pad_masks,
            positions=self._positions(levels, pad_masks),
            image_sizes=to_device(torch.tensor([(w, h) for h, w in sizes], dtype=torch.float32), inputs.device),
            num_frames=num_frames,
        )

    def _positions(self, levels: Sequence[Tensor], pad_masks: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
        if pad_masks is not None:
            return tuple(self.positional_encoding(mask) for mask in pad_masks)

        def compute() -> tuple[Tensor, ...]:
            return tuple(
                self.positional_encoding(level.new_zeros((1, *level.shape[-2:]), dtype=torch.bool)) for level in levels
            )

        if next(self.positional_encoding.parameters(), None) is not None:  # learned
            return compute()
        key = (*(tuple(level.shape[-2:]) for level in levels), levels[0].device)
        if key not in self._known_positions:
            if len(self._known_positions) >= MAX_KNOWN_POSITIONS:
                self._known_positions.clear()
            with torch.inference_mode(False), torch.no_grad():  # they have to serve training too
                self._known_positions[key] = compute()
        return self._known_positions[key]

    def extract_text(self, texts: Sequence[str]) -> TextFeatures:
        """Words and sentence features of M sentences."""
        return self.text_encoder(texts)

    def fuse(self, visual: VisualFeatures, text: TextFeatures, with_guidance: bool = True) -> FusedFeatures:
        """Multi-modal fusion; ``visual`` is already that of the M sentences (`VisualFeatures.of_sentences`)."""
        return self.fusion(
            visual.levels, text.words, text.pad_mask, visual.pad_masks, visual.positions, with_guidance=with_guidance
        )

    def aggregate(self, visual: VisualFeatures, fused: FusedFeatures) -> FrameQueries:
        """SIM's frame level; the box branches that refine its references are the head's."""
        return self.sim.aggregate(
            fused.levels, visual.pad_masks, visual.positions, self.head.box_branches, visual.num_frames
        )

    # ---------------------------------------------------------------------------------------------- training

    def loss(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], **kwargs) -> dict[str, Tensor]:
        """Losses of a batch (Eq. 9), in which a clip may come with several sentences, each with its object in ``gt_instances``.

        Raises:
            FloatingPointError: if a prediction or a loss is not finite; names the iteration, videos and sentences.
            ValueError: if a sentence is empty or too long.
        """
        texts, clip_of_expr = _sentences(data_samples)
        of_clips = self.extract_visual(inputs, data_samples)
        visual = of_clips.of_sentences(clip_of_expr)
        text = self.extract_text(texts)
        fused = self.fuse(visual, text)
        frame = self.aggregate(visual, fused)
        layers = range(self.sim.num_layers)
        objects = self.sim.integrate(frame, text.sentence, layers=layers, video_layers=layers)
        predictions = self.head(objects, frame, visual.image_sizes)
        features = self.head.mask_features(frame.memory, visual.fine)
        targets = _targets(data_samples, inputs)
        losses = self.criterion(
            predictions, objects.video_queries, fused.guidance, features, self.head.decode_masks, targets
        )
        for head in self.auxiliary_heads:
            losses |= head.loss(of_clips, fused, targets, data_samples)
        self._check_finite(losses, predictions, features, data_samples)
        return losses

    def _check_finite(
        self,
        losses: dict[str, Tensor],
        predictions: Predictions,
        features: Tensor,
        data_samples: Sequence[TrackDataSample],
    ) -> None:
        """The one place of a training step where the host waits for the device."""
        suspects = {
            'class logits': predictions.logits,
            'boxes': predictions.boxes,
            'mask kernels': predictions.kernels,
            'mask features': features,
        }
        sums = {name: value.detach().sum(dtype=torch.float32) for name, value in suspects.items()} | {
            name: value.detach().float() for name, value in losses.items()
        }
        numbers = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
        self._logged = {name: (value.detach(), numbers[name]) for name, value in losses.items()}
        wrong = [name for name, number in numbers.items() if not math.isfinite(number)]
        if not wrong:
            self._overflows = 0
            return
        self._overflows += 1
        in_half = _autocast_dtype(features.device) == torch.float16
        if in_half and self._overflows < MAX_OVERFLOWS:  # the scaler skips this step and lowers its scale
            return
        iteration = MessageHub.get_current_instance().get_info('iter', None)
        raise FloatingPointError(
            f'not finite in iteration {iteration}: {", ".join(wrong)} ({_names(data_samples)})'
            + (f', and in the {self._overflows - 1} before' if in_half else '')
            + '. Lower the learning rate, check `optim_wrapper.clip_grad`, or leave out --amp.'
        )

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """The sum of all losses, and what is logged, which are numbers that `loss` knows already: no further wait."""
        logged, self._logged = self._logged, {}
        if logged.keys() != losses.keys() or any(
            logged[name][0].data_ptr() != losses[name].data_ptr() for name in losses
        ):
            return super().parse_losses(losses)
        total = torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()
        numbers = {name: number for name, (_, number) in logged.items()}
        return total, dict(loss=sum(number for name, number in numbers.items() if 'loss' in name), **numbers)

    # ---------------------------------------------------------------------------------------------- prediction

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], **kwargs) -> list[TrackDataSample]:
        """Segments what each sentence names.

        The visual features are made once per clip. Of each sentence's N queries the one with the highest class score, averaged
        over the frames, is chosen first; only its masks are decoded. (With ``query_per_frame``
        it is chosen for each frame, by scores that the whole video's queries take part in.)

        Returns:
            The samples, with ``pred_masks`` (per sentence, per frame a COCO RLE of the original frame
            size), ``pred_frame_scores`` (E, T) in [0, 1], ``pred_scores`` (E,), their mean over the frames, and
            ``pred_queries`` (E, T) int64, whose mask it is.
            With ``return_logits`` also ``pred_logits``, per sentence the mask logits, float32 (T, h, w) on the CPU, at stride 4
            (of a clip that was padded to the size of its batch: at the size of the network's input, without the padding).
            They cover the frame, and resized to its original size they are what was thresholded.

            With ``test_cfg.all_queries`` also ``pred_masks_all`` (per sentence N RLEs) and ``pred_scores_all`` (E, N). These
            masks, and ``pred_masks``, which are then the chosen ones among them, are made as the released evaluation on A2D
            makes them: thresholded at the size of the input and brought to the original size by nearest neighbour. Else they
            are brought to the original size first, as by the released inference on Ref-YouTube-VOS.

        Raises:
            ValueError: ``frames_per_clip`` would cut a clip of which only some frames are annotated, or ``all_queries`` meets a
                clip of which not exactly one frame is.
        """
        with self.prediction_precision():
            return self._predict(inputs, data_samples)

    @contextmanager
    def prediction_precision(self) -> Iterator[None]:
        """Within it, everything runs in ``test_cfg.precision``."""
        precision = self.test_cfg['precision']
        half = dict(bf16=torch.bfloat16, fp16=torch.float16).get(precision)
        with (
            use_tf32(precision == 'tf32'),
            torch.autocast(self.data_preprocessor.device.type, half) if half else nullcontext(),
        ):
            yield

    def _predict(self, inputs: Tensor, data_samples: Sequence[TrackDataSample]) -> list[TrackDataSample]:
        num_frames = inputs.shape[1]
        step = self.test_cfg['frames_per_clip'] or num_frames
        if step < num_frames and any('key_frames_inds' in sample for sample in data_samples):
            raise UserError(
                f'model.test_cfg.frames_per_clip={step} cuts a clip of {num_frames} frames of which only some are '
                f'annotated ({_names(data_samples)}); set it to None'
            )
        if self.test_cfg['all_queries']:
            return self._predict_all(inputs, data_samples)
        masks: list[list[list[dict]]] = [[[] for _ in sample.texts] for sample in data_samples]
        logits: list[list[list[Tensor]]] = [[[] for _ in sample.texts] for sample in data_samples]
        texts, clip_of_expr = _sentences(data_samples)
        text = self.extract_text(texts)
        scores, queries = [], []
        for start in range(0, num_frames, step):
            score_Mt, query = self._predict_clip(
                inputs[:, start : start + step], data_samples, text, clip_of_expr, masks, logits
            )
            scores.append(score_Mt)
            queries.append(query)

        score_MT, query_MT = torch.cat(scores, 1).cpu(), torch.cat(queries, 1).cpu()
        for index, sample in enumerate(data_samples):
            own = torch.tensor([clip == index for clip in clip_of_expr])
            sample.set_data(
                dict(
                    pred_masks=masks[index],
                    pred_frame_scores=score_MT[own],
                    pred_scores=score_MT[own].mean(1),
                    pred_queries=query_MT[own],
                )
            )
            if self.test_cfg['return_logits']:
                sample.set_data(dict(pred_logits=[torch.cat(clips) for clips in logits[index]]))
        return list(data_samples)

    def sentences_at_once(self, num_frames: int) -> int:
        """How many sentences of a clip with so many frames run at once in prediction (``test_cfg.frames_per_pass``)."""
        return max(self.test_cfg['frames_per_pass'] // num_frames, 1)

    def _predict_clip(
        self,
        inputs: Tensor,
        data_samples: Sequence[TrackDataSample],
        text: TextFeatures,
        clip_of_expr: Sequence[int],
        masks: list[list[list[dict]]],
        logits: list[list[list[Tensor]]],
    ) -> tuple[Tensor, Tensor]:
        """Adds the run-length codes of these frames to ``masks`` (per sample, per sentence), with ``return_logits`` also their
        logits to ``logits``; scores and queries (M, T).
        """
        expr_of_clip = [expr for sample in data_samples for expr in range(len(sample.texts))]
        visual = self.extract_visual(inputs, data_samples)
        scores, queries = [], []
        step = self.sentences_at_once(visual.num_frames)
        for start in range(0, len(clip_of_expr), step):
            of_pass = clip_of_expr[start : start + step]
            prediction, decode = self._predict_pass(
                visual.of_sentences(of_pass), text.of_sentences(start, start + step)
            )
            query_MT, score_MT = choose_queries(prediction.logits, self.test_cfg['query_per_frame'])
            logits_MTHW = decode(query_MT[..., None])[:, :, 0]
            scores.append(score_MT)
            queries.append(query_MT)
            exprs = list(zip(of_pass, expr_of_clip[start : start + step], strict=True))
            logits_of = [
                self._without_padding(logit_THW, data_samples[clip], inputs.shape[-2:])
                for logit_THW, (clip, _) in zip(logits_MTHW, exprs, strict=True)
            ]
            found = self._encode(
                [
                    self._to_original_size(logit_THW, data_samples[clip])
                    for logit_THW, (clip, _) in zip(logits_of, exprs, strict=True)
                ]
            )
            for (clip, expr), codes in zip(exprs, found, strict=True):
                masks[clip][expr] += codes
            if self.test_cfg['return_logits']:
                for (clip, expr), logit_THW in zip(exprs, self._to_host(logits_of), strict=True):
                    logits[clip][expr].append(logit_THW)
        return torch.cat(scores), torch.cat(queries)

    def _predict_all(self, inputs: Tensor, data_samples: Sequence[TrackDataSample]) -> list[TrackDataSample]:
        """The samples with the masks and scores of all queries, see `predict`."""
        texts, clip_of_expr = _sentences(data_samples)
        visual = self.extract_visual(inputs, data_samples)
        if visual.num_frames != 1:
            raise UserError(
                f'model.test_cfg.all_queries: expected clips with one annotated frame (key_frames_inds), found '
                f'{visual.num_frames} ({_names(data_samples)})'
            )
        text = self.extract_text(texts)
        step = self.sentences_at_once(visual.num_frames)
        scores = []
        masks: list[list[list[dict]]] = [[] for _ in data_samples]
        for start in range(0, len(texts), step):
            of_pass = clip_of_expr[start : start + step]
            prediction, decode = self._predict_pass(
                visual.of_sentences(of_pass), text.of_sentences(start, start + step)
            )
            score_MN = query_scores(prediction.logits)[0]
            num_sentences, num_queries = score_MN.shape
            every = torch.arange(num_queries, device=score_MN.device).expand(num_sentences, 1, -1)
            logits_MNHW = decode(every)[:, 0]
            scores.append(score_MN)
            found = self._encode(
                [
                    self._nearest_to_original_size(logits_NHW, data_samples[clip], inputs.shape[-2:])
                    for clip, logits_NHW in zip(of_pass, logits_MNHW, strict=True)
                ]
            )
            for clip, codes in zip(of_pass, found, strict=True):
                masks[clip].append(codes)
        score_MN = torch.cat(scores).cpu()
        for index, sample in enumerate(data_samples):
            own = score_MN[torch.tensor([clip == index for clip in clip_of_expr])]
            best, chosen = own.max(1)
            sample.set_data(
                dict(
                    pred_masks=[
                        [of_queries[query]] for of_queries, query in zip(masks[index], chosen.tolist(), strict=True)
                    ],
                    pred_scores=best,
                    pred_queries=chosen[:, None],
                    pred_masks_all=masks[index],
                    pred_scores_all=own,
                )
            )
        return list(data_samples)

    def _predict_pass(
        self, visual: VisualFeatures, text: TextFeatures
    ) -> tuple[Predictions, Callable[[Tensor], Tensor]]:
        """
        Returns:
            tuple: all but the masks; a function that decodes given queries (M, T, K) to mask logits (M, T, K, h, w) at stride 4.
        """
        fused = self.fuse(visual, text, with_guidance=False)
        frame = self.aggregate(visual, fused)
        last = self.sim.num_layers - 1
        layer = self.test_cfg['predict_layer'] % self.sim.num_layers
        objects = self.sim.integrate(frame, text.sentence, layers=[layer], video_layers=[last])
        prediction = self.head(objects, frame, visual.image_sizes).of_layer(0)

        def decode(query_MTK: Tensor) -> Tensor:
            kernels, points = prediction.of_queries(query_MTK)
            return self.head.decode_masks(self.head.mask_features(frame.memory, visual.fine), kernels, points)

        return prediction, decode

    @staticmethod
    def _without_padding(logits: Tensor, sample: TrackDataSample, input_size: Sequence[int]) -> Tensor:
        """(T, h, w) logits at stride 4 -> the same where nothing was padded, else at the input's size, cut to the clip."""
        height, width = sample[0].img_shape
        if (height, width) == tuple(input_size):
            return logits
        logits = F.interpolate(logits[None], size=tuple(input_size), mode='bilinear', align_corners=False)[0]
        return logits[..., :height, :width]

    def _to_original_size(self, logits: Tensor, sample: TrackDataSample) -> Tensor:
        """(T, h, w) logits that cover the frames -> (T, W, H) bool of the original frames, columns first."""
        height, width = sample[0].ori_shape
        threshold = mask_threshold_logit(self.test_cfg['mask_threshold'])
        found = torch.empty((len(logits), width, height), dtype=torch.bool, device=logits.device)
        # A few frames at once: a long video at its original size is large.
        step = max(1, max_elements(logits.device) // (height * width))
        for some, target in zip(logits.split(step), found.split(step), strict=True):
            full = F.interpolate(some[:, None], size=(height, width), mode='bilinear', align_corners=False)[:, 0]
            torch.gt(full.transpose(1, 2), threshold, out=target)
        return found

    def _nearest_to_original_size(self, logits: Tensor, sample: TrackDataSample, input_size: Sequence[int]) -> Tensor:
        """(N, h, w) logits at stride 4 -> (N, W, H) bool of the original frame, by the released evaluation's way."""
        height, width = sample[0].img_shape
        logits = F.interpolate(logits[None], size=tuple(input_size), mode='bilinear', align_corners=False)
        inside = (logits > mask_threshold_logit(self.test_cfg['mask_threshold']))[..., :height, :width].float()
        full = F.interpolate(inside, size=tuple(sample[0].ori_shape), mode='nearest')[0]
        return full.bool().transpose(1, 2).contiguous()

    @staticmethod
    def _encode(masks: Sequence[Tensor]) -> list[list[dict]]:
        """Masks (n, W, H) bool of several sentences -> the run-length codes of each; they leave the device together."""
        joined = to_host(torch.cat([mask.flatten() for mask in masks])).numpy().view(np.uint8)
        sizes = np.cumsum([mask.numel() for mask in masks])[:-1]
        # Columns first in memory is what the codes are made of: (H, W, n) in Fortran's order.
        return [
            encode_masks(part.reshape(mask.shape).T) for part, mask in zip(np.split(joined, sizes), masks, strict=True)
        ]

    @staticmethod
    def _to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors in float32 on the CPU; they leave the device together."""
        joined = to_host(torch.cat([tensor.float().flatten() for tensor in tensors]))
        return [
            part.view(tensor.shape)
            for part, tensor in zip(joined.split([tensor.numel() for tensor in tensors]), tensors, strict=True)
        ]

    def _forward(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], **kwargs) -> list[dict[str, Tensor]]:
        """Raw outputs, without choosing a query (mode ``'tensor'``).

        Returns:
            Per decoder layer in training, of the predicting layer alone in evaluation: ``logits``
            (M, T, N, K), ``boxes`` (M, T, N, 4), ``masks`` (M, T, N, h, w) at stride 4, ``video_queries`` (M, N, C) and
            ``guidance`` (M, C).
        """
        texts, clip_of_expr = _sentences(data_samples)
        visual = self.extract_visual(inputs, data_samples).of_sentences(clip_of_expr)
        text = self.extract_text(texts)
        fused = self.fuse(visual, text)
        frame = self.aggregate(visual, fused)
        last = self.sim.num_layers - 1
        if self.training:
            layers = video_layers = list(range(self.sim.num_layers))
        else:
            layers, video_layers = [self.test_cfg['predict_layer'] % self.sim.num_layers], [last]
        objects = self.sim.integrate(frame, text.sentence, layers=layers, video_layers=video_layers)
        features = self.head.mask_features(frame.memory, visual.fine)
        predictions = self.head(objects, frame, visual.image_sizes)
        return [
            dict(
                logits=prediction.logits,
                boxes=prediction.boxes,
                masks=self.head.decode_masks(features, prediction.kernels, prediction.points),
                video_queries=video_queries,
                guidance=fused.guidance,
            )
            for prediction, video_queries in zip(
                map(predictions.of_layer, range(len(layers))), objects.video_queries, strict=True
            )
        ]


def mask_threshold_logit(threshold: float) -> float:
    """The logit at which a mask of the given probability begins."""
    return math.log(threshold / (1 - threshold))


def query_scores(logits: Tensor) -> tuple[Tensor, Tensor]:
    """A query's score is its best class's mean over the frames.

    Args:
        logits: (M, T, N, K), of classes.

    Returns:
        Float32 (M, N) in [0, 1]; the best class of each query, int64 (M, N).
    """
    return logits.float().sigmoid().mean(1).max(-1)


def choose_queries(logits: Tensor, per_frame: bool = False) -> tuple[Tensor, Tensor]:
    """The query with the highest score for each sentence.

    Args:
        logits: (M, T, N, K), of classes.
        per_frame: in each frame the one with the highest score there, instead of one for all frames.

    Returns:
        The query of each frame, int64 (M, T); its score there, float32 (M, T) in [0, 1].
    """
    if per_frame:
        score_MTN = logits.float().sigmoid().amax(-1)
        score_MT, query_MT = score_MTN.max(-1)
        return query_MT, score_MT
    score_MN, class_MN = query_scores(logits)
    query = score_MN.argmax(1)
    sentence = torch.arange(len(query), device=query.device)
    # A slice between index tensors: theirs come first.
    score_MT = logits[sentence, :, query, class_MN[sentence, query]].float().sigmoid()
    return query[:, None].expand_as(score_MT), score_MT


def _key_frames(data_samples: Sequence[TrackDataSample], num_frames: int) -> Tensor | None:
    """(B, T') annotated frames of each clip, or None where all are."""
    kept = [list(getattr(sample, 'key_frames_inds', range(num_frames))) for sample in data_samples]
    if all(len(indices) == num_frames for indices in kept):
        return None
    if len(set(map(len, kept))) > 1:
        raise UserError(
            'the clips of a batch must have equally many annotated frames, found '
            f'{[len(indices) for indices in kept]} (key_frames_inds of {_names(data_samples)})'
        )
    return torch.tensor(kept)


def _sentences(data_samples: Sequence[TrackDataSample]) -> tuple[list[str], list[int]]:
    """All M sentences of the clips, and the clip of each."""
    for sample in data_samples:
        if not sample.metainfo.get('texts'):
            raise UserError(f'a sample without sentences (metainfo `texts`): {_names([sample])}')
    texts = [text for sample in data_samples for text in sample.texts]
    return texts, [clip for clip, sample in enumerate(data_samples) for _ in sample.texts]


def _pad_masks(
    sizes: Sequence[tuple[int, int]], padded: tuple[int, int], shapes: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, ...]:
    """(B, h, w) bool for each of ``shapes``, True where a clip of one of ``sizes`` was padded; by nearest interpolation."""
    rows, columns = (
        torch.arange(length) >= torch.tensor([size[axis] for size in sizes])[:, None]
        for axis, length in enumerate(padded)
    )
    masks = []
    for shape in shapes:
        of_rows, of_columns = (
            F.interpolate(mask[:, None].float(), size=length, mode='nearest')[:, 0].bool()
            for mask, length in zip((rows, columns), shape, strict=True)
        )
        masks.append(to_device(of_rows[:, :, None] | of_columns[:, None], device))
    return tuple(masks)


def _targets(data_samples: Sequence[TrackDataSample], inputs: Tensor) -> ClipTargets:
    """The object of each sentence, in the order of `_sentences`, of the annotated frames."""
    masks, boxes, sizes, visible, labels = [], [], [], [], []
    for sample in data_samples:
        frames = [sample[index] for index in getattr(sample, 'key_frames_inds', range(len(sample)))]
        instances = [frame.gt_instances for frame in frames]
        assert len(instances[0]) == len(sample.texts), f'{len(instances[0])} objects for {sample.texts}'
        masks.append(np.stack([item.masks.masks for item in instances], 1))
        height, width = frames[0].img_shape
        boxes.append(torch.stack([item.bboxes for item in instances], 1))
        sizes += [[[width, height, width, height]]] * len(sample.texts)
        visible.append(torch.stack([item.visible for item in instances], 1))
        labels.append(instances[0].labels)
    # Joined where they are, so that each goes to the device once; the masks as the bytes that they are.
    box = torch.cat(boxes)
    box = bbox_xyxy_to_cxcywh(box) / torch.tensor(sizes).to(box)
    mask, *others = (
        to_device(tensor, inputs.device)
        for tensor in (torch.from_numpy(np.concatenate(masks)), box, torch.cat(visible), torch.cat(labels))
    )
    return ClipTargets(mask.float(), *others)


def _autocast_dtype(device: torch.device) -> torch.dtype:
    """What products are computed in: float32 where autocast is off."""
    return torch.mm(*torch.empty((2, 1, 1), device=device)).dtype


def _names(data_samples: Sequence[TrackDataSample]) -> str:
    return '; '.join(
        f'video {sample.metainfo.get("video_id", "?")}: {sample.metainfo.get("texts")}' for sample in data_samples
    )
