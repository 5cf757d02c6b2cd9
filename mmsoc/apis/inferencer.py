import os
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.mask import encode_mask_results
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.hub import get_config
from mmengine.infer import BaseInferencer
from mmengine.logging import print_log
from mmengine.registry import DefaultScope, Registry
from mmengine.runner.checkpoint import _load_checkpoint, _load_checkpoint_to_model
from PIL import Image
from pycocotools import mask as coco_mask
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from mmsoc.datasets.transforms.loading import LoadCategoryMaps, LoadReferredMasks, LoadVideoFrames
from mmsoc.datasets.transforms.video_loading import LoadA2DMasks, LoadJHMDBMask, LoadVideoWindow
from mmsoc.engine.cli import warn_of_variables
from mmsoc.engine.hooks.strict_load_hook import StrictLoadHook
from mmsoc.models import SOC
from mmsoc.registry import HOOKS, MODELS, TRANSFORMS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import clean_text, dump_json
from mmsoc.utils.masks import box_of_mask
from mmsoc.visualization import RVOSLocalVisualizer, VideoWriter

from .results import MASKS, PICTURE, SCORES, VIDEO, ResultFolder, mask_folders, versions, write_mask
from .stream import StreamPredictor
from .video_io import FrameSource, WorkerPool, open_frames, prefetch

FPS = 6
"""of the overlay where nobody says what it is: that of the data sets' annotated frames"""
LARGE = 1280 * 720
"""pixels of the network's input above which a config without a resize is mentioned"""
_LOADERS = (LoadVideoFrames, LoadVideoWindow, LoadReferredMasks, LoadA2DMasks, LoadJHMDBMask, LoadCategoryMaps)


@dataclass
class VideoPrediction:
    """What the network says of E sentences and T frames."""

    scores: Tensor
    """(E,) float32 in [0, 1]"""
    frame_scores: Tensor
    """(E, T) float32 in [0, 1]"""
    masks: Callable[[], Iterator[np.ndarray]]
    """gives the masks in order, some frames at a time: bool (E, t, H, W) at the original size"""


@dataclass
class _Record:
    """What is kept of the masks that pass by."""

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
            for index, code in enumerate(encode_mask_results(masks)):
                self.masks[index].append(dict(size=[*map(int, code['size'])], counts=code['counts'].decode()))


class SOCInferencer(BaseInferencer):
    """Segments in a video, a folder of frames or a picture what sentences name::

        inferencer = SOCInferencer(weights='best.pth')
        result = inferencer('street.mp4', ['the red car', 'a man with a dog'], out_dir='out')
        result['predictions']['sentences'][0]['score']

    By default the video runs through the network in chunks, in memory that its length does not change
    (`StreamPredictor`); ``whole=True`` is the way of ``tools/test.py``, all frames at once.

    MMEngine's `mmengine.infer.BaseInferencer` makes batches of many inputs; here one input at a time is large, so
    that `preprocess`, `forward` and `visualize` pass it on piece by piece, and ``__call__`` names its
    arguments itself.

    Args:
        config: config file, ``mmsoc::soc/NAME.py`` of the installed package, or a
            config. None: the one that MMEngine wrote into the checkpoint.
        weights: checkpoint. Nothing else is loaded: ``pretrained`` of backbone and text encoder is not read,
            except that the tokenizer is found by it (``model.text_encoder.tokenizer``, else
            ``model.text_encoder.pretrained``).
        device: None: a GPU if there is one.
        cfg_options: changes of the config, ``{'model.test_cfg.mask_threshold': 0.4}``.
        show_progress: a bar on the terminal.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no weights or no config, the checkpoint is broken or does not fit the model
            (`mmsoc.engine.StrictLoadHook`), the model is no SOC, or the device is not there.
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
        if weights is None:
            raise UserError('weights: expected a checkpoint, found none')
        self.weights = os.fspath(weights)
        name = _check_device(device)
        checkpoint = _read_checkpoint(self.weights)
        if config is None:
            cfg, self.config = _config_of(checkpoint, self.weights), None
        else:
            cfg, self.config = _read_config(config)
        options = dict(cfg_options or {})
        warn_of_variables(cfg, options)
        cfg.merge_from_dict(options)
        if cfg.get('model') is None:
            raise UserError(f'config {self.config or self.weights}: expected the key `model`, found {sorted(cfg)}')
        self._checkpoint: dict = checkpoint
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmsoc'):
            super().__init__(cfg, self.weights, name, cfg.get('default_scope') or 'mmsoc', show_progress)
        del self._checkpoint

    # ------------------------------------------------------------------------------------------------ what the base asks for

    def _init_model(self, cfg: Config, weights: str, device: str = 'cpu') -> nn.Module:
        try:
            model = MODELS.build(cfg.model)  # reads no `pretrained`: that is for init_weights
        except (ValueError, FileNotFoundError) as error:
            if 'text_encoder.pretrained' not in str(error):
                raise
            raise type(error)(
                f'{error}; a folder that is elsewhere on this machine: --cfg-options model.text_encoder.pretrained=FOLDER '
                "(in Python cfg_options={'model.text_encoder.pretrained': 'FOLDER'})"
            ) from error
        if not isinstance(model, SOC):
            raise UserError(f'config key `model`: expected a SOC, found {type(model).__name__}')
        state = self._checkpoint.get('state_dict', self._checkpoint)
        problem = _load_hook(cfg).mismatch(model.state_dict(), state)
        if problem:
            raise UserError(f'checkpoint {weights} does not fit the model {type(model).__name__}:\n{problem}')
        _load_checkpoint_to_model(model, self._checkpoint)
        # Both are for data sets' metrics, and say nothing of what a sentence names.
        model.test_cfg = {**model.test_cfg, 'all_queries': False, 'return_logits': False}
        model.cfg = cfg
        return model.to(device).eval()

    def _init_pipeline(self, cfg: Config) -> Compose:
        """The test pipeline without what reads files."""
        dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
        while 'pipeline' not in dataset and ('dataset' in dataset or 'datasets' in dataset):
            dataset = dataset.get('dataset') or dataset['datasets'][0]  # data set wrappers
        if not dataset.get('pipeline'):
            raise UserError(
                'config key `test_dataloader.dataset.pipeline`: expected the transforms of a test, found none'
            )
        steps = dataset['pipeline']
        return Compose([step for step in steps if not issubclass(_class_of(TRANSFORMS, step['type']), _LOADERS)])

    def _init_visualizer(self, cfg: Config) -> RVOSLocalVisualizer:
        """The config's colors, but not its backends: files are written here."""
        chosen = cfg.get('visualizer') or {}
        options = {key: chosen[key] for key in ('colors', 'alpha', 'contour') if key in chosen}
        return RVOSLocalVisualizer('inferencer', **options)

    # ---------------------------------------------------------------------------------------------------------------- calling

    def __call__(  # type: ignore[override]
        self,
        inputs: Any,
        texts: str | Sequence[str],
        *,
        whole: bool = False,
        chunk_frames: int = 24,
        overlap: int = 8,
        score_threshold: float = 0.0,
        out_dir: str | Path | None = None,
        overwrite: bool = False,
        fps: float | None = None,
        return_masks: bool = True,
        return_vis: bool = False,
    ) -> dict[str, Any]:
        """Segments what each sentence names.

        Args:
            inputs: path of a video, of a folder of jpg or png frames or of a picture; RGB frames, uint8, as an array
                (T, H, W, 3) or a list of (H, W, 3); an RGB picture, uint8 (H, W, 3); or what `open_frames` gives.
            texts: E sentences, or one. The network sees them in lower case with single spaces, as those it was trained on.
            whole: all frames run at once, exactly as in ``tools/test.py``; memory grows with the video. (Where the config cuts
                videos by ``model.test_cfg.frames_per_clip``, this does so, too; the default way does not.)
            chunk_frames, overlap: of the default way, see `StreamPredictor`.
            score_threshold: a sentence with a lower score names nothing: its masks are empty.
            out_dir: writes ``masks/NUMBER_SENTENCE/00000.png`` (8-bit, 0 and 255, original size; for a folder the frames' own
                names), ``overlay.mp4`` (for a picture ``overlay.png``) and ``scores.json``, which is ``predictions`` below without
                the masks. The folder must be empty.
            overwrite: replaces earlier results in ``out_dir``.
            fps: of the overlay of a folder or an array; 6 by default. A video has its own.
            return_masks: whether ``predictions`` hold the masks.
            return_vis: whether ``visualization`` is the drawn frames (all of them in memory).

        Returns:
            ``predictions``, plain numbers and strings that JSON can hold, and ``visualization``: a list of T drawn frames,
            uint8 (h, w, 3), if ``return_vis``; else the path of the overlay; else None.

            ``predictions`` has ``file`` (None: an array), ``kind`` (video, folder, image or array), ``width``, ``height``,
            ``num_frames``, ``fps`` (None: not known), ``config`` (None: that in the weights), ``weights``, ``device``,
            ``prediction`` (how it was made), ``score_threshold``, ``versions``, and ``sentences``, in the order of ``texts``, each
            with

            - ``text`` as given,
            - ``score``, in [0, 1], the mean of ``frame_scores``,
            - ``above_threshold``: False where ``score`` is below ``score_threshold`` and all masks are empty,
            - ``frame_scores``, T numbers in [0, 1],
            - ``boxes``, T lists x1, y1, x2, y2: the first and the last column and row of the mask, in pixels of the original
              frame; None where the mask is empty,
            - ``masks``, T run-length codes for ``pycocotools.mask.decode`` (not with ``return_masks=False``),
            - ``mask_folder``, below ``out_dir`` (None without).

        Raises:
            FileNotFoundError, ValueError: as `open_frames`; an empty or too long sentence; frames whose sides are so unequal
                that nothing of one is left at the network's size; an ``out_dir`` that is in use; or a tokenizer that is
                not there.
        """
        source = open_frames(inputs, fps)
        sentences = _check_texts(texts)
        if not 0 <= score_threshold <= 1:
            raise UserError(f'score_threshold must be in [0, 1], as scores are; found {score_threshold}')
        seen_texts = [clean_text(text, 'texts') for text in sentences]
        record = _Record(sentences, return_masks)
        folders = [f'{MASKS}/{name}' for name in mask_folders(sentences)]
        with ExitStack() as stack:
            stack.enter_context(DefaultScope.overwrite_default_scope(self.scope))
            self._check_language(seen_texts)
            folder = None if out_dir is None else stack.enter_context(ResultFolder(out_dir, overwrite))
            progress = stack.enter_context(self._progress())
            advance = _bar(progress, 'reading, network' if not whole else 'reading', source.length)
            pieces = stack.enter_context(closing(prefetch(self.preprocess(source, seen_texts, advance))))
            prediction = stack.enter_context(
                self.forward(pieces, seen_texts, source.size, whole=whole, chunk_frames=chunk_frames, overlap=overlap)
            )
            scores = [round(score, 6) for score in prediction.scores.tolist()]
            above = [score >= score_threshold for score in scores]
            num_frames = prediction.frame_scores.shape[1]
            masks = self._masks(prediction, above, record, _bar(progress, 'masks', num_frames))
            if folder is not None:
                # Closed before the folder is, whatever happens: nothing is written then.
                masks = stack.enter_context(closing(_written(masks, [folder / name for name in folders], source)))
            captions = [
                f'{text}  ({score:.2f})' + ('' if kept else f', below {score_threshold:g}')
                for text, score, kept in zip(sentences, scores, above)
            ]
            visualization = self.visualize(source, masks, captions=captions, folder=folder, return_vis=return_vis)
            about: dict[str, Any] = dict(
                file=source.path,
                kind=source.kind,
                width=source.size[1],
                height=source.size[0],
                num_frames=num_frames,
                fps=None if source.fps is None else round(float(source.fps), 6),
                config=self.config,
                weights=self.weights,
                device=str(next(self.model.parameters()).device),
                prediction=dict(
                    precision=self.model.test_cfg['precision'],
                    query_per_frame=self.model.test_cfg['query_per_frame'],
                    **(dict(whole=True) if whole else dict(whole=False, chunk_frames=chunk_frames, overlap=overlap)),
                ),
                score_threshold=score_threshold,
                versions=versions(),
            )
            frame_scores = [[round(score, 6) for score in of_text] for of_text in prediction.frame_scores.tolist()]
            about['sentences'] = [
                dict(
                    text=text,
                    score=scores[index],
                    above_threshold=above[index],
                    mask_folder=None if folder is None else folders[index],
                    frame_scores=frame_scores[index],
                    boxes=record.boxes[index],
                )
                for index, text in enumerate(sentences)
            ]
            if folder is not None:
                dump_json(about, folder / SCORES, indent=1, ensure_ascii=False)
        shown: Any = visualization
        if isinstance(visualization, Path) and out_dir is not None:  # it has moved
            shown = str(Path(out_dir) / visualization.name)
        return self.postprocess(about, shown, masks=record.masks if return_masks else None)

    def preprocess(  # type: ignore[override]
        self, inputs: FrameSource, texts: Sequence[str], advance: Callable[[int], None] = lambda count: None
    ) -> Iterator[dict]:
        """Frames at the network's size, a few at a time: ``dict(inputs=uint8 (t, 3, h, w), data_samples=TrackDataSample)``.

        Raises:
            ValueError: a frame cannot be brought to that size.
        """
        height, width = inputs.size
        # A few frames per call of the pipeline, and not too many large ones.
        step = min(max(2**26 // (3 * height * width), 1), 8)
        images: list[np.ndarray] = []
        start = 0
        for image in inputs.read():
            images.append(image)
            if len(images) == step:
                yield self._packed(inputs, images, start, texts)
                advance(step)
                start += step
                images = []
        if images:
            yield self._packed(inputs, images, start, texts)
            advance(len(images))

    def _packed(self, source: FrameSource, images: list[np.ndarray], start: int, texts: Sequence[str]) -> dict:
        count, shapes = len(images), [image.shape[:2] for image in images]
        indices = list(range(start, start + count))
        sample = dict(
            img=images,
            img_path=[source.path or source.kind] * count,
            ori_shape=shapes,
            img_shape=list(shapes),
            scale_factor=[(1.0, 1.0)] * count,
            flip=[False] * count,
            flip_direction=[None] * count,
            video_id=source.path or source.kind,
            frames=[source.name(index) for index in indices],
            frame_ids=indices,
            texts=list(texts),
            exp_ids=[str(index) for index in range(len(texts))],
            obj_ids=None,
            mask_paths=None,
        )
        height, width = source.size
        try:
            packed = self.pipeline(sample)
        except (ValueError, ZeroDivisionError) as error:
            raise UserError(
                f'{source.path or source.kind}: frames of {width}x{height} cannot be brought to the size of the network '
                f'({error}); are their sides too unequal? Cut them first'
            ) from error
        if start == 0:
            self._mention_size(source, packed['inputs'].shape[-2:])
        return packed

    def _mention_size(self, source: FrameSource, size: Sequence[int]) -> None:
        height, width = size
        where = f'{source.path or source.kind}: the network sees frames of {width}x{height}'
        if min(size) < 32:
            print_log(f'{where}; below 32 little can be seen in them', logger='current', level=WARNING)
        if (height, width) == source.size and height * width > LARGE:
            print_log(
                f'{where}, since the test pipeline of the config has no ShortSideResize; if memory or patience do not suffice, '
                'make the video smaller',
                logger='current',
                level=WARNING,
            )

    @contextmanager
    def forward(  # type: ignore[override]
        self,
        inputs: Iterable[dict],
        texts: Sequence[str],
        ori_shape: tuple[int, int],
        *,
        whole: bool = False,
        chunk_frames: int = 24,
        overlap: int = 8,
    ) -> Iterator[VideoPrediction]:
        """Predicts; the masks can be read inside of the ``with`` block.

        Args:
            inputs: what `preprocess` gives.
            texts: E sentences, as the network sees them.
            ori_shape: (H, W) of the masks.
        """
        if whole:
            yield self._whole(list(inputs))
            return
        before = self.model.test_cfg
        self.model.test_cfg = {**before, 'frames_per_clip': None}
        try:
            with ExitStack() as stack:
                stream: StreamPredictor | None = None
                for piece in inputs:
                    frames = piece['inputs']
                    if stream is None:
                        size = frames.shape[-2], frames.shape[-1]
                        stream = StreamPredictor(
                            self.model,
                            texts,
                            frame_size=size,
                            ori_shape=ori_shape,
                            chunk_frames=chunk_frames,
                            overlap=overlap,
                        )
                        stack.enter_context(stream)
                    stream.feed(frames)
                if stream is None:
                    raise UserError('there is no frame')
                found = stream.finish()
                yield VideoPrediction(
                    found.scores, found.frame_scores, lambda: (masks.numpy() for masks in stream.masks())
                )
        finally:
            self.model.test_cfg = before

    def _whole(self, pieces: Sequence[dict]) -> VideoPrediction:
        if not pieces:
            raise UserError('there is no frame')
        sample = pieces[0]['data_samples']
        sample.video_data_samples = [frame for piece in pieces for frame in piece['data_samples'].video_data_samples]
        frames = torch.cat([piece['inputs'] for piece in pieces])
        (found,) = super().forward(self.collate_fn([dict(inputs=frames, data_samples=sample)]))

        def masks(step: int = 8) -> Iterator[np.ndarray]:
            for start in range(0, len(frames), step):
                codes = [of_text[start : start + step] for of_text in found.pred_masks]
                yield np.stack([coco_mask.decode(code).transpose(2, 0, 1) for code in codes]).astype(bool)

        return VideoPrediction(found.pred_scores, found.pred_frame_scores, masks)

    def visualize(  # type: ignore[override]
        self,
        inputs: FrameSource,
        preds: Iterable[np.ndarray],
        *,
        captions: Sequence[str],
        folder: Path | None = None,
        return_vis: bool = False,
    ) -> Path | list[np.ndarray] | None:
        """Draws all masks and a legend on each frame, and reads ``preds`` to the end.

        Args:
            inputs: is read again.
            preds: masks of each frame, bool (E, H, W).
            captions: E lines of the legend.
            folder: gets ``overlay.mp4``, or ``overlay.png`` of a picture.
            return_vis: returns the drawn frames.
        """
        if folder is None and not return_vis:
            for _ in preds:
                pass
            return None
        path = None if folder is None else folder / (PICTURE if inputs.kind == 'image' else VIDEO)
        drawn: list[np.ndarray] = []
        with ExitStack() as stack:
            images = stack.enter_context(closing(prefetch(inputs.read(), depth=2)))
            video = None
            if path is not None and path.suffix == '.mp4':
                video = stack.enter_context(VideoWriter(path, fps=inputs.fps or FPS))
            # One thread: frames are encoded in order.
            drawer = stack.enter_context(WorkerPool(1, pending=4))

            def draw(index: int, image: np.ndarray, masks: np.ndarray) -> None:
                picture = self.visualizer.draw_sentences(image, masks, captions)
                if return_vis:
                    drawn.append(picture)
                if video is not None:
                    video.write(picture, None if inputs.times is None else inputs.times[index])
                elif path is not None:
                    Image.fromarray(picture).save(path)

            for index, (image, masks) in enumerate(zip(images, preds, strict=True)):
                drawer.submit(draw, index, image, masks)
        return drawn if return_vis else path

    def postprocess(  # type: ignore[override]
        self,
        preds: dict[str, Any],
        visualization: Any,
        *,
        masks: Sequence[list[dict]] | None = None,
    ) -> dict[str, Any]:
        """Adds the masks' codes, per sentence a list over frames, to the sentences; see `__call__`."""
        if masks is not None:
            sentences = [dict(item, masks=codes) for item, codes in zip(preds['sentences'], masks, strict=True)]
            preds = dict(preds, sentences=sentences)
        return dict(predictions=preds, visualization=visualization)

    # ---------------------------------------------------------------------------------------------------------------- pieces

    def _check_language(self, texts: Sequence[str]) -> None:
        """Runs the text encoder, which names what it cannot take, before a video is read."""
        try:
            with torch.no_grad():
                self.model.extract_text(texts)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error}. The folder: --cfg-options model.text_encoder.pretrained=FOLDER (in Python cfg_options='
                "{'model.text_encoder.pretrained': 'FOLDER'}); a folder with the tokenizer alone: model.text_encoder.tokenizer"
            ) from error

    def _masks(
        self, prediction: VideoPrediction, above: Sequence[bool], record: _Record, advance: Callable[[int], None]
    ) -> Generator[np.ndarray, None, None]:
        """The masks of one frame after the other, bool (E, H, W), none of sentences below the threshold."""
        named = np.array(above)
        for masks in prediction.masks():
            masks[~named] = False
            for frame in range(masks.shape[1]):
                record.add(masks[:, frame])
                yield masks[:, frame]
                advance(1)

    def _progress(self) -> Progress:
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, disable=not self.show_progress)


def _bar(progress: Progress, title: str, total: int | None) -> Callable[[int], None]:
    """Adds a bar; returns what moves it on."""
    return partial(progress.advance, progress.add_task(f'{title:16s}', total=total))


def _written(
    masks: Iterable[np.ndarray], folders: Sequence[Path], source: FrameSource
) -> Generator[np.ndarray, None, None]:
    """Passes masks on and has them written by threads."""
    for folder in folders:
        folder.mkdir(parents=True)
    workers = min(os.cpu_count() or 1, 4)
    with WorkerPool(workers, pending=4 * workers) as pool:
        for index, of_frame in enumerate(masks):
            for folder, mask in zip(folders, of_frame, strict=True):
                pool.submit(write_mask, folder / f'{source.name(index)}.png', mask)
            yield of_frame


def _check_texts(texts: str | Sequence[str]) -> list[str]:
    sentences = [texts] if isinstance(texts, str) else list(texts)
    if not sentences:
        raise UserError('texts: expected at least one sentence, found none')
    for text in sentences:
        if not isinstance(text, str) or not text.strip():
            raise UserError(f'texts: expected sentences that name an object, found {text!r}')
    return sentences


def _check_device(device: str | torch.device | None) -> str:
    """The device's name, if it is there."""
    if device is None:
        return get_device()
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UserError(f'device {device!r}: expected cpu, cuda, cuda:1, ...; {str(error).splitlines()[0]}') from None
    if wanted.type == 'cuda' and not torch.cuda.is_available():
        raise UserError(
            f'device {device!r}: this machine shows no GPU to PyTorch {torch.__version__} (torch.cuda.is_available() is '
            'False); use cpu'
        )
    if wanted.type == 'cuda' and (wanted.index or 0) >= torch.cuda.device_count():
        raise UserError(f'device {device!r}: there are {torch.cuda.device_count()} GPUs, counted from 0')
    return str(wanted)


def _read_checkpoint(path: str) -> dict:
    if '://' not in path and not Path(path).is_file():
        found = 'it is a folder' if Path(path).is_dir() else f'there is no such file (looked in {os.getcwd()})'
        raise FileNotFoundError(f'weights {path}: {found}')
    try:
        checkpoint = _load_checkpoint(path, map_location='cpu')
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(
            f'weights {path} cannot be read: expected what torch.save wrote, tensors and plain values only; '
            f'{str(error).splitlines()[0] if str(error) else type(error).__name__}'
        ) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f'weights {path}: expected a dict, found {type(checkpoint).__name__}')
    return checkpoint


def _config_of(checkpoint: Mapping, weights: str) -> Config:
    """The config that MMEngine keeps in its checkpoints."""
    text = (checkpoint.get('meta') or {}).get('cfg')
    if not isinstance(text, str):
        raise UserError(
            f'weights {weights} hold no config (meta.cfg), as those that were converted or published alone; name it: '
            '--config configs/soc/NAME.py (in Python config=)'
        )
    return Config.fromstring(text, file_format='.py')


def _read_config(config: str | Path | Config | Mapping) -> tuple[Config, str | None]:
    """A copy of the config, and its file."""
    if isinstance(config, Config):
        return Config(config._cfg_dict.to_dict()), config.filename
    if isinstance(config, Mapping):
        return Config(ConfigDict(config).to_dict()), None
    path = os.fspath(config)
    if '::' in path:
        return get_config(path), path
    if not Path(path).is_file():
        found = 'it is a folder' if Path(path).is_dir() else f'there is no such file (looked in {os.getcwd()})'
        raise FileNotFoundError(f'config {path}: {found}')
    return Config.fromfile(path), path


def _class_of(registry: Registry, kind: str | type) -> type:
    """What ``type=`` of a config stands for; of an unknown name `object`, since whoever builds it says so better."""
    return kind if isinstance(kind, type) else registry.get(kind) or object


def _load_hook(cfg: Config) -> StrictLoadHook:
    """The config's, which may make exceptions."""
    for hook in cfg.get('custom_hooks') or ():
        if _class_of(HOOKS, hook['type']) is StrictLoadHook:
            return HOOKS.build(dict(hook))
    return StrictLoadHook()
