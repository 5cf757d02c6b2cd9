"""Curves and times from training logs (``work_dirs/NAME/TIME/vis_data/TIME.json``; for a work dir its newest log).

python tools/analysis_tools/analyze_logs.py plot_curve work_dirs/a work_dirs/b --keys loss loss_dice --out curves.png
python tools/analysis_tools/analyze_logs.py plot_curve work_dirs/a --keys rvos/JF --out score.png
python tools/analysis_tools/analyze_logs.py cal_train_time work_dirs/a
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

from mmsoc.utils.errors import UserError, user_errors


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest='task', required=True)
    plot = tasks.add_parser('plot_curve', help='values over iterations')
    plot.add_argument('logs', nargs='+', help='JSON logs or work dirs')
    plot.add_argument('--keys', nargs='+', default=['loss'], help='what to plot (default: %(default)s)')
    plot.add_argument(
        '--legend', nargs='+', help='a name for each curve, logs first, keys within (default: log and key)'
    )
    plot.add_argument('--title')
    plot.add_argument('--out', default='curves.png', help='the plot to write (default: %(default)s)')
    times = tasks.add_parser('cal_train_time', help='time per iteration')
    times.add_argument('logs', nargs='+', help='JSON logs or work dirs')
    times.add_argument('--include-outliers', action='store_true', help="count each epoch's first line, which is slower")
    return parser, parser.parse_args()


def find_log(path):
    """The JSON log that ``path`` is, or the newest below it."""
    path = Path(path)
    if path.is_dir():
        logs = sorted(path.glob('*/vis_data/[0-9]*.json'), key=lambda log: log.stat().st_mtime)
        if not logs:
            raise FileNotFoundError(f'{path}: expected a work dir, found no */vis_data/TIME.json in it')
        return logs[-1]
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file or folder')
    return path


def read_log(path):
    """The records of a log: training lines have ``iter`` or ``epoch`` and ``loss``, validation lines scores. In order."""
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f'{path}:{number}: expected one JSON object a line ({error})') from error
        if not isinstance(record, dict):
            raise UserError(f'{path}:{number}: expected a JSON object, found {type(record).__name__}')
        records.append(record)
    if not any('loss' in record for record in records):
        raise UserError(f'{path}: no line of it is of training (none has `loss`)')
    return records


def plot_curve(args):
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    logs = [find_log(path) for path in args.logs]
    if args.legend and len(args.legend) != len(logs) * len(args.keys):
        raise UserError(
            f'--legend: expected {len(logs) * len(args.keys)} names (logs x keys), found {len(args.legend)}'
        )
    names = iter(args.legend or [f'{path}: {key}' if len(logs) > 1 else key for path in args.logs for key in args.keys])
    figure, axis = plt.subplots(figsize=(8, 4.5), layout='constrained')
    for log in logs:
        records = read_log(log)
        for key in args.keys:
            points, step = [], 0
            for record in records:
                # A validation line's step is its epoch; it is plotted after the preceding training line.
                step = record['step'] if 'loss' in record else step
                if key in record:
                    points.append((step, record[key]))
            if not points:
                raise UserError(
                    f'{log} has no {key!r}; it has {sorted({name for record in records for name in record})}'
                )
            axis.plot(
                *zip(*points), label=next(names), linewidth=1, marker='o' if len(points) < 30 else None, markersize=3
            )
    axis.set_xlabel('iteration')
    axis.set_title(args.title or '')
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(args.out, dpi=120)
    print(f'{args.out}: {", ".join(args.keys)} of {len(logs)} log(s)')


def cal_train_time(args):
    for path in args.logs:
        log = find_log(path)
        epochs = {}
        for record in read_log(log):
            if 'loss' in record and 'time' in record:
                epochs.setdefault(record.get('epoch', 0), []).append(record['time'])
        if not args.include_outliers:
            epochs = {epoch: times[1:] or times for epoch, times in epochs.items()}
        means = {epoch: statistics.fmean(times) for epoch, times in epochs.items()}
        slow, fast = max(means, key=means.get), min(means, key=means.get)
        print(
            f'{log}\n  slowest epoch {slow}: {means[slow]:.4f} s/iter\n  fastest epoch {fast}: {means[fast]:.4f} s/iter\n'
            f'  standard deviation over epochs: {statistics.pstdev(means.values()):.4f} s\n'
            f'  average: {statistics.fmean(time for times in epochs.values() for time in times):.4f} s/iter'
        )


@user_errors(status=2)
def main():
    _, args = parse_args()
    dict(plot_curve=plot_curve, cal_train_time=cal_train_time)[args.task](args)


if __name__ == '__main__':
    main()
