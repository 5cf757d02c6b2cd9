"""Operations that PyTorch dispatches in a training step or a prediction, by stage.

    python tools/analysis_tools/count_ops.py                                             # the small model and the full one
    python tools/analysis_tools/count_ops.py configs/soc/soc_swin-t_ytvos.py --frames 8 --size 96x160 --top 20
    python tools/analysis_tools/count_ops.py configs/soc/soc_tiny_moving-shapes.py --task predict --clips 1

With small tensors, the number of operations determines a step's time. Operations are counted by a TorchDispatchMode,
below autograd: an operation that PyTorch composes of others (``linear``, ``reshape``) counts as these. A view is an
operation whose schema declares that a result aliases an argument that it does not write to (``view``, ``transpose``,
``slice``, ``expand``, ``unsqueeze``, ``split``, ``detach``, ``alias`` and so on), and ``_unsafe_view``, which does so
undeclared. Each entry of the table is the number of all operations, followed by that of non-views.

A training step is `model.train_step`: data preprocessor, losses, ``parse_losses``, backward, and, listed separately,
gradient clipping and the optimizer's step. An operation belongs to the innermost active stage; one of the backward pass
belongs to the stage that it differentiates. Operations with gradients enabled within the backward pass are
recomputation. The second step is counted: the first one also creates the optimizer's state and caches. Weights are
random; nothing is downloaded.
"""

import argparse
import bisect
import contextlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.append(str(Path(__file__).resolve().parent))

from benchmark import ROOT, build, make_batch, make_case
from mmengine.config import DictAction

from mmsoc.utils.errors import user_errors

SMALL = dict(config='configs/soc/soc_tiny_moving-shapes.py', frames=1, size='64x96', batch_size=4, sentences=2)
FULL = dict(config='configs/soc/soc_swin-t_ytvos.py', frames=8, size='96x160', batch_size=1, sentences=1)
ELSE = 'all else'
# Column titles; those of the model first.
PHASES = ('forward', 'backward', 'recomputation', 'clipping', 'optimizer')
_OF_MODEL = PHASES[:3]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config', nargs='?', help='default: the small model, then the full one, each with its own sizes'
    )
    parser.add_argument('--task', choices=['train', 'predict'], default='train')
    parser.add_argument('--frames', type=int, help=f'T (default: {FULL["frames"]})')
    parser.add_argument('--size', metavar='HxW', help=f'of a frame (default: {FULL["size"]})')
    parser.add_argument('--clips', type=int, dest='batch_size', metavar='CLIPS', help='default: 1')
    parser.add_argument('--sentences', type=int, help='per clip (default: 1)')
    parser.add_argument('--with-cp', choices=['off', 'on'], default='off', help='model.backbone.with_cp')
    parser.add_argument('--top', type=int, default=0, metavar='N', help='also the N operations that are most frequent')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE', help='over every config'
    )
    parser.add_argument('--out', help='write the figures to this JSON file as well')
    args = parser.parse_args()
    if args.config is not None and not Path(args.config).is_file():
        parser.error(f'config {args.config}: there is no such file')
    size = args.size or FULL['size']
    if len(size.split('x')) != 2 or not all(part.isdigit() and int(part) for part in size.split('x')):
        parser.error(f'--size {size}: expected HEIGHTxWIDTH in pixels, e.g. 360x640')
    return args


def cases(args: argparse.Namespace) -> list[dict]:
    """Arguments of benchmark.py's `make_case`."""
    defaults = (
        [dict(FULL, config=args.config)]
        if args.config
        else [dict(case, config=str(ROOT / case['config'])) for case in (SMALL, FULL)]
    )
    sizes = {key: getattr(args, key) for key in ('frames', 'size', 'batch_size', 'sentences')}
    given = {key: value for key, value in sizes.items() if value is not None}
    common = dict(task=args.task, with_cp=args.with_cp, cfg_options=args.cfg_options)
    return [make_case(**case | given | common) for case in defaults]


def counter_class() -> type:
    """Makes `Counting` in a function, so that ``--help`` need not import PyTorch."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        """Counts dispatched operations within a context, by phase, stage and operation."""

        def __init__(self) -> None:
            super().__init__()
            self.counts: Counter[tuple[str, str, Any]] = Counter()
            self.stages = [ELSE]
            self.phase = 'forward'
            # The stages' first nodes in autograd's sequence.
            self._starts, self._of_starts = [0], [ELSE]
            self._end = 0
            self._derived = ELSE

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            phase, stage = self.phase, self.stages[-1]
            if phase == 'backward':
                node = torch._C._current_autograd_node()
                stage = self._stage_of(node)
                # A node's derivative runs without gradients; a forward pass within it enables them.
                if node is not None and torch.is_grad_enabled():
                    phase = 'recomputation'
            self.counts[phase, stage, func] += 1
            return func(*args, **(kwargs or {}))

        def _stage_of(self, node) -> str:
            # Nodes that do not stem from this forward pass accumulate a parameter's gradients or belong to a
            # recomputation: they count for the previous node.
            if node is not None and (number := node._sequence_nr()) < self._end:
                self._derived = self._of_starts[bisect.bisect_right(self._starts, number) - 1]
            return self._derived

        @contextlib.contextmanager
        def within_stage(self, stage: str) -> Iterator[None]:
            if self.phase == 'backward':  # a recomputation belongs to the node that requests it
                yield
                return
            self._begin(stage)
            self.stages.append(stage)
            try:
                yield
            finally:
                self.stages.pop()
                self._begin(self.stages[-1])

        def _begin(self, stage: str) -> None:
            self._starts.append(torch.autograd._get_sequence_nr())
            self._of_starts.append(stage)

        @contextlib.contextmanager
        def within_phase(self, phase: str) -> Iterator[None]:
            before, self.phase = self.phase, phase
            self._end = torch.autograd._get_sequence_nr()
            self.stages.append(ELSE)
            try:
                yield
            finally:
                self.phase = before
                self.stages.pop()

    return Counting


def is_view(func) -> bool:
    """Whether a result of the operation aliases an argument that it does not write to."""
    aliases = [result.alias_info for result in func._schema.returns if result.alias_info is not None]
    declared = bool(aliases) and not any(alias.is_write for alias in aliases)
    return declared or func._schema.name == 'aten::_unsafe_view'


def within(
    context: Callable[[], contextlib.AbstractContextManager], owner: Any, name: str
) -> contextlib.AbstractContextManager:
    """Within this context, a method (or a function of a module) runs in a separate context."""
    function = getattr(owner, name)

    def call(*args, **kwargs):
        with context():
            return function(*args, **kwargs)

    return patch.object(owner, name, call)


@contextlib.contextmanager
def marked(counting, model, wrapper=None) -> Iterator[None]:
    """Within this context, the parts of a model and optimizer wrapper report their stages and phases to the counter."""
    from mmsoc.inference import clips

    module = sys.modules[type(model).__module__]
    stages = [
        ('data handling', model.data_preprocessor, 'forward'),
        *(('data handling', module, name) for name in ('sentences_of', 'targets_of', 'key_frames')),
        ('data handling', clips, 'sentences_of'),
        ('backbone', model.backbone, 'forward'),
        ('neck', model.neck, 'forward'),
        ('positions', model.positional_encoding, 'forward'),
        ('text encoder', model.text_encoder, 'forward'),
        ('fusion', model, 'fuse'),
        ('SIM: encoder', model.sim.encoder, 'forward'),
        ('SIM: decoder', model.sim.decoder, 'forward'),
        ('SIM: cluster', model.sim, 'integrate'),
        ('head: branches', model.head, 'forward'),
        ('head: pixel decoder', model.head, 'mask_features'),
        ('matching', model.criterion, 'match'),
        ('mask decoding', model.head, 'decode_masks'),
        ('losses', model.criterion, 'forward'),
        ('losses', model, 'parse_losses'),
        *(('auxiliary heads', head, 'loss') for head in model.auxiliary_heads),
        ('original size, run-length codes', type(model.test_cfg.output), '__call__'),
        ('original size, run-length codes', clips, 'encode_masks'),
    ]
    phases = [('backward', 'backward'), ('optimizer', 'step'), ('optimizer', 'zero_grad'), ('clipping', '_clip_grad')]
    with contextlib.ExitStack() as stack:
        for stage, owner, name in stages:
            if hasattr(owner, name):  # not every revision has all of these
                stack.enter_context(within(partial(counting.within_stage, stage), owner, name))
        for phase, name in phases if wrapper is not None else ():
            stack.enter_context(within(partial(counting.within_phase, phase), wrapper, name))
        yield


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel('ERROR')
    try:
        yield
    finally:
        logger.setLevel(level)


def count(case: dict) -> Counter:
    """Counts of one step by phase, stage and operation."""
    import torch
    from mmengine.logging import MMLogger
    from mmengine.optim import build_optim_wrapper

    torch.manual_seed(0)
    cfg, model = build(case)
    noise, samples = make_batch(case)
    data = dict(inputs=[clip.mul(60).add(115).clamp(0, 255).to(torch.uint8) for clip in noise], data_samples=samples)
    wrapper = None
    if case['task'] == 'train':
        with _quiet(MMLogger.get_current_instance()):  # it logs a line per parameter
            wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    def run() -> None:
        if wrapper is None:
            model.test_step(data)
        else:
            model.train_step(data, optim_wrapper=wrapper)

    run()
    counting = counter_class()()
    with marked(counting, model, wrapper), counting:
        run()
    return counting.counts


def summarise(counts: Counter) -> dict:
    """Numbers of all operations and of non-views: by stage and phase, by phase, and for the whole model."""
    stages: dict[str, dict[str, list[int]]] = {}
    phases: dict[str, list[int]] = {}
    operations: Counter = Counter()
    for (phase, stage, func), number in counts.items():
        views = is_view(func)
        for of in (stages.setdefault(stage, {}).setdefault(phase, [0, 0]), phases.setdefault(phase, [0, 0])):
            of[0] += number
            of[1] += 0 if views else number
        if phase in _OF_MODEL:
            operations[str(func), views] += number
    total = [sum(phases[phase][kind] for phase in _OF_MODEL if phase in phases) for kind in range(2)]
    return dict(
        total=total,
        phases=phases,
        stages=stages,
        operations=[dict(name=name, count=number, view=views) for (name, views), number in operations.most_common()],
    )


def tabulate(figures: dict, top: int) -> str:
    def cell(pair: list[int] | None) -> str:
        return f'{pair[0]:,} / {pair[1]:,}' if pair else ''

    shown = [phase for phase in _OF_MODEL if phase in figures['phases']]
    header = ['stage', *shown, *(['together'] if len(shown) > 1 else [])]
    lines = ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header)]

    def add(name: str, pairs: dict[str, list[int]]) -> None:
        cells = [cell(pairs.get(phase)) for phase in shown]
        if len(shown) > 1:
            cells.append(cell([sum(pairs[phase][kind] for phase in shown if phase in pairs) for kind in range(2)]))
        lines.append('| ' + ' | '.join([name, *cells]) + ' |')

    of_stages = {stage: pairs for stage, pairs in figures['stages'].items() if any(phase in pairs for phase in shown)}
    for stage in sorted(of_stages, key=lambda stage: stage == ELSE):
        add(stage, of_stages[stage])
    add('**all**', figures['phases'])
    for phase in PHASES[3:]:
        if phase in figures['phases']:
            lines.append(f'\n{phase}: {cell(figures["phases"][phase])}')
    if top:
        lines += ['', '| operation | count | view |', '|---|---|---|']
        lines += [
            f'| {of["name"]} | {of["count"]:,} | {"yes" if of["view"] else ""} |' for of in figures['operations'][:top]
        ]
    return '\n'.join(lines)


@user_errors()
def main() -> None:
    args = parse_args()
    import torch

    results = []
    for case in cases(args):
        figures = summarise(count(case))
        what = {key: case[key] for key in ('config', 'task', 'frames', 'size', 'batch_size', 'sentences', 'with_cp')}
        results.append(what | figures)
        print(
            f'{case["config"]}, {case["task"]}: {case["batch_size"]} clip(s) of {case["frames"]} frame(s) of '
            f'{case["size"]}, {case["sentences"]} sentence(s) each; all operations / those that are no views\n'
        )
        print(tabulate(figures, args.top) + '\n', flush=True)
    print(f'PyTorch {torch.__version__}')
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=2))


if __name__ == '__main__':
    main()
