"""Tables of the ablations from the records of finished runs."""

import csv
import json

import pytest

from mmsoc.preparation.moving_shapes import Settings, generate
from mmsoc.utils.files import load_json
from tools.analysis_tools import run_ablations as tool

ROWS = tool.TABLES['position'][1]


def record_of(runs, row, seed, **scores):
    jf = dict.fromkeys(tool.COLUMNS, 50.0) | scores
    return dict(
        config=row.config,
        options=list(row.options),
        seed=seed,
        recipe=runs.recipe(row),
        jf=jf,
        stability={'var_J_x100': 1.0 + seed, 'var_J&F_x100': 2.0},
        training_minutes=10.0 + seed,
        parameters=5_000_000,
        sentences=384,
        commit='abc',
    )


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv('MMSOC_DATA', str(tmp_path))  # no data
    return tool.Runs(tmp_path / 'out', tmp_path / 'work', 0, ())


def write(runs, row, seed, record):
    path = runs.file(row, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def test_every_row_has_its_config():
    rows = {row for _, of_table in tool.TABLES.values() for row in of_table}
    assert all((tool.CONFIGS / f'{row.config}.py').is_file() for row in rows)
    assert {path.stem for path in tool.CONFIGS.glob('*.py')} == {row.config for row in rows}


def test_the_table(runs, monkeypatch, capsys):
    base, other = ROWS
    for seed, value in enumerate((40.0, 42.0, 44.0)):
        write(runs, base, seed, record_of(runs, base, seed, order=value))
    write(runs, other, 0, record_of(runs, other, 0, order=60.0))
    arguments = ['run_ablations', '--tables', 'position', '--tables-only', '--out', str(runs.out)]
    monkeypatch.setattr('sys.argv', arguments)
    tool.main()
    assert '6 runs, of which 4 are finished' in capsys.readouterr().out
    text = (runs.out / 'table_position.md').read_text()
    assert (
        '| SOC | 3 | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 | 42.0 ± 2.0 | 50.0 ± 0.0 | 2.00 ± 1.00 | 2.00 ± 0.00 '
        '| 11 | 5.00 M | 59.2 |' in text
    )
    assert '| with the position | 1 | 50.0 | 50.0 | 50.0 | 60.0 | 50.0 | 1.00 | 2.00 |' in text
    rows = list(csv.DictReader((runs.out / 'table_position.csv').open()))
    assert [row['row'] for row in rows] == ['SOC', 'with the position']
    assert rows[0]['order_mean'] == '42.00' and rows[0]['order_std'] == '2.00' and rows[1]['paper'] == ''
    assert (runs.out / 'table_position.png').stat().st_size > 5000


def test_differences_that_exceed_the_spread(runs):
    base, other = ROWS
    # Standard deviations 2 and 1: a distance of 3 is the sum of both, 4 exceeds it.
    found = {
        base: [record_of(runs, base, seed, order=value, change=value) for seed, value in enumerate((40.0, 42.0, 44.0))],
        other: [record_of(runs, other, s, order=v, change=v - 1) for s, v in enumerate((45.0, 46.0, 47.0))],
    }
    heading, _, sentence = tool.differences(found)
    assert heading.startswith('Differences from "SOC"') and sentence == '- with the position: order +4.0'
    for record in found[other]:
        record['stability']['var_J&F_x100'] = 1.75
    assert tool.differences(found)[2] == '- with the position: order +4.0, variance of J&F -0.25'
    found[other].pop()
    assert tool.differences(found)[2] == '- with the position: fewer than three seeds, no ordering is claimed'
    without_soc = {other: found[other], tool.TABLES['query'][1][1]: found[base]}
    assert tool.differences(without_soc)[0].startswith('Differences from "with the position"')


def test_the_committed_tables_are_those_of_the_committed_runs(tmp_path, monkeypatch):
    """And the figures of the page are those of the tables."""
    evidence = tool.ROOT / 'docs' / 'evidence'
    monkeypatch.setattr(tool, 'plot', lambda *arguments: None)
    for name, (title, rows) in tool.TABLES.items():
        found = {
            row: [load_json(path, 'run') for path in sorted(evidence.glob(f'runs/{row.name}_seed?.json'))]
            for row in rows
        }
        found = {row: records for row, records in found.items() if records}
        if len(found) < 2:
            continue
        tool.write_table(name, title, found, tmp_path)
        for suffix in ('md', 'csv'):
            made, committed = ((folder / f'table_{name}.{suffix}').read_text() for folder in (tmp_path, evidence))
            assert made == committed, name
    lines = [
        line for line in (evidence / 'README.md').read_text().splitlines() if line.startswith('| ') and '±' in line
    ]
    assert len(lines) == 10
    tables = ''.join(path.read_text() for path in evidence.glob('table_*.md'))
    for line in lines:
        figures = line.strip('| ').split(' | ', 1)[1]
        assert f' | {figures} | ' in tables, line


def test_a_pause_does_not_count_as_training_time(tmp_path):
    log = tmp_path / '1' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    # Two epochs of 30 iterations, logged every ten; the process was stopped for an hour, and slowed at the end.
    times = [0.5, 360.5, 0.5, 1.0, 1.0, 3.0]
    rows = (dict(loss=1.0, step=10 * (i + 1), epoch=1 + i // 3, time=time) for i, time in enumerate(times))
    log.write_text('\n'.join(json.dumps(row) for row in rows))
    assert tool.training_minutes(tmp_path, image_epochs=1) == pytest.approx((30 * 0.5 + 30 * 1.0) / 60)


def test_runs_of_another_recipe_do_not_count(runs):
    base = ROWS[0]
    record = record_of(runs, base, 0)
    write(runs, base, 0, record)
    assert runs.known(base, 0) == record and runs.known(base, 1) is None
    other = tool.Runs(runs.out, runs.work_dir, 0, ('train_cfg.max_epochs=1',))
    assert other.recipe(base) != runs.recipe(base) and other.known(base, 0) is None
    per_frame = tool.TABLES['query'][1][1]
    assert runs.recipe(per_frame) != runs.recipe(base) and per_frame.name == 'base_QueryPerFrame'
    assert tool.TABLES['one-frame'][1][0].name == 'voc_none_frames_per_clip-1'


def test_a_recipe_does_not_depend_on_where_the_data_lies_or_on_how_a_config_is_printed(runs, monkeypatch):
    recipe = runs.recipe(ROWS[0])
    monkeypatch.setenv('MMSOC_DATA', '/elsewhere')
    monkeypatch.setattr('mmengine.config.Config.pretty_text', 'other layout')
    assert runs.recipe(ROWS[0]) == recipe


def test_runs_on_other_data_do_not_count(runs, monkeypatch, capsys):
    base = ROWS[0]
    write(runs, base, 0, record_of(runs, base, 0) | dict(data=dict(seed=0)))
    same, other = (tool.Runs(runs.out, runs.work_dir, 0, (), dict(seed=seed)) for seed in (0, 1))
    assert same.known(base, 0) and runs.known(base, 0)  # without data at hand, the tables can still be written
    assert other.known(base, 0) is None
    monkeypatch.setenv('MMSOC_DATA', str(runs.work_dir))
    (runs.work_dir / 'moving-shapes').mkdir(parents=True)
    (runs.work_dir / 'moving-shapes' / 'moving_shapes.json').write_text('{"parameters": {"seed": 1}}')
    monkeypatch.setattr('sys.argv', ['run_ablations', '--tables', 'position', '--tables-only', '--out', str(runs.out)])
    tool.main()
    assert '6 runs, of which 0 are finished (1 more have another recipe or other data' in capsys.readouterr().out
    assert same.folder('base', 0) != other.folder('base', 0)


def test_without_data(runs, monkeypatch):
    monkeypatch.setattr('sys.argv', ['run_ablations', '--tables', 'position', '--out', str(runs.out)])
    with pytest.raises(SystemExit, match='moving_shapes.json does not exist; python tools/dataset_converters/mov'):
        tool.main()


def test_what_is_missing_runs_and_a_failure_is_named(runs, tmp_path, monkeypatch, capsys):
    base, other = ROWS
    (tmp_path / 'moving-shapes').mkdir()
    (tmp_path / 'moving-shapes' / 'moving_shapes.json').write_text('{"parameters": {"seed": 0}}')
    write(runs, base, 0, record_of(runs, base, 0) | dict(data=dict(seed=0)))
    started = []

    def run(self, row, seed):
        started.append((row.name, seed))
        record = record_of(self, row, seed, order=33.0) | dict(data=self.data)
        write(self, row, seed, record)
        return record

    monkeypatch.setattr(tool.Runs, 'run', run)
    arguments = ['run_ablations', '--tables', 'position', '--seeds', '2', '--out', str(runs.out), '--jobs', '1']
    monkeypatch.setattr('sys.argv', arguments)
    tool.main()
    assert started == [('frame-position', 0), ('base', 1), ('frame-position', 1)]
    out = capsys.readouterr().out
    assert (
        '4 runs, of which 1 are finished' in out
        and 'frame-position, seed 1: ' in out
        and '3 of 3, about 0 min left' in out
    )
    started.clear()
    tool.main()
    assert not started


def test_runs_at_once_have_different_gpus(runs):
    two = tool.Runs(runs.out, runs.work_dir, 2, ())
    with two._device() as first, two._device() as second:
        assert {first['CUDA_VISIBLE_DEVICES'], second['CUDA_VISIBLE_DEVICES']} == {'0', '1'}
    with pytest.raises(KeyError), two._device():
        raise KeyError
    with two._device() as first, two._device() as second:  # all are free again
        assert {first['CUDA_VISIBLE_DEVICES'], second['CUDA_VISIBLE_DEVICES']} == {'0', '1'}
    with runs._device() as environment:
        assert environment['CUDA_VISIBLE_DEVICES'] == '' and environment['OMP_NUM_THREADS'] == '1'


def test_a_command_that_fails(runs, tmp_path):
    with pytest.raises(ValueError, match=r'(?s)train.py --no-such-option .*ended with status 2; its output: .*a.log'):
        runs._call(tmp_path / 'a', 'a.log', dict(), 'train.py', '--no-such-option')
    assert 'error' in (tmp_path / 'a' / 'a.log').read_text()


@pytest.mark.slow
def test_a_real_run(tmp_path, monkeypatch):
    """From nothing to a record, two rows of one training, and the picture of both models."""
    generate(tmp_path / 'data' / 'moving-shapes', Settings(train_videos=8, valid_videos=240), workers=1)
    monkeypatch.setenv('MMSOC_DATA', str(tmp_path / 'data'))
    folders = [f'--{name}={tmp_path / name}' for name in ('out', 'work-dir')]
    command = ['run_ablations', '--tables', 'query', 'referformer', '--seeds', '1', '--jobs', '1', *folders]
    monkeypatch.setattr('sys.argv', [*command, '--cfg-options', 'train_dataloader.sampler.epoch_size=8'])
    tool.main()
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / 'out' / 'runs').iterdir()}
    assert set(records) == {'base_seed0', 'base_QueryPerFrame_seed0', 'referformer_seed0'}
    assert all(record['sentences'] == 384 and 0 <= record['jf']['all'] <= 100 for record in records.values())
    assert records['referformer_seed0']['parameters'] > records['base_seed0']['parameters'] > 5e6
    assert len(list((tmp_path / 'work-dir').iterdir())) == 2
    assert (tmp_path / 'out' / 'soc_and_referformer.png').is_file()
