"""Masks in the formats of other tools: the argument ``formats`` of `SOCInferencer` and ``--format`` of tools/infer.py."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json
from mmsoc.utils.masks import box_of_mask, json_codes
from mmsoc.visualization import VideoWriter

from .results import DEFAULT_FPS, FORMAT_FILES, mask_folders, write_mask
from .video_io import FrameSource, WorkerPool


@dataclass(frozen=True)
class Exported:
    """What is exported, apart from the masks."""

    folder: Path
    source: FrameSource
    texts: Sequence[str]
    """E sentences"""
    scores: Sequence[float]
    """E, in [0, 1]"""

    @property
    def video_name(self) -> str:
        return Path(self.source.path).stem if self.source.path else 'video'

    @property
    def fps(self) -> float:
        return float(self.source.fps or DEFAULT_FPS)


class Exporter(ABC):
    """Writes masks, which arrive frame by frame::

        with Exporter(what) as exporter:
            exporter.add(0, masks)

    Args:
        what: where, and of what.
    """

    name: ClassVar[str]
    """of the format, a key of `FORMAT_FILES`"""

    def __init__(self, what: Exported) -> None:
        self.what = what
        self.target = what.folder / FORMAT_FILES[self.name][0]

    def __enter__(self) -> 'Exporter':
        with ExitStack() as stack:
            self.open(stack)
            self._stack = stack.pop_all()
        return self

    def open(self, stack: ExitStack) -> None:
        """Makes folders, and opens what ``stack`` closes after `finish`, or after an error."""
        return None

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._stack.__exit__(*error)
            return
        with self._stack:
            self.finish()

    @abstractmethod
    def add(self, index: int, masks: np.ndarray) -> None:
        """Takes bool (E, H, W) of the next frame."""

    def finish(self) -> None:
        """After the last frame."""
        return None


class MaskImages(Exporter):
    """``masks/NUMBER_SENTENCE/00000.png``, 8-bit, 0 and 255."""

    name = 'png'

    def open(self, stack: ExitStack) -> None:
        self.folders = [self.target / name for name in mask_folders(self.what.texts)]
        for folder in self.folders:
            folder.mkdir(parents=True)
        self._pool = stack.enter_context(WorkerPool(4, pending=16))

    def add(self, index: int, masks: np.ndarray) -> None:
        for folder, mask in zip(self.folders, masks, strict=True):
            self._pool.submit(write_mask, folder / f'{self.what.source.name(index)}.png', mask)


class DavisImages(Exporter):
    """``davis/Annotations/VIDEO/00000.png`` with DAVIS's palette: pixel value e is sentence e, counted from 1.

    An image has one object per pixel: where masks overlap, the sentence with the higher score has it.
    """

    name = 'davis'

    def __init__(self, what: Exported) -> None:
        super().__init__(what)
        if len(what.texts) > 255:
            raise UserError(f'format davis: at most 255 sentences fit into an image, found {len(what.texts)}')

    def open(self, stack: ExitStack) -> None:
        self.images = self.target / 'Annotations' / self.what.video_name
        self.images.mkdir(parents=True)
        lines = (f'{number}\t{" ".join(text.split())}\n' for number, text in enumerate(self.what.texts, 1))
        (self.target / 'objects.txt').write_text(''.join(lines), encoding='utf-8')

    def add(self, index: int, masks: np.ndarray) -> None:
        ids = np.zeros(masks.shape[1:], np.uint8)
        for sentence in np.argsort(self.what.scores, kind='stable'):
            ids[masks[sentence]] = sentence + 1
        image = Image.fromarray(ids, mode='P')
        image.putpalette(davis_palette())
        image.save(self.images / f'{self.what.source.name(index)}.png')


def davis_palette() -> list[int]:
    """The colours of PASCAL VOC and DAVIS: the bits of an id, spread over the channels."""
    colours = []
    for index in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours += channels
    return colours


class _Codes(Exporter):
    """Keeps the run-length codes of all masks."""

    def __init__(self, what: Exported) -> None:
        super().__init__(what)
        self.codes: list[list[dict]] = [[] for _ in what.texts]
        self.boxes: list[list[list[float] | None]] = [[] for _ in what.texts]

    def add(self, index: int, masks: np.ndarray) -> None:
        for of_sentence, boxes, code, mask in zip(self.codes, self.boxes, json_codes(masks), masks, strict=True):
            of_sentence.append(code)
            boxes.append(coco_mask.toBbox(code).tolist() if mask.any() else None)

    def area(self, sentence: int, frame: int) -> int:
        return int(coco_mask.area(self.codes[sentence][frame]))

    def file_names(self) -> list[str]:
        """Of the T frames."""
        return [self.what.source.file_name(index) for index in range(len(self.boxes[0]))]

    def categories(self) -> list[dict]:
        """A category for each sentence."""
        return [dict(id=number, name=text) for number, text in enumerate(self.what.texts, 1)]


class CocoJson(_Codes):
    """``coco.json``: an image for each frame, an annotation for each mask with ``track_id`` (COCO-VID); read by pycocotools."""

    name = 'coco'

    def finish(self) -> None:
        height, width = self.what.source.size
        annotations = [
            dict(
                id=frame * len(self.codes) + sentence + 1,
                image_id=frame + 1,
                video_id=1,
                category_id=sentence + 1,
                track_id=sentence + 1,
                segmentation=self.codes[sentence][frame],
                bbox=box,
                area=self.area(sentence, frame),
                iscrowd=0,
                score=self.what.scores[sentence],
            )
            for frame in range(len(self.boxes[0]))
            for sentence in range(len(self.codes))
            if (box := self.boxes[sentence][frame]) is not None
        ]
        images = [
            dict(id=frame + 1, video_id=1, frame_id=frame, file_name=name, width=width, height=height)
            for frame, name in enumerate(self.file_names())
        ]
        videos = [dict(id=1, name=self.what.video_name)]
        content = dict(videos=videos, images=images, categories=self.categories(), annotations=annotations)
        dump_json(content, self.target, ensure_ascii=False)


class YouTubeVISJson(_Codes):
    """``ytvis.json``: an annotation for each sentence, with a mask or null for each frame."""

    name = 'ytvis'

    def finish(self) -> None:
        height, width = self.what.source.size
        names = self.file_names()
        annotations = [
            dict(
                id=sentence + 1,
                video_id=1,
                category_id=sentence + 1,
                segmentations=[code if box else None for code, box in zip(codes, boxes, strict=True)],
                bboxes=boxes,
                areas=[self.area(sentence, frame) if boxes[frame] else None for frame in range(len(names))],
                iscrowd=0,
                score=self.what.scores[sentence],
            )
            for sentence, (codes, boxes) in enumerate(zip(self.codes, self.boxes, strict=True))
        ]
        video = dict(id=1, width=width, height=height, length=len(names), file_names=names)
        content = dict(videos=[video], categories=self.categories(), annotations=annotations)
        dump_json(content, self.target, ensure_ascii=False)


class CvatXml(Exporter):
    """``cvat.xml``, "CVAT for video 1.1": a track of masks for each sentence, which is its label."""

    name = 'cvat'

    def __init__(self, what: Exported) -> None:
        super().__init__(what)
        self.tracks: list[list[str]] = [[] for _ in what.texts]
        self._was_visible = [False] * len(what.texts)
        self.num_frames = 0

    def add(self, index: int, masks: np.ndarray) -> None:
        self.num_frames = index + 1
        for sentence, mask in enumerate(masks):
            visible = bool(mask.any())
            if visible:
                left, top, right, bottom = map(int, box_of_mask(mask))  # of the last row and column, too
                part = mask[top : bottom + 1, left : right + 1]
                place = f'left="{left}" top="{top}" width="{right - left + 1}" height="{bottom - top + 1}"'
                self._mask(sentence, index, ', '.join(map(str, runs_of(part))), place, outside=0)
            elif self._was_visible[sentence]:
                self._mask(sentence, index, '1', 'left="0" top="0" width="1" height="1"', outside=1)
            self._was_visible[sentence] = visible

    def _mask(self, sentence: int, frame: int, rle: str, place: str, outside: int) -> None:
        self.tracks[sentence].append(
            f'    <mask frame="{frame}" keyframe="1" outside="{outside}" occluded="0" rle="{rle}" {place} z_order="{sentence}"/>'
        )

    def finish(self) -> None:
        height, width = self.what.source.size
        labels = ''.join(
            f'<label><name>{escape(text)}</name><type>mask</type><attributes/></label>' for text in self.what.texts
        )
        lines = [
            '<?xml version="1.0" encoding="utf-8"?>',
            '<annotations>',
            '  <version>1.1</version>',
            f'  <meta><task><name>{escape(self.what.video_name)}</name><size>{self.num_frames}</size><mode>interpolation</mode>'
            f'<start_frame>0</start_frame><stop_frame>{self.num_frames - 1}</stop_frame><labels>{labels}</labels>'
            f'<original_size><width>{width}</width><height>{height}</height></original_size></task></meta>',
        ]
        for number, (text, masks) in enumerate(zip(self.what.texts, self.tracks, strict=True)):
            lines += [f'  <track id="{number}" label={quoteattr(text)} source="auto">', *masks, '  </track>']
        self.target.write_text('\n'.join([*lines, '</annotations>', '']), encoding='utf-8')


def runs_of(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a bool (h, w) row by row, the first of which, maybe 0, is of False."""
    flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
    (changes,) = np.nonzero(flat[1:] != flat[:-1])
    return np.diff(changes, prepend=0).tolist()


class LabelStudioJson(Exporter):
    """``label_studio.json``: a task for each frame with a brush mask for each sentence, to be imported as predictions.

    ``label_studio.xml`` is the labelling interface. The images are those of the frames, below the address in
    ``data.image``.

    Raises:
        UserError: label-studio-sdk, which encodes the masks, is missing.
    """

    name = 'label-studio'

    def __init__(self, what: Exported) -> None:
        super().__init__(what)
        try:
            from label_studio_sdk.converter.brush import mask2rle
        except ImportError as error:
            raise UserError(
                f'format label-studio needs label-studio-sdk: pip install label-studio-sdk ({error})'
            ) from None
        self._encode = mask2rle
        self.tasks: list[dict] = []

    def add(self, index: int, masks: np.ndarray) -> None:
        height, width = self.what.source.size
        result = [
            dict(
                id=f'{index}-{sentence}',
                type='brushlabels',
                from_name='sentence',
                to_name='image',
                original_width=width,
                original_height=height,
                image_rotation=0,
                value=dict(format='rle', rle=self._encode(mask.astype(np.uint8) * 255), brushlabels=[text]),
            )
            for sentence, (text, mask) in enumerate(zip(self.what.texts, masks, strict=True))
            if mask.any()
        ]
        name = quote(f'{self.what.video_name}/{self.what.source.file_name(index)}')
        prediction = dict(model_version='mmsoc', score=float(np.mean(self.what.scores)), result=result)
        self.tasks.append(dict(data=dict(image=f'/data/local-files/?d={name}', frame=index), predictions=[prediction]))

    def finish(self) -> None:
        dump_json(self.tasks, self.target, ensure_ascii=False)
        labels = ''.join(f'<Label value={quoteattr(text)}/>' for text in self.what.texts)
        (self.what.folder / FORMAT_FILES[self.name][1]).write_text(
            f'<View><Image name="image" value="$image"/>'
            f'<BrushLabels name="sentence" toName="image">{labels}</BrushLabels></View>\n',
            encoding='utf-8',
        )


class Mattes(Exporter):
    """``matte/NUMBER_SENTENCE.mp4``: white on black, lossless H.264, as a luma matte (track matte) for video editors."""

    name = 'matte'

    def open(self, stack: ExitStack) -> None:
        self.target.mkdir()
        self.writers = [
            stack.enter_context(VideoWriter(self.target / f'{name}.mp4', fps=self.what.fps, crf=0))
            for name in mask_folders(self.what.texts)
        ]

    def add(self, index: int, masks: np.ndarray) -> None:
        times = self.what.source.times
        for writer, mask in zip(self.writers, masks, strict=True):
            frame = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, 2)
            writer.write(frame, None if times is None else times[index])


FORMATS: dict[str, type[Exporter]] = {
    kind.name: kind for kind in (MaskImages, DavisImages, CocoJson, YouTubeVISJson, CvatXml, LabelStudioJson, Mattes)
}


def exporters(formats: Sequence[str], what: Exported, stack: ExitStack) -> list[Exporter]:
    """Opens the exporters of these formats, which ``stack`` closes.

    Raises:
        UserError: there is no such format, or it needs a package that is missing.
    """
    check_formats(formats)
    return [stack.enter_context(FORMATS[name](what)) for name in dict.fromkeys(formats)]


def check_formats(formats: Sequence[str]) -> None:
    """
    Raises:
        UserError: there is no such format.
    """
    if isinstance(formats, str):
        raise UserError(f'formats: expected a list of names, found the string {formats!r}')
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f'formats: expected some of {", ".join(FORMATS)}, found {", ".join(map(repr, unknown))}')
