"""A web page to try a model: `build_page`, `serve` (tools/demo.py). Needs Gradio: ``pip install mmsoc[demo]``."""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from PIL import Image

from mmsoc.preparation.moving_shapes.samples import FPS, sample_videos
from mmsoc.utils.errors import UserError, is_out_of_memory
from mmsoc.utils.files import dump_json
from mmsoc.visualization import write_video

from .inferencer import SOCInferencer
from .results import DEFAULT_FPS, MASKS, OVERLAY_IMAGE, VIDEO
from .video_io import FrameSource, open_frames

logger = logging.getLogger(__name__)

ABOUT = (
    'Segments the object that a sentence names, in every frame of a video. '
    '[SOC](https://arxiv.org/abs/2305.17011), in [mmsoc](https://github.com/mmsoc/mmsoc).'
)
ABOUT_SOC_MINI = (
    '`soc-mini` was trained on MovingShapes, generated videos of moving shapes like the samples below; it knows nothing else. '
    'Start the page with other weights for real videos: `python tools/demo.py --weights FILE_OR_NAME`.'
)
CSS = """
#status {min-height: 4em}
#status i {display: inline-block; width: 1em; height: 1em; margin-right: .5em; border-radius: 3px; vertical-align: -.1em}
#samples td {white-space: pre-line}
"""


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for."""

    frames: int = 600
    sentences: int = 8
    upload: str = '200mb'
    """largest file, in Gradio's notation"""
    waiting: int = 20
    """visitors in the queue; one is served at a time"""


class StoppedError(Exception):
    """The visitor stopped the run, or left."""


class Page:
    """What the page does: one prediction at a time, with one model in memory.

    Args:
        weights: checkpoints or names (`mmsoc.weights`) to choose from; the first is loaded now.
        folder: for samples and results.
        limits: what a visitor may ask for.
        device: None: a GPU if available.
    """

    def __init__(self, weights: Sequence[str], folder: Path, limits: Limits, device: str | None = None) -> None:
        if not weights:
            raise UserError('weights: expected at least one checkpoint or name, found none')
        self.weights = list(dict.fromkeys(weights))
        self.folder = folder
        self.limits = limits
        self.device = device
        self._loaded: tuple[str, SOCInferencer] | None = None
        self._session: str | None = None  # whose run it is
        self._stop = threading.Event()
        self._load(self.weights[0])

    def _load(self, weights: str) -> SOCInferencer:
        if self._loaded is None or self._loaded[0] != weights:
            self._loaded = None  # the memory of two models at once may not be there
            self._loaded = weights, SOCInferencer(weights=weights, device=self.device, show_progress=False)
        return self._loaded[1]

    def segment(
        self,
        path: str | None,
        sentences: str,
        weights: str,
        session: str,
        progress: Callable[..., Any],
    ) -> 'Result':
        """Segments a visitor's video.

        Args:
            path: of the video.
            sentences: one per line.
            weights: one of those of the page.
            session: of the visitor; `stop` ends the run by it.
            progress: `gradio.Progress`: called with ``(done, total)``, ``desc`` and ``unit``.

        Raises:
            StoppedError: `stop` was called.
            UserError: the input is not as expected; the message has no path of this machine.
        """
        if path is None:
            raise UserError('there is no video; drop one on the left, or take a sample')
        texts = self._texts(sentences)
        if weights not in self.weights:
            raise UserError(f'weights: expected one of {", ".join(self.weights)}, found {weights!r}')
        self._session = session
        self._stop.clear()
        with ExitStack() as failed:
            out = Path(tempfile.mkdtemp(prefix='result-', dir=self.folder))
            failed.callback(shutil.rmtree, out, ignore_errors=True)
            try:
                result = self._segment(path, texts, weights, out, progress)
            except (UserError, FileNotFoundError) as error:
                raise UserError(str(error).replace(path, Path(path).name)) from error
            finally:
                self._session = None
            failed.pop_all()
        return result

    def _segment(
        self, path: str, texts: Sequence[str], weights: str, out: Path, progress: Callable[..., Any]
    ) -> 'Result':
        source = open_frames(path)
        self._check_length(source.length or 0, source)

        def on_progress(stage: str, done: int, total: int | None) -> None:
            if self._stop.is_set():
                raise StoppedError
            self._check_length(done, source)
            progress((done, total), desc=stage, unit='frames')

        inferencer = self._load(weights)
        found = inferencer(source, texts, out_dir=out / 'out', return_masks=False, on_progress=on_progress)
        colors = [inferencer.visualizer.color_of(index) for index in range(len(texts))]
        return Result.of(out, found['predictions'], Path(path).name, colors)

    def stop(self, session: str) -> None:
        """Ends the session's run, if it is running, at its next frames."""
        if session == self._session:
            self._stop.set()

    def _texts(self, sentences: str) -> list[str]:
        texts = [line.strip() for line in sentences.splitlines() if line.strip()]
        if not texts:
            raise UserError('there is no sentence; write one per line')
        if len(texts) > self.limits.sentences:
            raise UserError(f'expected at most {self.limits.sentences} sentences, found {len(texts)}')
        return texts

    def _check_length(self, frames: int, source: FrameSource) -> None:
        if frames > self.limits.frames:
            seconds = '' if source.fps is None else f' ({float(self.limits.frames / source.fps):.0f} seconds of it)'
            of_video = f'about {frames:,}' if source.length else f'more than {self.limits.frames:,}'
            raise UserError(
                f'the video has {of_video} frames; this page takes {self.limits.frames:,}{seconds}. Cut the video, or use '
                'tools/infer.py, which has no limit'
            )


@dataclass(frozen=True)
class Result:
    """Files of a finished run, and what the page shows of it."""

    folder: Path
    overlay: Path
    """video, or image"""
    frames: list[Path]
    """the drawn frames, T images"""
    masks: Path
    json: Path
    curve: pd.DataFrame
    """columns time, score, sentence"""
    colors: dict[str, str]
    """of the sentences, as #rrggbb"""
    summary: str
    """HTML"""

    @classmethod
    def of(cls, folder: Path, found: dict, name: str, colors: Sequence[tuple[int, int, int]]) -> 'Result':
        """From what `SOCInferencer` wrote to ``folder / 'out'`` and returned."""
        out = folder / 'out'
        found = {**found, 'file': name}
        dump_json(found, folder / 'scores.json', indent=1, ensure_ascii=False)
        shutil.make_archive(str(folder / 'masks'), 'zip', out, MASKS)
        image = out / OVERLAY_IMAGE
        overlay = image if image.exists() else out / VIDEO
        (folder / 'frames').mkdir()
        frames = [folder / 'frames' / f'{index:05d}.jpg' for index in range(found['num_frames'])]
        for file, pixels in zip(frames, open_frames(overlay).read(), strict=True):
            Image.fromarray(pixels).save(file, quality=90)
        fps = found['fps'] or DEFAULT_FPS
        names = [f'{number}. {sentence["text"]}' for number, sentence in enumerate(found['sentences'], 1)]
        rows = [
            dict(time=index / fps, score=score, sentence=name)
            for name, sentence in zip(names, found['sentences'], strict=True)
            for index, score in enumerate(sentence['frame_scores'])
        ]
        hexes = dict(zip(names, (f'#{r:02x}{g:02x}{b:02x}' for r, g, b in colors), strict=True))
        lines = [f'{found["width"]}x{found["height"]}, {found["num_frames"]} frames']
        for name, sentence in zip(names, found['sentences'], strict=True):
            seen = sum(box is not None for box in sentence['boxes'])
            swatch = f'<i style="background: {hexes[name]}"></i>'
            lines.append(f'{swatch}{escape(name)}: score {sentence["score"]:.2f}, seen in {seen} frames')
        return cls(
            folder,
            overlay,
            frames,
            folder / 'masks.zip',
            folder / 'scores.json',
            pd.DataFrame(rows),
            hexes,
            '<br>'.join(lines),
        )


def write_samples(folder: Path) -> list[tuple[Path, list[str]]]:
    """Writes `sample_videos`; returns their paths and sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for sample in sample_videos():
        path = folder / f'{sample.name}.mp4'
        write_video(path, list(sample.frames), fps=FPS)
        samples.append((path, sample.texts))
    return samples


def build_page(page: Page) -> gr.Blocks:
    """The layout and its events; `serve` launches it."""
    limits = page.limits
    samples = write_samples(page.folder / 'samples')

    def run(
        path: str | None,
        sentences: str,
        chosen: str,
        previous: Result | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it over)
    ) -> list[Any]:
        _remove(previous)
        result = None
        try:
            result = page.segment(path, sentences, chosen, str(request.session_hash), progress)
            status = result.summary
        except StoppedError:
            status = 'Stopped.'
        except UserError as error:
            status = f'<b>Not possible:</b> {escape(str(error))}'
        except Exception as error:
            # The page must outlive whatever a visitor's file does.
            logger.exception('a prediction failed')
            why = (
                'the memory of this machine'
                if is_out_of_memory(error)
                else 'an error of the program, which its log shows'
            )
            status = f'<b>Failed:</b> {why}. A shorter or smaller video may work.'
        return _shown(result, status)

    def end(request: gr.Request) -> None:
        page.stop(str(request.session_hash))

    def frame_of(result: Result | None, index: int) -> str | None:
        return None if result is None else str(result.frames[min(int(index), len(result.frames) - 1)])

    with gr.Blocks(title='mmsoc', analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        state = gr.State(None, time_to_live=3600, delete_callback=_remove)
        allowed = f'At most {limits.frames} frames, {limits.upload.upper()} and {limits.sentences} sentences.'
        about_weights = f'\n\n{ABOUT_SOC_MINI}' if 'soc-mini' in page.weights else ''
        gr.Markdown(f'# mmsoc\n{ABOUT} {allowed}{about_weights}')
        with gr.Row():
            with gr.Column():
                video = gr.Video(
                    label='Video',
                    sources=['upload', 'webcam'],
                    webcam_options=gr.WebcamOptions(mirror=False),
                    include_audio=True,  # False would need FFmpeg's program
                    height=300,
                    elem_id='video',
                )
                text = gr.Textbox(
                    label='Sentences, one per line',
                    placeholder='the star that is moving',
                    lines=3,
                    elem_id='sentences',
                )
                chosen = gr.Dropdown(
                    page.weights,
                    value=page.weights[0],
                    label='Weights',
                    visible=len(page.weights) > 1,
                    elem_id='weights',
                )
                with gr.Row():
                    start = gr.Button('Segment', variant='primary', elem_id='start')
                    stop = gr.Button('Stop', variant='stop', elem_id='stop')
                gr.Examples(
                    [[str(path), '\n'.join(texts)] for path, texts in samples],
                    [video, text],
                    label='Samples',
                    elem_id='samples',
                )
            with gr.Column():
                status = gr.HTML(elem_id='status')
                overlay = gr.Video(label='Result', interactive=False, autoplay=True, height=300, elem_id='overlay')
                slider = gr.Slider(0, 1, 0, step=1, label='Frame', visible=False, elem_id='frame')
                frame = gr.Image(label='Frame', interactive=False, visible=False, elem_id='frame-image')
                curve = gr.LinePlot(
                    x='time',
                    y='score',
                    color='sentence',
                    x_title=' ',  # cut off without a legend
                    y_lim=[0, 1],
                    label='Score of each sentence over time (seconds)',
                    colors_in_legend=[],  # the status has the colors; whole sentences do not fit here
                    height=220,
                    visible=False,
                    elem_id='curve',
                )
                with gr.Row():
                    downloads = [
                        gr.DownloadButton(label, visible=False, elem_id=name)
                        for label, name in (
                            ('Video', 'get-video'),
                            ('Masks (zip)', 'get-masks'),
                            ('Scores (JSON)', 'get-json'),
                        )
                    ]
        outputs = [status, overlay, slider, frame, curve, *downloads, state]
        inputs = [video, text, chosen, state]
        running = start.click(run, inputs, outputs, show_progress_on=status, api_name='segment')
        stop.click(end, None, None, cancels=running, queue=False, api_name=False)
        slider.change(
            frame_of,
            [state, slider],
            frame,
            queue=False,
            show_progress='hidden',
            trigger_mode='always_last',
            api_name=False,
        )
        blocks.unload(end)
    return blocks.queue(max_size=limits.waiting, default_concurrency_limit=1)


def _shown(result: Result | None, status: str) -> list[Any]:
    """Values of the page's outputs."""
    if result is None:
        hidden = [gr.update(visible=False, value=None) for _ in range(3)]
        return [status, None, *(gr.update(visible=False) for _ in range(3)), *hidden, None]
    return [
        status,
        str(result.overlay),
        gr.update(visible=True, value=0, maximum=max(len(result.frames) - 1, 1)),
        gr.update(visible=True, value=str(result.frames[0])),
        gr.update(visible=True, value=result.curve, color_map=result.colors),
        *(gr.update(visible=True, value=str(file)) for file in (result.overlay, result.masks, result.json)),
        result,
    ]


def _remove(result: Result | None) -> None:
    if result is not None:
        shutil.rmtree(result.folder, ignore_errors=True)


def serve(
    weights: Sequence[str],
    *,
    host: str = '127.0.0.1',
    port: int | None = None,
    limits: Limits = Limits(),
    device: str | None = None,
) -> None:
    """Serves the page until it is interrupted; all that visitors upload is removed then.

    Args:
        host: address to listen on; ``0.0.0.0`` for all.
        port: None: the first free one from 7860 on.
        weights, limits, device: see `Page`.

    Raises:
        FileNotFoundError, UserError: as `SOCInferencer`, for the first of ``weights``; the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix='mmsoc-demo-') as folder:
        # Gradio reads it at each upload.
        os.environ['GRADIO_TEMP_DIR'] = str(Path(folder) / 'uploads')
        blocks = build_page(Page(weights, Path(folder), limits, device))
        # Gradio's own fonts come from Google.
        theme = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])
        try:
            blocks.launch(
                server_name=host,
                server_port=port,
                theme=theme,
                css=CSS,
                allowed_paths=[folder],
                max_file_size=limits.upload,
                ssr_mode=False,
            )
        except OSError as error:
            raise UserError(f'--host {host} --port {port}: {error}') from error
