"""Test a checkpoint: ``python tools/test.py configs/soc/NAME.py CHECKPOINT``; several processes: tools/dist_test.sh."""

import argparse
import inspect
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # lets a checkout run without installing mmsoc

from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmsoc.engine.cli import (
    add_common_arguments,
    add_speed_arguments,
    load_config,
    parse_arguments,
    require_weights,
    speed_options,
)
from mmsoc.engine.dist import abort_on_failure, finish_distributed, prepare_distributed
from mmsoc.engine.preflight import DONE, preflight, report
from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError, user_errors
from mmsoc.weights import register_loader

VISUALIZATION_HOOK = 'RVOSVisualizationHook'


def parse_args():
    parser = argparse.ArgumentParser(description='Test a checkpoint.')
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file, or a name that `tools/weights.py list` shows')
    parser.add_argument(
        '--out',
        nargs='+',
        default=[],
        metavar='FILE',
        help="FILE.json: the metrics' full report; FILE.pkl: the predictions, a list with one dict per video",
    )
    parser.add_argument('--show-dir', metavar='DIR', help='write one video and one contact sheet per sentence into DIR')
    add_speed_arguments(parser)
    args = parse_arguments(parser)
    require_weights(parser, args.checkpoint, 'checkpoint')
    for out in args.out:
        if Path(out).suffix not in ('.json', '.pkl', '.pickle'):
            parser.error(f'--out {out}: expected a name that ends in .json (report) or .pkl (predictions)')
    return parser, args


def evaluators_of(cfg):
    """``cfg.test_evaluator`` as a list, in place."""
    if cfg.get('test_evaluator') is None:
        raise UserError('the config has no test_evaluator')
    if not isinstance(cfg.test_evaluator, list):
        cfg.test_evaluator = [cfg.test_evaluator]
    return cfg.test_evaluator


def set_out(cfg, out):
    evaluators = evaluators_of(cfg)
    if Path(out).suffix != '.json':
        evaluators.append(dict(type='DumpResults', out_file_path=out))
        cfg.test_evaluator = evaluators
        return
    init_default_scope(cfg.get('default_scope', 'mmsoc'))
    reporting = [e for e in evaluators if 'out_file' in inspect.signature(METRICS.get(e['type'])).parameters]
    if not reporting:
        raise UserError(
            f'--out {out}: no metric of test_evaluator writes a report (setting `out_file`); found '
            f'{[e["type"] for e in evaluators]}'
        )
    for index, evaluator in enumerate(reporting):
        path = Path(out)
        evaluator['out_file'] = out if len(reporting) == 1 else str(path.with_name(f'{path.stem}_{index}{path.suffix}'))


def set_show_dir(cfg, show_dir):
    hooks = [*cfg.get('default_hooks', {}).values(), *cfg.get('custom_hooks', [])]
    drawing = [hook for hook in hooks if hook and str(hook['type']).split('.')[-1] == VISUALIZATION_HOOK]
    if not drawing:
        drawing = [dict(type=f'mmsoc.{VISUALIZATION_HOOK}')]
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), *drawing]
        drawing = [cfg.custom_hooks[-1]]
    for hook in drawing:
        hook['show_dir'] = show_dir


@user_errors(status=2)
def main():
    _, args = parse_args()
    cfg = load_config(args)
    if args.launcher == 'none' and not os.environ.get(DONE):
        report(preflight(cfg, 'test', checkpoint=args.checkpoint), args.config)
    cfg.load_from, cfg.resume = args.checkpoint, False
    cfg.merge_from_dict(speed_options(args))
    for out in args.out:
        set_out(cfg, out)
    if args.show_dir is not None:
        set_show_dir(cfg, args.show_dir)
    register_loader()
    with abort_on_failure(args.launcher), user_errors(status=2):
        prepare_distributed(cfg, args.launcher)
        Runner.from_cfg(cfg).test()
        finish_distributed()


if __name__ == '__main__':
    main()
