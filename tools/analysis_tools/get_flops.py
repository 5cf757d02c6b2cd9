"""Multiply-adds and parameters of a model's prediction, in total and by part.

    python tools/analysis_tools/get_flops.py configs/soc/soc_swin-t_ytvos.py --frames 8 --size 360x640 --sentences 1

PyTorch's FlopCounterMode counts matrix products, convolutions and attention; the result is halved, since OpenMMLab's
tools call multiply-adds FLOPs. Sampling (also of deformable attention), normalization and resizing are not counted.
Weights are random; nothing is downloaded.
"""

import argparse
import json
from pathlib import Path

from benchmark import build, make_batch, make_case
from mmengine.config import DictAction

from mmsoc.utils.errors import user_errors


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--frames', type=int, default=8, help='T')
    parser.add_argument('--size', default='360x640', metavar='HxW', help='of a frame')
    parser.add_argument('--sentences', type=int, default=1)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    parser.add_argument('--out', help='write the figures to this JSON file as well')
    args = parser.parse_args()
    if not Path(args.config).is_file():
        parser.error(f'config {args.config}: there is no such file')
    return args


@user_errors()
def main():
    args = parse_args()
    import torch
    from mmengine.analysis.print_helper import _format_size
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    case = make_case(
        args.config, frames=args.frames, size=args.size, sentences=args.sentences, cfg_options=args.cfg_options
    )
    torch.manual_seed(0)
    _, model = build(case)
    model.requires_grad_(False)  # otherwise PyTorch's counter looks for a graph, which a prediction does not build
    inputs, samples = make_batch(case)
    # Unfused: PyTorch counts the fused attention of a GPU but not that of a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(inputs, samples, mode='predict')
    counts = counter.get_flop_counts()
    parts = {}
    for name, part in model.named_children():
        # PyTorch attributes counts to module calls. SIM and the head are also called by methods other than `forward`;
        # those counts go to the outermost modules inside them.
        own = f'{type(model).__name__}.{name}'
        inside = {key for key in counts if key.startswith(f'{own}.')}
        outermost = [key for key in inside if not any(key.startswith(f'{other}.') for other in inside)]
        flops = max(sum(counts.get(own, {}).values()), sum(sum(counts[key].values()) for key in outermost)) // 2
        parts[name] = flops, sum(parameter.numel() for parameter in part.parameters())
    total = counter.get_total_flops() // 2
    print(f'{args.config}: {args.frames} frames of {args.size}, {args.sentences} sentence(s)\n')
    print('| part | multiply-adds | parameters |\n|---|---|---|')
    for name, (flops, size) in parts.items():
        if size or flops:
            print(f'| {name} | {_format_size(flops)} | {_format_size(size)} |')
    print(f'| all | {_format_size(total)} | {_format_size(sum(size for _, size in parts.values()))} |')
    print("\nThe box branches, which refine the decoder's references, are in both sim and head.")
    if args.out:
        Path(args.out).write_text(
            json.dumps(
                dict(
                    total=total,
                    parts={name: dict(multiply_adds=flops, parameters=size) for name, (flops, size) in parts.items()},
                    **{key: case[key] for key in ('config', 'frames', 'size', 'sentences')},
                ),
                indent=2,
            )
        )


if __name__ == '__main__':
    main()
