from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools import mask as coco_mask
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from mmsoc.inference import (
    Inspection,
    PredictionConfig,
    QueryByLength,
    StreamPredictor,
    ThresholdedMasks,
    inspect_clips,
    predict_clips,
)
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import clean_text, dump_json
from mmsoc.utils.masks import box_of_mask, json_codes
from mmsoc.visualization import RVOSLocalVisualizer, VideoWriter

from .exports import Exported, Exporter, MaskImages, check_formats, exporters
from .frame_pipeline import FramePipeline
from .hub import HubMixin
from .model_loading import load_model
from .results import DEFAULT_FPS, MASKS, OVERLAY_IMAGE, SCORES, VIDEO, ResultFolder, mask_folders, versions
from .video_io import FrameSource, WorkerPool, open_frames, prefetch

OnProgress = Callable[[str, int, int | None], None]
"""of a stage's name, the frames it has finished, and their total if it is known"""


@dataclass
class VideoPrediction:
    """The network's result for E sentences in T frames."""

    scores: Tensor
    """(E,) float32 in [0, 1]"""
    frame_scores: Tensor
    """(E, T) float32 in [0, 1]"""
    masks: Callable[[], Iterator[np.ndarray]]
    """yields the masks in order, some frames at a time: bool (E, t, H, W) at the original size"""


@dataclass
class _Record:
    """What is recorded of each frame's masks as they stream past."""

    texts: Sequence[str]
    keep_masks: bool
    boxes: list[list[list[int] | None]] = field(init=False)
    masks: list[list[dict]] = field(init=False)

    def __post_init__(self) -> None:
        self.boxes = [[] for _ in self.texts]
        self.masks = [[] for _ in self.texts]

    def add(self, masks: np.ndarray) -> None:
        """Masks of one frame, bool (E, H, W)."""
        for index, mask in enumerate(masks):
            self.boxes[index].append(box_of_mask(mask).astype(int).tolist() if mask.any() else None)
        if self.keep_masks:
            for of_sentence, code in zip(self.masks, json_codes(masks), strict=True):
                of_sentence.append(code)


class SOCInferencer(HubMixin):
    """Segments the objects that sentences name in a video, a folder of frames or an image::

        inferencer = SOCInferencer(weights='best.pth')
        result = inferencer('street.mp4', ['the red car', 'a man with a dog'], out_dir='out')
        result['predictions']['sentences'][0]['score']

    By default the video runs through the network in chunks, in memory that does not depend on its length
    (`StreamPredictor`); ``whole=True`` runs all frames at once, like ``tools/test.py``.

    Args:
        config: config file, ``mmsoc::soc/NAME.py`` of the installed package, or a config. None: the config of weights
            by name, or the one that is stored in the checkpoint.
        weights: checkpoint, URL or name (`mmsoc.weights`). No other weights are loaded: ``pretrained`` of backbone and
            text encoder is not read, except to find the tokenizer (``model.text_encoder.tokenizer``, else
            ``model.text_encoder.pretrained``).
        device: None: a GPU if available.
        cfg_options: changes to the config, ``{'model.test_cfg.output.mask_threshold': 0.4}``.
        show_progress: whether to show a progress bar on the terminal.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: no weights or no config, the checkpoint is broken or does not fit the model
            (`StrictLoadHook`), the model is not a SOC, or the device is not available.
    """

    def __init__(
        self,
        config: str | Path | Config | Mapping | None = None,
        weights: str | Path | None = None,
        device: str | torch.device | None = None,
        *,
        cfg_options: Mapping[str, Any] | None = None,
        show_progress: bool = True,
    ) -> None:
        self.loaded = load_model(config, weights, device, cfg_options)
        self.model, self.weights = self.loaded.model, self.loaded.weights
        self.show_progress = show_progress
        self.prediction = _for_people(self.model.test_cfg)
        with self.scope():
            self.pipeline = FramePipeline(self.loaded.cfg)
        # The config's colors but not its backends: this class writes the files.
        chosen = self.loaded.cfg.get('visualizer') or {}
        options = {key: chosen[key] for key in ('colors', 'alpha', 'contour') if key in chosen}
        self.visualizer = RVOSLocalVisualizer('inferencer', **options)

    def __call__(
        self,
        inputs: Any,
        texts: str | Sequence[str],
        *,
        whole: bool = False,
        chunk_frames: int = 24,
        overlap: int = 8,
        score_threshold: float = 0.0,
        out_dir: str | Path | None = None,
        formats: Sequence[str] = (MaskImages.name,),
        overwrite: bool = False,
        fps: float | None = None,
        return_masks: bool = True,
        return_vis: bool = False,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Segments what each sentence names.

        Args:
            inputs: path of a video, a folder of jpg or png frames or an image; RGB frames, uint8, as an array (T, H, W,
                3) or a list of (H, W, 3); an RGB image, uint8 (H, W, 3); or a source returned by `open_frames`.
            texts: E sentences, or one. The network sees them in lower case with single spaces, like its training
                sentences.
            whole: run all frames at once, exactly as in ``tools/test.py``; memory grows with the video. (If the config
                cuts videos by ``model.test_cfg.frames_per_clip``, so does this; the default does not.)
            chunk_frames, overlap: without ``whole``; see `StreamPredictor`.
            score_threshold: a sentence with a lower score gets empty masks.
            out_dir: folder for ``masks/NUMBER_SENTENCE/00000.png`` (8-bit, 0 and 255, original size; for a folder the
                names of the frames), ``overlay.mp4`` (for an image ``overlay.png``) and ``scores.json``, which is
                ``predictions`` below without the masks. The folder must be empty.
            formats: of the masks in ``out_dir``, names of `mmsoc.apis.exports.FORMATS`: ``png`` is described above; ``davis``,
                ``coco``, ``ytvis``, ``cvat``, ``label-studio`` and ``matte`` are for other tools.
            overwrite: replace earlier results in ``out_dir``.
            fps: frame rate of the overlay of a folder or an array; 6 by default. A video keeps its own.
            return_masks: whether ``predictions`` contain the masks.
            return_vis: whether ``visualization`` holds the drawn frames (all of them in memory).
            on_progress: called as frames are finished; see `OnProgress`. What it raises ends the call, and nothing is written then.

        Returns:
            ``predictions``, JSON-serializable numbers and strings, and ``visualization``: a list of T drawn frames,
            uint8 (h, w, 3), if ``return_vis``; else the path of the overlay; else None.

            ``predictions`` has ``file`` (None: an array), ``kind`` (video, folder, image or array), ``width``, ``height``,
            ``num_frames``, ``fps`` (None: unknown), ``config`` (None: the one in the weights), ``weights``, ``device``,
            ``prediction`` (how it was made), ``score_threshold``, ``versions``, and ``sentences``, in the order of
            ``texts``, each with

            - ``text`` as given,
            - ``score``, in [0, 1], the mean of ``frame_scores``,
            - ``above_threshold``: False where ``score`` is below ``score_threshold`` and all masks are empty,
            - ``frame_scores``, T numbers in [0, 1],
            - ``boxes``, T lists x1, y1, x2, y2: the first and the last column and row of the mask, in pixels of the original
              frame; None where the mask is empty,
            - ``masks``, T run-length codes for ``pycocotools.mask.decode`` (not with ``return_masks=False``),
            - ``mask_folder``, below ``out_dir`` (None without, and without the format ``png``).

        Raises:
            FileNotFoundError, UserError: as `open_frames`; an empty or too long sentence; frames with so extreme an
                aspect ratio that a side vanishes at the network's size; an ``out_dir`` in use; or a missing tokenizer.
            FloatingPointError: the predictions are not finite.
        """
        source = open_frames(inputs, fps)
        sentences = check_texts(texts)
        if not 0 <= score_threshold <= 1:
            raise UserError(f'score_threshold must be in [0, 1], as scores are; found {score_threshold}')
        check_formats(formats)
        seen_texts = [clean_text(text, 'texts') for text in sentences]
        way = dict(whole=True) if whole else dict(whole=False, chunk_frames=chunk_frames, overlap=overlap)
        record = _Record(sentences, return_masks)
        folders = [f'{MASKS}/{name}' for name in mask_folders(sentences)]
        with ExitStack() as stack:
            stack.enter_context(self.scope())
            self.check_language(seen_texts)
            folder = None if out_dir is None else stack.enter_context(ResultFolder(out_dir, overwrite))
            progress = stack.enter_context(self._progress())
            title = 'reading' if whole else 'reading, network'
            advance = _bar(progress, title, source.length, on_progress)
            pieces = stack.enter_context(closing(prefetch(self.pipeline.pieces(source, seen_texts, advance))))
            if whole:
                prediction = self._whole(list(pieces))
            else:
                prediction = stack.enter_context(self._streamed(pieces, seen_texts, source.size, chunk_frames, overlap))
            scores = [round(score, 6) for score in prediction.scores.tolist()]
            above = [score >= score_threshold for score in scores]
            num_frames = prediction.frame_scores.shape[1]
            masks = _recorded(prediction, above, record, _bar(progress, 'masks', num_frames, on_progress))
            if folder is not None:
                # Closed before the folder, even after an error, so that nothing is written later.
                what = Exported(folder, source, sentences, scores)
                masks = stack.enter_context(closing(_exported(masks, exporters(formats, what, stack))))
            captions = [
                f'{text}  ({score:.2f})' + ('' if kept else f', below {score_threshold:g}')
                for text, score, kept in zip(sentences, scores, above)
            ]
            visualization: Any = self._draw(source, masks, captions, folder, return_vis)
            about = self._about(source, num_frames, way, score_threshold)
            frame_scores = [[round(score, 6) for score in of_text] for of_text in prediction.frame_scores.tolist()]
            about['sentences'] = [
                dict(
                    text=text,
                    score=scores[index],
                    above_threshold=above[index],
                    mask_folder=folders[index] if folder is not None and MaskImages.name in formats else None,
                    frame_scores=frame_scores[index],
                    boxes=record.boxes[index],
                )
                for index, text in enumerate(sentences)
            ]
            if folder is not None:
                dump_json(about, folder / SCORES, indent=1, ensure_ascii=False)
        if isinstance(visualization, Path) and out_dir is not None:  # it has moved
            visualization = str(Path(out_dir) / visualization.name)
        if return_masks:
            for sentence, codes in zip(about['sentences'], record.masks, strict=True):
                sentence['masks'] = codes
        return dict(predictions=about, visualization=visualization)

    def inspect(self, inputs: Any, texts: str | Sequence[str]) -> list[Inspection]:
        """What the network knows of each query: scores, masks, attention to the frames, similarity to the sentence.

        All frames run at once, as with ``whole=True``.

        Args:
            inputs, texts: as in `__call__`.

        Returns:
            One `Inspection` for each sentence.

        Raises:
            FileNotFoundError, UserError: as `__call__`.
        """
        sentences = [clean_text(text, 'texts') for text in check_texts(texts)]
        self.check_language(sentences)
        with self.scope():
            pieces = list(self.pipeline.pieces(open_frames(inputs), sentences))
            return inspect_clips(self.model, **self._batch(pieces))

    def check_language(self, texts: Sequence[str]) -> None:
        """Runs the text encoder before the video is read; it reports sentences that it cannot encode.

        Raises:
            UserError: an empty or too long sentence.
            FileNotFoundError: the tokenizer is missing.
        """
        try:
            with torch.no_grad():
                self.model.text_encoder(texts)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error}. The folder: --cfg-options model.text_encoder.pretrained=FOLDER (in Python cfg_options='
                "{'model.text_encoder.pretrained': 'FOLDER'}); a folder with the tokenizer alone: model.text_encoder.tokenizer"
            ) from error

    # ---------------------------------------------------------------------------------------------------- the two modes

    @contextmanager
    def _streamed(
        self, pieces: Iterable[dict], texts: Sequence[str], ori_shape: tuple[int, int], chunk_frames: int, overlap: int
    ) -> Iterator[VideoPrediction]:
        """The masks can be read inside the ``with`` block."""
        config = replace(self.prediction, frames_per_clip=None)
        with ExitStack() as stack:
            stream: StreamPredictor | None = None
            for piece in pieces:
                frames = piece['inputs']
                if stream is None:
                    stream = StreamPredictor(
                        self.model,
                        texts,
                        frame_size=(frames.shape[-2], frames.shape[-1]),
                        ori_shape=ori_shape,
                        chunk_frames=chunk_frames,
                        overlap=overlap,
                        config=config,
                    )
                    stack.enter_context(stream)
                stream.feed(frames)
            if stream is None:
                raise UserError('there is no frame')
            found = stream.finish()
            yield VideoPrediction(found.scores, found.frame_scores, lambda: (masks.numpy() for masks in stream.masks()))

    def _batch(self, pieces: Sequence[dict]) -> dict[str, Any]:
        """All frames as one clip, for the model."""
        if not pieces:
            raise UserError('there is no frame')
        sample = pieces[0]['data_samples']
        sample.video_data_samples = [frame for piece in pieces for frame in piece['data_samples'].video_data_samples]
        frames = torch.cat([piece['inputs'] for piece in pieces])
        return self.model.data_preprocessor(pseudo_collate([dict(inputs=frames, data_samples=sample)]))

    def _whole(self, pieces: Sequence[dict]) -> VideoPrediction:
        (found,) = predict_clips(self.model, **self._batch(pieces), config=self.prediction)

        def masks(step: int = 8) -> Iterator[np.ndarray]:
            for start in range(0, found.pred_frame_scores.shape[1], step):
                codes = [of_text[start : start + step] for of_text in found.pred_masks]
                yield np.stack([coco_mask.decode(code).transpose(2, 0, 1) for code in codes]).astype(bool)

        return VideoPrediction(found.pred_scores, found.pred_frame_scores, masks)

    # ------------------------------------------------------------------------------------------------ results

    def _draw(
        self,
        source: FrameSource,
        masks: Iterable[np.ndarray],
        captions: Sequence[str],
        folder: Path | None,
        return_vis: bool,
    ) -> Path | list[np.ndarray] | None:
        """Draws all masks and a legend on each frame, and reads ``masks`` to the end.

        Args:
            source: read a second time.
            masks: of each frame, bool (E, H, W).
            captions: the E lines of the legend.
            folder: where ``overlay.mp4`` (for an image ``overlay.png``) is written.
            return_vis: return the drawn frames.
        """
        if folder is None and not return_vis:
            for _ in masks:
                pass
            return None
        path = None if folder is None else folder / (OVERLAY_IMAGE if source.kind == 'image' else VIDEO)
        drawn: list[np.ndarray] = []
        with ExitStack() as stack:
            images = stack.enter_context(closing(prefetch(source.read(), depth=2)))
            video = None
            if path is not None and path.suffix == '.mp4':
                video = stack.enter_context(VideoWriter(path, fps=source.fps or DEFAULT_FPS))
            # One thread: frames are encoded in order.
            drawer = stack.enter_context(WorkerPool(1, pending=4))

            def draw(index: int, image: np.ndarray, of_frame: np.ndarray) -> None:
                overlay = self.visualizer.draw_sentences(image, of_frame, captions)
                if return_vis:
                    drawn.append(overlay)
                if video is not None:
                    video.write(overlay, None if source.times is None else source.times[index])
                elif path is not None:
                    Image.fromarray(overlay).save(path)

            for index, (image, of_frame) in enumerate(zip(images, masks, strict=True)):
                drawer.submit(draw, index, image, of_frame)
        return drawn if return_vis else path

    def _about(self, source: FrameSource, num_frames: int, way: dict, score_threshold: float) -> dict[str, Any]:
        """``predictions`` of `__call__` without the sentences."""
        return dict(
            file=source.path,
            kind=source.kind,
            width=source.size[1],
            height=source.size[0],
            num_frames=num_frames,
            fps=None if source.fps is None else round(float(source.fps), 6),
            config=self.loaded.config,
            weights=self.weights,
            device=str(next(self.model.parameters()).device),
            prediction=dict(
                precision=self.prediction.precision, selector=type(self.prediction.selector).__name__, **way
            ),
            score_threshold=score_threshold,
            versions=versions(),
        )

    def scope(self) -> Any:
        """Sets the registries' scope to the config's within the ``with`` block."""
        return DefaultScope.overwrite_default_scope(self.loaded.scope)

    def _progress(self) -> Progress:
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, disable=not self.show_progress)


def _for_people(config: PredictionConfig) -> PredictionConfig:
    """Without settings that only metrics need: masks of all queries, logits, A2D's resizing."""
    if config.selector.single and not config.output.for_metric:
        return config
    return replace(
        config,
        selector=config.selector if config.selector.single else QueryByLength(),
        output=ThresholdedMasks(config.output.mask_threshold) if config.output.for_metric else config.output,
    )


def _bar(progress: Progress, title: str, total: int | None, on_progress: OnProgress | None) -> Callable[[int], None]:
    """Adds a progress bar; returns the function that advances it."""
    bar = progress.add_task(f'{title:16s}', total=total)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress.advance(bar, count)
        if on_progress is not None:
            on_progress(title, done, total)

    return advance


def _recorded(
    prediction: VideoPrediction, above: Sequence[bool], record: _Record, advance: Callable[[int], None]
) -> Generator[np.ndarray, None, None]:
    """Yields the masks frame by frame, bool (E, H, W); empty for sentences below the threshold."""
    named = np.array(above)
    for masks in prediction.masks():
        masks[~named] = False
        for frame in range(masks.shape[1]):
            record.add(masks[:, frame])
            yield masks[:, frame]
            advance(1)


def _exported(masks: Iterable[np.ndarray], targets: Sequence[Exporter]) -> Generator[np.ndarray, None, None]:
    """Passes the masks on while they are exported."""
    for index, of_frame in enumerate(masks):
        for exporter in targets:
            exporter.add(index, of_frame)
        yield of_frame


def check_texts(texts: str | Sequence[str]) -> list[str]:
    """As a list of sentences.

    Raises:
        UserError: there is none, or one is empty or no string.
    """
    sentences = [texts] if isinstance(texts, str) else list(texts)
    if not sentences:
        raise UserError('texts: expected at least one sentence, found none')
    for text in sentences:
        if not isinstance(text, str) or not text.strip():
            raise UserError(f'texts: expected sentences that name an object, found {text!r}')
    return sentences
