"""Contact sheet of the model's input: samples of a config's data set after all augmentations, with masks and sentences.

    python tools/analysis_tools/browse_dataset.py configs/soc/soc_swin-t_ytvos.py --num 6 --out sheet.png

One row per sample: its frames (evenly chosen where there are more than --max-frames) and the sentence under them. For
a test split the masks are the annotated ones, one color per object, where the split has masks.
"""

import argparse
import random

import cv2
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.registry import DATASETS
from mmsoc.utils.errors import user_errors
from mmsoc.utils.files import atomic_path, read_ids
from mmsoc.visualization import RVOSLocalVisualizer, add_caption, contact_sheet


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--num', type=int, default=6, help='number of samples, drawn at random (default: %(default)s)')
    parser.add_argument('--max-frames', type=int, default=8, help='frames shown per sample (default: %(default)s)')
    parser.add_argument('--out', default='browse.png', help='the image to write (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of samples and of the augmentations')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value changes to the config')
    args = parser.parse_args()
    if args.num < 1 or args.max_frames < 1:
        parser.error('--num and --max-frames must be at least 1')
    return args


def row_of_sample(sample, visualizer, max_frames):
    """Draws one packed sample: uint8 (H, W, 3)."""
    frames = sample['inputs'].permute(0, 2, 3, 1).numpy()
    clip = sample['data_samples']
    annotated = list(clip.get('key_frames_inds', range(len(frames))))
    shown = np.linspace(0, len(frames) - 1, min(max_frames, len(frames))).round().astype(int)
    # If only some frames are annotated, these are always shown.
    shown = np.unique([*shown, *(annotated if len(annotated) < len(frames) else ())]).astype(int)
    colors = {obj_id: i for i, obj_id in enumerate(dict.fromkeys(clip.obj_ids or clip.exp_ids))}
    images = []
    for t in shown:
        image = frames[t]
        objects = clip[t].gt_instances
        if 'masks' in objects:
            box = objects.bboxes[0].numpy() if objects.visible[0] else None
            image = visualizer.draw_frame(image, objects.masks.masks[0], box=box)
        elif clip.mask_paths and clip.obj_ids:
            ids = cv2.resize(read_ids(clip.mask_paths[t]), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            for obj_id, color in colors.items():
                image = visualizer.draw_frame(image, ids == int(obj_id), index=color)
        elif clip.get('gt_rles') is not None:
            for codes, key in zip(clip.gt_rles, clip.obj_ids or clip.exp_ids):
                # Per frame (MeViS), or of the one annotated frame (A2D, JHMDB, RefCOCO).
                code = codes[t] if isinstance(codes, list) else codes if t in annotated else None
                if code is not None:
                    mask = cv2.resize(coco_mask.decode(code), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
                    image = visualizer.draw_frame(image, mask.astype(bool), index=colors[key])
        images.append(image)
    row = contact_sheet(images, ncols=len(images))
    names = f'frames {", ".join(clip.frames[t] for t in shown)}' + (', flipped' if clip[0].flip else '')
    for exp_id, text, key in zip(clip.exp_ids, clip.texts, clip.obj_ids or clip.exp_ids):
        color = visualizer.colors[colors[key] % len(visualizer.colors)]
        row = add_caption(row, f'{text} [{clip.video_id}, expression {exp_id}, {names}]', color, font_size=14)
    return row


@user_errors()
def main():
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmsoc'))
    loader = cfg.get(f'{args.split}_dataloader')
    if loader is None:
        raise SystemExit(f'{args.config} has no {args.split}_dataloader')
    dataset = DATASETS.build(loader.dataset)

    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    chosen = sorted(random.sample(range(len(dataset)), min(args.num, len(dataset))))
    visualizer = RVOSLocalVisualizer()
    rows = [row_of_sample(dataset[i], visualizer, args.max_frames) for i in chosen]
    with atomic_path(args.out) as temporary:
        Image.fromarray(contact_sheet(rows, ncols=1, gap=8)).save(temporary)
    print(f'{len(rows)} of {len(dataset)} samples of {args.split}: {args.out}')


if __name__ == '__main__':
    main()
