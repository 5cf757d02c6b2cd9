"""A2D-Sentences."""

import base64
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from mmsoc.visualization import write_video

from .source import Clip, Source


def write_a2d_sentences(root: Path, source: Source) -> dict[str, int]:
    clips = [(clip, 0) for clip in source.clips('train', source.num_train)]
    clips += [(clip, 1) for clip in source.clips('valid', source.num_valid)]
    missed = source.clips('train', 1, part=1)[0]
    videoset, sentences, annotations = [], [], 0
    for i, (clip, subset) in enumerate([*clips, (missed, 0)]):
        # like YouTube ids, some of which begin with a dash
        video = base64.urlsafe_b64encode(bytes.fromhex(clip.code(18)))[:11].decode()
        video = f'-{video[1:]}' if i == 0 else video
        path = root / f'Release/clips320H/{video}.mp4'
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, list(clip.frames), fps=25, crf=12)  # at this quality colours are preserved
        actors = [] if clip is missed else clip.targets[: 1 if i % 3 == 0 else 2]
        numbers = annotated_frames(clip, actors, 3 + i % 3) if actors else []
        for t in numbers:
            path = root / f'text_annotations/a2d_annotation_with_instances/{video}/{t + 1:05d}.h5'
            masks = {k: clip.masks(actor)[t] for k, actor in enumerate(actors) if clip.areas[actor, t]}
            write_h5(path, masks)
        height, width = clip.ids.shape[1:]
        videoset.append(
            f'{video},{11 + i % 7},0:00:01,0:00:04,{height},{width},{len(clip.ids)},{len(numbers)},{subset}'
        )
        sentences += [f'{video},{k},{odd(claim.text, i + k)}' for k, claim in zip(range(len(actors)), clip.claims)]
        if i == len(clips) - 1:
            sentences.append(f'{video},1 (copy),{clip.claims[-1].text}')
        annotations += len(numbers)
        if clip is missed:
            (root / 'text_annotations/a2d_missed_videos.txt').write_text(f'{video}\n')
    (root / 'Release/videoset.csv').write_text('\n'.join(videoset) + '\n')
    (root / 'text_annotations/a2d_annotation.txt').write_text(
        '\n'.join(['video_id,instance_id,query', *sentences]) + '\n'
    )
    return {'train videos': source.num_train, 'test videos': source.num_valid, 'annotations': annotations}


def odd(text: str, index: int) -> str:
    """Capitalizes some sentences, and adds extra spaces to some."""
    text = text.capitalize() if index % 3 == 1 else text
    return f' {text.replace(" ", "  ", 1)}' if index % 5 == 2 else text


def annotated_frames(clip: Clip, actors: Sequence[int], count: int) -> list[int]:
    """Frames spread over the video, each showing an actor and together showing all of them."""
    seen = clip.areas[actors] > 0
    some = np.flatnonzero(seen.any(0))
    chosen = set(some[np.linspace(0, len(some) - 1, count).astype(int)].tolist())
    chosen |= {int(of_actor.argmax()) for of_actor in seen if not of_actor[sorted(chosen)].any()}
    return sorted(chosen)


def write_h5(path: Path, masks: dict[int, np.ndarray]) -> None:
    """Like MATLAB: reversed axes, without the actors' axis if its length is 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stacked = np.stack([mask.T for mask in masks.values()]).astype(np.uint8)
    boxes = np.array([[x.min(), y.min(), x.max(), y.max()] for x, y in (np.nonzero(mask) for mask in stacked)], float)
    with h5py.File(path, 'w') as file:
        file['instance'] = np.array(list(masks), float)
        file['reMask'] = stacked[0] if len(masks) == 1 else stacked
        file['reBBox'] = boxes[0] if len(masks) == 1 else boxes.T
