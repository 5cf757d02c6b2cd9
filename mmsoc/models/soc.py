from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from einops import rearrange
from mmdet.models.mot.base import BaseMOTModel
from mmdet.structures import TrackDataSample
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmdet.structures.mask import encode_mask_results
from mmengine.logging import MessageHub
from torch import Tensor, nn

from mmsoc.registry import MODELS
from mmsoc.structures import ClipTargets, FrameQueries, FusedFeatures, Predictions, TextFeatures, VisualFeatures

PRECISIONS = ('fp32', 'tf32', 'bf16', 'fp16')


@MODELS.register_module()
class SOC(BaseMOTModel):
    """Semantic-assisted Object Cluster for referring video object segmentation (NeurIPS 2023, Fig. 2).

    The path is extract -> fuse -> integrate -> head, in methods that another program can call one by one.  `extract_visual` does
    not see the text and runs once per clip; everything behind it runs on a batch of M sentences, of which ``clip_of_expr`` says
    which clip each speaks of.

    Args:
        backbone (dict): maps (B, T, 3, H, W) to four maps (B*T, C_i, h_i, w_i) at strides 4, 8, 16, 32: `VideoSwin`, or an image
            backbone within `FrameBackbone`.
        neck (dict): ``mmdet.ChannelMapper`` of the last three to C channels and a fourth level at stride 64.
        positional_encoding (dict): ``mmdet.SinePositionalEncoding``.
        text_encoder (dict): `RobertaTextEncoder`.
        fusion (dict): `MMF`.
        sim (dict): `SIM`.
        head (dict): `DynamicMaskHead`.
        criterion (dict): `ClipCriterion`.
        auxiliary_heads (Sequence[dict]): heads for training only, e.g. `FusionMaskHead`, `CategoryMapHead`.  None by default.
        test_cfg (dict): ``predict_layer``, the decoder layer whose queries predict (-1, the last: the paper; 0: the released
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
        data_preprocessor (dict): ``mmdet.TrackDataPreprocessor``.
    """

    def __init__(self,
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
                 init_cfg: dict | None = None) -> None:
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
        defaults = dict(predict_layer=-1, query_per_frame=False, frames_per_pass=32, frames_per_clip=None, mask_threshold=0.5,
                        return_logits=False, all_queries=False, precision='fp32', compile=False)
        unknown = set(test_cfg or {}) - set(defaults)
        if unknown:
            raise ValueError(f'model.test_cfg: unknown {sorted(unknown)}; expected some of {sorted(defaults)}')
        self.test_cfg = {**defaults, **(test_cfg or {})}
        if self.test_cfg['all_queries'] and self.test_cfg['return_logits']:
            raise ValueError('model.test_cfg: all_queries and return_logits do not go together; expected one of them at most')
        if self.test_cfg['precision'] not in PRECISIONS:
            raise ValueError(f'model.test_cfg.precision={self.test_cfg["precision"]!r}: expected one of {PRECISIONS}')
        if self.test_cfg['frames_per_pass'] < 1:
            raise ValueError(f'model.test_cfg.frames_per_pass={self.test_cfg["frames_per_pass"]}: expected at least 1')
        if self.test_cfg['compile']:
            # Not with symbolic sizes, to which PyTorch goes over at the second one: deriving windows from them takes it minutes.
            self.backbone.compile(dynamic=False)
            # einops notes each type of tensor that it meets, and what is compiled before it met another one is compiled again.
            for tensor in (torch.zeros(1), nn.Parameter(torch.zeros(1))):
                rearrange(tensor, 'n -> n')
        layers = self.sim.num_layers
        if not -layers <= self.test_cfg['predict_layer'] < layers:
            raise ValueError(f'model.test_cfg.predict_layer={self.test_cfg["predict_layer"]}: the decoder has {layers} layers')

    # ---------------------------------------------------------------------------------------------- the four steps

    def extract_visual(self, inputs: Tensor, data_samples: Sequence[TrackDataSample]) -> VisualFeatures:
        """Backbone, channel projections, padding and positions of B clips.

        Where only some frames are annotated (``key_frames_inds``), all frames go through the backbone and only those go on.

        Args:
            inputs (Tensor): (B, T, 3, H, W), normalised and zero-padded to the size of the largest clip.
            data_samples (Sequence[TrackDataSample]): B; their frames' ``img_shape`` says what is padding.
        """
        num_clips, num_frames, _, height, width = inputs.shape
        outputs = self.backbone(inputs)
        kept = _key_frames(data_samples, num_frames)
        if kept is not None:
            clips = torch.arange(num_clips, device=inputs.device)[:, None]
            outputs = tuple(output.unflatten(0, (num_clips, num_frames))[clips, kept.to(inputs.device)].flatten(0, 1)
                            for output in outputs)
            num_frames = kept.shape[1]
        levels = self.neck(outputs[1:])

        sizes = [sample[0].img_shape for sample in data_samples]
        pad_mask = torch.ones((num_clips, height, width), dtype=torch.bool, device=inputs.device)
        for clip, (clip_height, clip_width) in enumerate(sizes):
            pad_mask[clip, :clip_height, :clip_width] = False
        pad_masks = tuple(
            F.interpolate(pad_mask[:, None].float(), size=level.shape[-2:], mode='nearest')[:, 0].bool() for level in levels)
        return VisualFeatures(
            fine=outputs[0],
            levels=tuple(levels),
            pad_masks=pad_masks,
            positions=tuple(self.positional_encoding(mask) for mask in pad_masks),
            image_sizes=torch.tensor([(w, h) for h, w in sizes], dtype=torch.float32, device=inputs.device),
            num_frames=num_frames)

    def extract_text(self, texts: Sequence[str]) -> TextFeatures:
        """Words and sentence features of M sentences."""
        return self.text_encoder(texts)

    def fuse(self, visual: VisualFeatures, text: TextFeatures, with_guidance: bool = True) -> FusedFeatures:
        """Multi-modal fusion; ``visual`` is already that of the M sentences (`VisualFeatures.of_sentences`)."""
        return self.fusion(visual.levels, text.words, text.pad_mask, visual.pad_masks, visual.positions,
                           with_guidance=with_guidance)

    def aggregate(self, visual: VisualFeatures, fused: FusedFeatures) -> FrameQueries:
        """SIM's frame level; the box branches that refine its references are the head's."""
        return self.sim.aggregate(fused.levels, visual.pad_masks, visual.positions, self.head.box_branches)

    # ---------------------------------------------------------------------------------------------- training

    def loss(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], **kwargs) -> dict[str, Tensor]:
        """Losses of a batch (Eq. 9), in which a clip may come with several sentences, each with its object in ``gt_instances``.

        Raises:
            FloatingPointError: if a prediction or a loss is not finite; names the iteration, videos and sentences.
            ValueError: if a sentence is empty or too long.
        """
        texts, clip_of_expr = _sentences(data_samples, inputs.device)
        of_clips = self.extract_visual(inputs, data_samples)
        visual = of_clips.of_sentences(clip_of_expr)
        text = self.extract_text(texts)
        fused = self.fuse(visual, text)
        frame = self.aggregate(visual, fused)
        layers = range(self.sim.num_layers)
        objects = self.sim.integrate(frame, text.sentence, layers=layers, video_layers=layers)
        predictions = self.head(objects, frame, visual.image_sizes)
        features = self.head.mask_features(frame.memory, visual.fine)
        # Looked at before the matching, which could not say where the number came from.
        _check_finite({
            'class logits': torch.stack([prediction.logits for prediction in predictions]).sum(),
            'boxes': torch.stack([prediction.boxes for prediction in predictions]).sum(),
            'mask kernels': torch.stack([prediction.kernels for prediction in predictions]).sum(),
            'mask features': features.sum()
        }, data_samples)
        targets = _targets(data_samples, visual.num_frames, inputs)
        losses = self.criterion(predictions, objects.video_queries, fused.guidance, features, self.head.decode_masks, targets)
        for head in self.auxiliary_heads:
            losses |= head.loss(of_clips, fused, targets, data_samples)
        _check_finite(losses, data_samples)
        return losses

    # ---------------------------------------------------------------------------------------------- prediction

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], **kwargs) -> list[TrackDataSample]:
        """Segments what each sentence names.

        The visual features are made once per clip.  Of each sentence's N queries the one with the highest class score, averaged
        over the frames, is chosen first; only its masks are decoded.  (With ``query_per_frame``
        it is chosen for each frame, by scores that the whole video's queries take part in.)

        Returns:
            list[TrackDataSample]: the samples, with ``pred_masks`` (per sentence, per frame a COCO RLE of the original frame
            size), ``pred_frame_scores`` (E, T) in [0, 1], ``pred_scores`` (E,), their mean over the frames, and
            ``pred_queries`` (E, T) int64, whose mask it is.
            With ``return_logits`` also ``pred_logits``, per sentence the mask logits, float32 (T, h, w) on the CPU, at stride 4
            (of a clip that was padded to the size of its batch: at the size of the network's input, without the padding).
            They cover the frame, and resized to its original size they are what was thresholded.

            With ``test_cfg.all_queries`` also ``pred_masks_all`` (per sentence N RLEs) and ``pred_scores_all`` (E, N).  These
            masks, and ``pred_masks``, which are then the chosen ones among them, are made as the released evaluation on A2D
            makes them: thresholded at the size of the input and brought to the original size by nearest neighbour.  Else they
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
        if precision == 'tf32':
            before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            try:
                yield
            finally:
                torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
        elif precision == 'fp32':
            yield
        else:
            with torch.autocast(self.data_preprocessor.device.type, dict(bf16=torch.bfloat16, fp16=torch.float16)[precision]):
                yield

    def _predict(self, inputs: Tensor, data_samples: Sequence[TrackDataSample]) -> list[TrackDataSample]:
        num_frames = inputs.shape[1]
        step = self.test_cfg['frames_per_clip'] or num_frames
        if step < num_frames and any('key_frames_inds' in sample for sample in data_samples):
            raise ValueError(f'model.test_cfg.frames_per_clip={step} cuts a clip of {num_frames} frames of which only some are '
                             f'annotated ({_names(data_samples)}); set it to None')
        if self.test_cfg['all_queries']:
            return self._predict_all(inputs, data_samples)
        masks: list[list[list[dict]]] = [[[] for _ in sample.texts] for sample in data_samples]
        logits: list[list[list[Tensor]]] = [[[] for _ in sample.texts] for sample in data_samples]
        texts, clip_of_expr = _sentences(data_samples, inputs.device)
        text = self.extract_text(texts)
        scores, queries = [], []
        for start in range(0, num_frames, step):
            score_Mt, query = self._predict_clip(inputs[:, start:start + step], data_samples, text, clip_of_expr, masks, logits)
            scores.append(score_Mt)
            queries.append(query)

        score_MT, query_MT = torch.cat(scores, 1).cpu(), torch.cat(queries, 1).cpu()
        for index, sample in enumerate(data_samples):
            own = (clip_of_expr == index).cpu()
            sample.set_data(dict(
                pred_masks=masks[index], pred_frame_scores=score_MT[own], pred_scores=score_MT[own].mean(1),
                pred_queries=query_MT[own]))
            if self.test_cfg['return_logits']:
                sample.set_data(dict(pred_logits=[torch.cat(clips) for clips in logits[index]]))
        return list(data_samples)

    def sentences_at_once(self, num_frames: int) -> int:
        """How many sentences of a clip with so many frames run at once in prediction (``test_cfg.frames_per_pass``)."""
        return max(self.test_cfg['frames_per_pass'] // num_frames, 1)

    def _predict_clip(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], text: TextFeatures, clip_of_expr: Tensor,
                      masks: list[list[list[dict]]], logits: list[list[list[Tensor]]]) -> tuple[Tensor, Tensor]:
        """Adds the run-length codes of these frames to ``masks`` (per sample, per sentence), with ``return_logits`` also their
        logits to ``logits``; scores and queries (M, T).
        """
        expr_of_clip = [expr for sample in data_samples for expr in range(len(sample.texts))]
        visual = self.extract_visual(inputs, data_samples)
        scores, queries = [], []
        step = self.sentences_at_once(visual.num_frames)
        for start in range(0, len(clip_of_expr), step):
            of_pass = clip_of_expr[start:start + step]
            prediction, decode = self._predict_pass(visual.of_sentences(of_pass), text.of_sentences(start, start + step))
            query_MT, score_MT = choose_queries(prediction.logits, self.test_cfg['query_per_frame'])
            logits_MTHW = decode(query_MT[..., None])[:, :, 0]
            scores.append(score_MT)
            queries.append(query_MT)
            for clip, expr, logit_THW in zip(
                    of_pass.tolist(), expr_of_clip[start:start + step], logits_MTHW, strict=True):
                logit_THW = self._without_padding(logit_THW, data_samples[clip], inputs.shape[-2:])
                masks[clip][expr] += self._to_original_size(logit_THW, data_samples[clip])
                if self.test_cfg['return_logits']:
                    logits[clip][expr].append(logit_THW.float().cpu())
        return torch.cat(scores), torch.cat(queries)

    def _predict_all(self, inputs: Tensor, data_samples: Sequence[TrackDataSample]) -> list[TrackDataSample]:
        """The samples with the masks and scores of all queries, see `predict`."""
        texts, clip_of_expr = _sentences(data_samples, inputs.device)
        visual = self.extract_visual(inputs, data_samples)
        if visual.num_frames != 1:
            raise ValueError(f'model.test_cfg.all_queries: expected clips with one annotated frame (key_frames_inds), found '
                             f'{visual.num_frames} ({_names(data_samples)})')
        text = self.extract_text(texts)
        step = self.sentences_at_once(visual.num_frames)
        scores = []
        masks: list[list[list[dict]]] = [[] for _ in data_samples]
        for start in range(0, len(texts), step):
            of_pass = clip_of_expr[start:start + step]
            prediction, decode = self._predict_pass(visual.of_sentences(of_pass), text.of_sentences(start, start + step))
            score_MN = query_scores(prediction.logits)[0]
            num_sentences, num_queries = score_MN.shape
            every = torch.arange(num_queries, device=score_MN.device).expand(num_sentences, 1, -1)
            logits_MNHW = decode(every)[:, 0]
            scores.append(score_MN.cpu())
            for clip, logits_NHW in zip(of_pass.tolist(), logits_MNHW, strict=True):
                masks[clip].append(self._nearest_to_original_size(logits_NHW, data_samples[clip], inputs.shape[-2:]))
        score_MN = torch.cat(scores)
        for index, sample in enumerate(data_samples):
            own = score_MN[(clip_of_expr == index).cpu()]
            best, chosen = own.max(1)
            sample.set_data(dict(
                pred_masks=[[of_queries[query]] for of_queries, query in zip(masks[index], chosen.tolist(), strict=True)],
                pred_scores=best, pred_queries=chosen[:, None], pred_masks_all=masks[index], pred_scores_all=own))
        return list(data_samples)

    def _predict_pass(self, visual: VisualFeatures, text: TextFeatures) -> tuple[Predictions, Callable[[Tensor], Tensor]]:
        """
        Returns:
            tuple: all but the masks; a function that decodes given queries (M, T, K) to mask logits (M, T, K, h, w) at stride 4.
        """
        fused = self.fuse(visual, text, with_guidance=False)
        frame = self.aggregate(visual, fused)
        last = self.sim.num_layers - 1
        layer = self.test_cfg['predict_layer'] % self.sim.num_layers
        objects = self.sim.integrate(frame, text.sentence, layers=[layer], video_layers=[last])
        prediction, = self.head(objects, frame, visual.image_sizes)

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

    def _to_original_size(self, logits: Tensor, sample: TrackDataSample) -> list[dict]:
        """(T, h, w) logits that cover the frames -> T run-length codes of the original frames."""
        threshold = torch.tensor(self.test_cfg['mask_threshold']).logit().item()
        codes = []
        for frame in logits:  # one by one: a long video at its original size is large
            full = F.interpolate(frame[None, None], size=tuple(sample[0].ori_shape), mode='bilinear', align_corners=False)
            codes += encode_mask_results((full[0] > threshold).cpu().numpy())
        return codes

    def _nearest_to_original_size(self, logits: Tensor, sample: TrackDataSample, input_size: Sequence[int]) -> list[dict]:
        """(N, h, w) logits at stride 4 -> N run-length codes of the original frame, by the released evaluation's way."""
        threshold = torch.tensor(self.test_cfg['mask_threshold']).logit().item()
        height, width = sample[0].img_shape
        logits = F.interpolate(logits[None], size=tuple(input_size), mode='bilinear', align_corners=False)
        inside = (logits > threshold)[..., :height, :width].float()
        full = F.interpolate(inside, size=tuple(sample[0].ori_shape), mode='nearest')[0]
        return encode_mask_results(full.bool().cpu().numpy())

    def _forward(self, inputs: Tensor, data_samples: Sequence[TrackDataSample], **kwargs) -> list[dict[str, Tensor]]:
        """Raw outputs, without choosing a query (mode ``'tensor'``).

        Returns:
            list[dict[str, Tensor]]: per decoder layer in training, of the predicting layer alone in evaluation: ``logits``
            (M, T, N, K), ``boxes`` (M, T, N, 4), ``masks`` (M, T, N, h, w) at stride 4, ``video_queries`` (M, N, C) and
            ``guidance`` (M, C).
        """
        texts, clip_of_expr = _sentences(data_samples, inputs.device)
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
        return [
            dict(
                logits=prediction.logits,
                boxes=prediction.boxes,
                masks=self.head.decode_masks(features, prediction.kernels, prediction.points),
                video_queries=video_queries,
                guidance=fused.guidance)
            for prediction, video_queries in zip(
                self.head(objects, frame, visual.image_sizes), objects.video_queries, strict=True)
        ]


def query_scores(logits: Tensor) -> tuple[Tensor, Tensor]:
    """A query's score is its best class's mean over the frames.

    Args:
        logits (Tensor): (M, T, N, K), of classes.

    Returns:
        tuple[Tensor, Tensor]: float32 (M, N) in [0, 1]; the best class of each query, int64 (M, N).
    """
    return logits.float().sigmoid().mean(1).max(-1)


def choose_queries(logits: Tensor, per_frame: bool = False) -> tuple[Tensor, Tensor]:
    """The query with the highest score for each sentence.

    Args:
        logits (Tensor): (M, T, N, K), of classes.
        per_frame (bool): in each frame the one with the highest score there, instead of one for all frames.

    Returns:
        tuple[Tensor, Tensor]: the query of each frame, int64 (M, T); its score there, float32 (M, T) in [0, 1].
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
        raise ValueError('the clips of a batch must have equally many annotated frames, found '
                         f'{[len(indices) for indices in kept]} (key_frames_inds of {_names(data_samples)})')
    return torch.tensor(kept)


def _sentences(data_samples: Sequence[TrackDataSample], device: torch.device) -> tuple[list[str], Tensor]:
    """All sentences of the clips, and (M,) the clip of each."""
    for sample in data_samples:
        if not sample.metainfo.get('texts'):
            raise ValueError(f'a sample without sentences (metainfo `texts`): {_names([sample])}')
    texts = [text for sample in data_samples for text in sample.texts]
    clips = [clip for clip, sample in enumerate(data_samples) for _ in sample.texts]
    return texts, torch.tensor(clips, device=device)


def _targets(data_samples: Sequence[TrackDataSample], num_frames: int, inputs: Tensor) -> ClipTargets:
    """The object of each sentence, in the order of `_sentences`, of the annotated frames."""
    masks, boxes, visible, labels = [], [], [], []
    for sample in data_samples:
        frames = [sample[index] for index in getattr(sample, 'key_frames_inds', range(len(sample)))]
        assert len(frames) == num_frames, f'{len(frames)} annotated frames of {num_frames}'
        instances = [frame.gt_instances for frame in frames]
        assert len(instances[0]) == len(sample.texts), f'{len(instances[0])} objects for {sample.texts}'
        masks.append(torch.stack([item.masks.to_tensor(torch.float32, inputs.device) for item in instances], 1))
        height, width = frames[0].img_shape
        box_ET4 = torch.stack([item.bboxes for item in instances], 1).to(inputs.device)
        boxes.append(bbox_xyxy_to_cxcywh(box_ET4) / box_ET4.new_tensor([width, height, width, height]))
        visible.append(torch.stack([item.visible for item in instances], 1).to(inputs.device))
        labels.append(instances[0].labels.to(inputs.device))
    return ClipTargets(torch.cat(masks), torch.cat(boxes), torch.cat(visible), torch.cat(labels))


def _names(data_samples: Sequence[TrackDataSample]) -> str:
    return '; '.join(f'video {sample.metainfo.get("video_id", "?")}: {sample.metainfo.get("texts")}'
                     for sample in data_samples)


def _check_finite(values: dict[str, Tensor], data_samples: Sequence[TrackDataSample]) -> None:
    if torch.isfinite(sum(values.values())).item():  # one transfer; which one it was matters only when it failed
        return
    wrong = [name for name, value in values.items() if not torch.isfinite(value).item()]
    iteration = MessageHub.get_current_instance().get_info('iter', None)
    raise FloatingPointError(
        f'not finite in iteration {iteration}: {", ".join(wrong) or "their sum"} ({_names(data_samples)}). '
        'Lower the learning rate, check `optim_wrapper.clip_grad`, or leave out --amp.')
