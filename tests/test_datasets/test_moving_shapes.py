import errno
import hashlib
import json
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.datasets.transforms import SwapLeftRight
from mmsoc.evaluation import JFMetric
from mmsoc.preparation import moving_shapes
from mmsoc.preparation.folders import locked
from mmsoc.preparation.moving_shapes import FAMILIES, Expression, Noun, Scene, Settings, draw_scene, generate
from mmsoc.preparation.moving_shapes import families as families_module
from mmsoc.preparation.moving_shapes import writer as writer_module
from mmsoc.preparation.moving_shapes.predicates import EVENTS, names_exactly_its_target
from mmsoc.preparation.moving_shapes.scene import COLORS, HELD_OUT_CHANGES, HELD_OUT_LOOKS, HELD_OUT_ORDERS, POLYGONS
from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import read_ids
from tools.analysis_tools import moving_shapes_shortcuts as shortcuts
from tools.analysis_tools.moving_shapes_baselines import baselines

SMALL = Settings(num_frames=6, train_videos=8, valid_videos=24)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'moving-shapes'
    assert generate(out, SMALL, workers=1)
    return out


def expressions(data, split):
    return json.loads((data / f'meta_expressions/{split}/meta_expressions.json').read_text())['videos']


def contents(folder):
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def dataset(data, split='train', **changes):
    test = dict(test_mode=True, require_masks=True, pipeline=[dict(type='LoadVideoFrames')])
    train = dict(
        clip_sampler=dict(type='WindowClipSampler', num_frames=6),
        pipeline=[dict(type='LoadVideoFrames'), dict(type='LoadReferredMasks')],
    )
    cfg = dict(
        type='RefYouTubeVOSDataset',
        data_root=str(data),
        ann_file=f'meta_expressions/{split}/meta_expressions.json',
        meta_file=f'{split}/meta.json',
        data_prefix=dict(img=f'{split}/JPEGImages', mask=f'{split}/Annotations'),
    )
    cfg |= train if split == 'train' else test
    cfg['pipeline'] = [*cfg['pipeline'], dict(type='PackReferringInputs')]
    return DATASETS.build(cfg | changes)


# --- the files


def test_training_samples(data):
    samples = dataset(data, use_category=True, metainfo=dict(classes=tuple(POLYGONS)))
    assert len(samples) == 8 * 2  # two sentences a video; one window of 6 frames holds the whole video
    for sample in (samples[i] for i in range(len(samples))):
        assert sample['inputs'].shape == (6, 3, 64, 96) and sample['inputs'].dtype == torch.uint8
        clip = sample['data_samples']
        assert sum(bool(frame.gt_instances.visible) for frame in clip) >= 3
        (family,) = clip.families
        assert family in FAMILIES
    # the label is the shape of the object
    assert {label for i in range(16) for label in samples.get_data_info(i)['labels']} <= set(range(6))


def test_test_samples_carry_the_families(data):
    samples = dataset(data, 'valid')
    assert len(samples) == 24
    for i, name in enumerate(expressions(data, 'valid')):
        clip = samples[i]['data_samples']
        assert clip.video_id == name and len(clip.texts) == 2
        assert clip.families == [FAMILIES[i % 4]] * 2
        assert len(set(clip.obj_ids)) == 2 and all(isinstance(value, bool) for value in clip.held_out)
        assert set(np.unique(read_ids(clip.mask_paths[0]))) <= set(range(6))


def test_files_agree(data):
    for split, number in (('train', 8), ('valid', 24)):
        videos = expressions(data, split)
        objects = json.loads((data / split / 'meta.json').read_text())['videos']
        assert list(videos) == [f'{split}{i:05d}' for i in range(number)] == list(objects)
        for name, video in videos.items():
            ids = {frame: read_ids(data / split / 'Annotations' / name / f'{frame}.png') for frame in video['frames']}
            assert len(ids) == 6 and all(mask.shape == (64, 96) for mask in ids.values())
            for obj_id, item in objects[name]['objects'].items():
                assert item['frames'] == [frame for frame, mask in ids.items() if (mask == int(obj_id)).any()]
                assert sum(np.count_nonzero(mask == int(obj_id)) >= 20 for mask in ids.values()) >= 3
            for claim in video['expressions'].values():
                assert set(claim) == {'exp', 'obj_id', 'family', 'held_out', 'event'}
                assert claim['obj_id'] in objects[name]['objects'] and claim['event'] in EVENTS


def test_families_are_equal_in_number(data):
    for split in ('train', 'valid'):
        claims = [claim for video in expressions(data, split).values() for claim in video['expressions'].values()]
        assert set(Counter(claim['family'] for claim in claims).values()) == {len(claims) // 4}
        held_out = Counter(claim['family'] for claim in claims if claim['held_out'])
        # 6 videos of each family, 2 sentences each: a third of the sentences
        assert held_out == ({} if split == 'train' else dict.fromkeys(FAMILIES, 4))


def test_deterministic_whatever_the_workers(data, tmp_path):
    assert generate(tmp_path / 'two', SMALL, workers=2)
    assert contents(tmp_path / 'two') == contents(data)
    assert generate(tmp_path / 'more', replace(SMALL, train_videos=12, valid_videos=4), workers=1)
    shorter, longer = contents(data), contents(tmp_path / 'more')
    for video in ('train/JPEGImages/train00007/00003.jpg', 'valid/Annotations/valid00003/00005.png'):
        assert shorter[video] == longer[video]
    assert generate(tmp_path / 'other', replace(SMALL, seed=1), workers=1)
    assert not set(contents(data).values()) & {
        value for name, value in contents(tmp_path / 'other').items() if name.endswith('.jpg')
    }


def test_no_frame_is_in_both_splits(data):
    files = contents(data)
    frames = {
        split: {h for name, h in files.items() if name.startswith(f'{split}/JPEG')} for split in ('train', 'valid')
    }
    assert frames['train'] and not frames['train'] & frames['valid']
    sentences = [moving_shapes.draw_video(SMALL, split, 0)[0].things[0].x[0] for split in ('train', 'valid')]
    assert sentences[0] != sentences[1]


@pytest.mark.parametrize('difficulty', moving_shapes.DIFFICULTIES)
def test_other_sizes(difficulty, tmp_path):
    settings = Settings(
        train_videos=4, valid_videos=4, width=75, height=120, num_frames=5, difficulty=difficulty, seed=3
    )
    generate(tmp_path / 'set', settings, workers=1)
    frame = Image.open(tmp_path / 'set/train/JPEGImages/train00000/00004.jpg')
    assert frame.size == (75, 120)
    assert len(dataset(tmp_path / 'set', clip_sampler=dict(type='WindowClipSampler', num_frames=5))) == 8


# --- the scenes


def scenes(family, number, held_out=False, seed=0, settings=SMALL):
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, settings, family, held_out) for _ in range(number)]


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('difficulty', moving_shapes.DIFFICULTIES)
def test_each_sentence_names_exactly_one_object(family, difficulty):
    wordings = Counter()
    for scene in scenes(family, 60, settings=replace(SMALL, difficulty=difficulty)):
        assert 2 <= len(scene.things) <= 5 and len(scene.expressions) == 2
        assert scene.expressions[0].target is not scene.expressions[1].target
        if family in ('change', 'order'):
            assert len(scene.peers) >= 3 and len({(peer.shape, peer.texture) for peer in scene.peers}) == 1
        for claim in scene.expressions:
            wordings[claim.text] += 1
            verdicts = [moving_shapes.fulfils(scene, thing, claim) for thing in scene.things]
            assert verdicts == [thing is claim.target for thing in scene.things]
            if family in ('change', 'order'):
                assert any(claim.target is peer for peer in scene.peers)
    assert len(wordings) > 25


def test_the_proof_fails_where_it_should():
    rng = np.random.default_rng(0)
    make = families_module._thing
    T = SMALL.num_frames
    still = make(rng, SMALL, ('circle', 'red'), 'plain', 8, x=20.0, y=30.0)
    mover = make(rng, SMALL, ('circle', 'red'), 'plain', 8, x=30 + 5.0 * np.arange(T), y=50.0)
    other = make(rng, SMALL, ('square', 'blue'), 'plain', 8, x=80 + 5.0 * np.arange(T), y=50.0)
    scene = Scene('change', 96, 64, T, [still, mover, other])

    def proven(event, target, shape='circle', color=None, anchor=None):
        return names_exactly_its_target(scene, Expression(Noun(shape, color), event, target, anchor))

    assert proven('moves', mover) and not proven('moves', still) and not proven('moves', other)
    assert not proven('moves', mover, shape=None)  # the square moves, too
    assert proven('moves', mover, shape=None, color='red')
    assert not proven('is', mover) and proven('is', other, shape='square')
    assert proven('stays_still', still) and not proven('flickers', still)
    assert proven('moves_right', mover) and not proven('moves_left', mover)
    assert proven('leftmost', still) and not proven('leftmost', mover)
    assert not proven('left_of', mover, anchor=other)  # and so is the other circle
    assert proven('is', other, shape=None, color='blue')
    # 52 - 50 = 2 pixels lower is no clear case
    scene.things[0] = replace(still, y=np.full(T, 52.0))
    assert not proven('lowest', scene.things[0]) and not proven('topmost', mover)
    # a jump over the border of the torus (96 + 2 * 8 wide) is a step on, not a step back
    mover.x = (90 + 10.0 * np.arange(T)) % 112 - 8
    assert np.diff(mover.x).min() < 0 and proven('moves_right', mover)
    # one step back in six: neither clearly so nor clearly not
    mover.x[-1] -= 20
    assert moving_shapes.fulfils(scene, mover, Expression(Noun('circle'), 'moves_right', mover)) is None
    # an object that changes colour is of no colour
    mover.color = np.array(['red', 'green', 'blue'] * 2)
    assert not proven('is', mover, color='red') and proven('changes_colour', mover)
    assert proven('red_green_blue', mover) and not proven('red_blue_green', mover)


@pytest.mark.parametrize('family', FAMILIES)
def test_held_out_combinations_are_not_in_train(family):
    def combinations(scene, claim):
        if family in ('appearance', 'relation'):
            return (claim.target.shape, claim.target.color[0]) in HELD_OUT_LOOKS
        table, held_out = (
            (families_module.CHANGE_ATTRIBUTES, HELD_OUT_CHANGES)
            if family == 'change'
            else (families_module.ORDER_ATTRIBUTES, HELD_OUT_ORDERS)
        )
        attribute = next(name for name, events in table.items() if claim.event in events)
        return (claim.target.shape, attribute) in held_out

    for scene in scenes(family, 150):
        assert not any(claim.held_out or combinations(scene, claim) for claim in scene.expressions)
        assert not {(thing.shape, color) for thing in scene.things for color in thing.color} & HELD_OUT_LOOKS
    for scene in scenes(family, 50, held_out=True):
        flags = [claim.held_out for claim in scene.expressions]
        assert flags == [combinations(scene, claim) for claim in scene.expressions]
        assert sum(flags) == (1 if family == 'change' else 2)


def test_words_are_exchanged_by_a_flip():
    """SwapLeftRight must find every word that says left or right."""
    for scene in scenes('relation', 60) + scenes('order', 60):
        for claim in scene.expressions:
            results = dict(flip=[True], flip_direction=['horizontal'], texts=[claim.text])
            swapped = SwapLeftRight().transform(results)['texts'][0]
            left, right = claim.text.count('left'), claim.text.count('right')
            assert (swapped.count('left'), swapped.count('right')) == (right, left)


def test_shapes_are_drawn_as_their_states_say():
    """A square of size 8 stands at (30, 40): corners at 0.87 * 8 = 6.96 around it."""
    rng = np.random.default_rng(0)
    settings = Settings(num_frames=6, difficulty='easy')
    square = families_module._thing(rng, settings, ('square', 'red'), 'plain', 8.0, x=30.0, y=40.0, angle=0.0)
    circle = families_module._thing(rng, settings, ('circle', 'blue'), 'plain', 8.0, x=34.0, y=40.0, bright=False)
    frames, ids = moving_shapes.render(rng, settings, Scene('appearance', 96, 64, 6, [square, circle]))
    alone = moving_shapes.render(rng, settings, Scene('appearance', 96, 64, 6, [square])).ids
    rows, columns = np.nonzero(alone[0] == 1)
    # pixel i covers i .. i+1: from 23.04 to 36.96 the middles of 23 .. 36 lie inside
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (23, 36, 33, 46) and len(rows) == 14 * 14
    assert (frames[0][40, 25] == COLORS['red']).all()
    assert ids[0][40, 34] == 2 and ids[0][40, 25] == 1  # the later object lies in front
    assert np.allclose(frames[0][40, 34], np.array(COLORS['blue']) * 0.42, atol=1)
    assert abs((ids[0] == 2).sum() - np.pi * 64) < 8


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('at', ['start', 'end'])
def test_a_long_video_rests_before_or_after_its_event(family, at):
    settings = Settings(num_frames=30, event_frames=6, event_at=at)
    active, resting = (slice(0, 6), slice(6, 30)) if at == 'start' else (slice(24, 30), slice(0, 24))
    for seed in range(5):
        short = draw_scene(np.random.default_rng(seed), SMALL, family, False)  # of 6 frames
        long = draw_scene(np.random.default_rng(seed), settings, family, False)
        assert [claim.text for claim in long.expressions] == [claim.text for claim in short.expressions]
        assert (long.num_frames, long.event_at, short.event_at) == (30, at, None)
        for one, other in zip(long.things, short.things, strict=True):
            for name in ('color', 'bright', 'x', 'y', 'size', 'angle'):
                values, expected = getattr(one, name), getattr(other, name)
                assert np.array_equal(values[active], expected), (name, values, expected)
                assert (values[resting] == expected[-1 if at == 'start' else 0]).all() and len(values) == 30


@pytest.mark.parametrize('family', FAMILIES)
def test_long_videos_can_be_drawn(family):
    for seed in range(20):  # asserts that each sentence names exactly its object
        draw_scene(np.random.default_rng(seed), Settings(num_frames=96), family, seed % 2 == 0)


def test_events_lie_at_either_end_and_the_files_say_where(tmp_path):
    settings = Settings(num_frames=12, event_frames=4, train_videos=4, valid_videos=16)
    assert generate(tmp_path / 'long', settings, workers=1)
    videos = expressions(tmp_path / 'long', 'valid').values()
    assert {claim['event_at'] for video in videos for claim in video['expressions'].values()} == {'start', 'end'}
    assert {len(video['frames']) for video in videos} == {12}


# --- shortcuts


@pytest.fixture(scope='module')
def change_cases():
    return shortcuts.draw_cases('change', 1000)


@pytest.fixture(scope='module')
def order_cases():
    return shortcuts.draw_cases('order', 800)


def over_events(cases, features):
    """Mean accuracy over events minus chance, in points."""
    return 100 * np.mean([shortcuts.accuracy(features(case), case) - case.chance for case in cases.values()])


@pytest.mark.parametrize('t', range(Settings().num_frames))
def test_no_single_frame_tells_change_or_order(change_cases, order_cases, t):
    # 3000 and 4000 cases counted: a standard deviation of 0.8 and 0.7 points
    assert abs(over_events(change_cases, lambda case: shortcuts.single_frame(case, t))) <= 5
    assert abs(over_events(order_cases, lambda case: shortcuts.single_frame(case, t))) <= 5


def test_the_set_of_frames_tells_change_but_not_order(change_cases, order_cases):
    assert abs(over_events(order_cases, shortcuts.frame_set)) <= 5
    assert all(shortcuts.accuracy(shortcuts.frame_set(case), case) > 0.9 for case in change_cases.values())


def test_the_classifiers_are_able(order_cases):
    for case in order_cases.values():
        assert shortcuts.accuracy(shortcuts.ordered_frames(case), case) > 0.9
        # the set classifier finds out the look-alike that differs from all others
        naive = shortcuts.with_reversed_peers(case, np.random.default_rng(0))
        assert shortcuts.accuracy(shortcuts.frame_set(naive), naive) > 0.9
        # and the single-frame classifier a place that is likelier for the target
        biased = replace(case, states=case.states.copy())
        biased.states[np.arange(len(case.target)), case.target, :, 0] += 0.5
        assert shortcuts.accuracy(shortcuts.single_frame(biased, 0), biased) > case.chance + 0.3


def test_set_features_do_not_depend_on_the_order_of_frames(order_cases):
    case = order_cases['moves_left']
    shuffled = replace(case, states=case.states[:, :, [3, 1, 0, 2]], course=case.course[..., [3, 1, 0, 2]])
    assert np.allclose(shortcuts.frame_set(case), shortcuts.frame_set(shuffled), atol=1e-6)


@pytest.mark.parametrize('num_frames', [4, 5, 6, 9])
@pytest.mark.parametrize('step', [0.1, 0.15, 0.2, 1 / 3])
def test_each_look_alike_could_be_the_target_of_the_same_frames(num_frames, step):
    """Sorted by the places of any one of the four, the frames are again a scene that the generator draws."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        tracks = families_module.order_tracks(rng, num_frames, step)
        for i in range(4):
            others = tracks[:, np.argsort(tracks[i])]
            rows = {tuple(row.tolist()) for row in others}
            natural = tuple(range(num_frames))
            assert {natural, natural[::-1]} < rows and len(rows) == 4
            order, mirror = (np.array(row) for row in rows - {natural, natural[::-1]})
            assert np.array_equal(mirror, num_frames - 1 - order)
            for candidate in (order, mirror):  # the conditions of the draw
                assert families_module.to_and_fro(candidate, step)
                assert families_module.to_and_fro(np.argsort(candidate), step)


def test_nothing_is_chosen_by_visibility_in_change_and_order():
    for family in ('change', 'order'):
        rng = np.random.default_rng(0)
        for scene in scenes(family, 40):
            ids = moving_shapes.render(rng, SMALL, scene).ids
            areas = writer_module.pixel_counts(ids, len(scene.things))
            assert ((areas >= 20).mean(1) >= 0.5).all()


# --- what can go wrong


def test_existing_set(data, tmp_path):
    before = (data / 'moving_shapes.json').stat().st_mtime_ns
    assert not generate(data, SMALL)
    assert (data / 'moving_shapes.json').stat().st_mtime_ns == before
    with pytest.raises(ValueError, match='holds a set with other parameters: seed 0 instead of 7. Remove it, or write'):
        generate(data, replace(SMALL, seed=7))
    with pytest.raises(ValueError, match="train_videos 8 instead of 12, difficulty 'normal' instead of 'hard'"):
        generate(data, replace(SMALL, train_videos=12, difficulty='hard'))
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/notes.txt').write_text('x')
    with pytest.raises(ValueError, match='mine exists and is no MovingShapes set'):
        generate(tmp_path / 'mine', SMALL)
    assert [path.name for path in (tmp_path / 'mine').iterdir()] == ['notes.txt']
    (tmp_path / 'empty').mkdir()
    assert generate(tmp_path / 'empty', replace(SMALL, train_videos=4, valid_videos=4), workers=1)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(train_videos=10), 'train_videos must be a positive multiple of 4 .*, found 10'),
        (dict(valid_videos=0), 'valid_videos must be a positive multiple of 4 .*, found 0'),
        (dict(seed=-1), 'seed must be at least 0, found -1'),
        (dict(width=20), 'width must be from 48 to 1024 pixels, found 20'),
        (dict(height=64.0), 'height must be an integer, found 64.0'),
        (dict(num_frames=3), 'num_frames must be from 4 to 512 .*, found 3'),
        (dict(difficulty='nightmare'), "difficulty must be one of easy, normal, hard, found 'nightmare'"),
        (dict(event_frames=5), r'event_frames must be from 4 to num_frames \(4\), found 5'),
        (dict(event_frames=4.0), 'event_frames must be an integer, found 4.0'),
        (dict(event_frames=4, event_at='middle'), "event_at must be one of start, end, found 'middle'"),
        (dict(event_at='end'), "event_at must be left out where there is no event_frames, found 'end'"),
    ],
)
def test_wrong_parameters(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)


def test_wrong_workers(tmp_path):
    with pytest.raises(ValueError, match='workers must be at least 1, found 0'):
        generate(tmp_path / 'set', SMALL, workers=0)
    assert not (tmp_path / 'set').exists()


def left_over(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith('.lock'))


@pytest.mark.parametrize('workers', [1, 2])
def test_full_disk(tmp_path, monkeypatch, workers):
    write = writer_module._write_video

    def full_after_a_while(folder, name, frames, video):
        if name == 'train00003':
            raise OSError(errno.ENOSPC, 'No space left on device')
        write(folder, name, frames, video)

    monkeypatch.setattr(writer_module, '_write_video', full_after_a_while)
    with pytest.raises(OSError, match='the disk is full .*set.; what had been written was removed again') as error:
        generate(tmp_path / 'set', SMALL, workers=workers)
    assert error.value.errno == errno.ENOSPC
    assert left_over(tmp_path) == []


@pytest.mark.parametrize('workers', [1, 2])
def test_interrupted(tmp_path, workers):
    def interrupt(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / 'set', SMALL, workers=workers, progress=interrupt)
    assert left_over(tmp_path) == []


def test_killed(data, tmp_path):
    """kill -9 in the middle; the next run starts afresh, also while the workers of the first have not ended."""
    out = tmp_path / 'set'
    child = multiprocessing.get_context('fork').Process(target=generate, args=(out, SMALL), kwargs=dict(workers=2))
    child.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob('.set.partial/train/JPEGImages/*/*.jpg')):
        assert child.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.join(60)
    assert left_over(tmp_path) == ['.set.partial']  # nothing that anyone would take for a set
    assert generate(out, SMALL, workers=1)
    assert left_over(tmp_path) == ['set'] and contents(out) == contents(data)


def test_two_writers(tmp_path):
    with (
        locked(tmp_path / 'set', 'a test'),
        pytest.raises(UserError, match='another process is writing .*set; wait until it has ended'),
    ):
        generate(tmp_path / 'set', SMALL)


def test_command_line(data, monkeypatch, capsys):
    from tools.dataset_converters import moving_shapes as tool

    common = [
        'moving_shapes.py',
        '--out',
        str(data),
        '--train-videos',
        '8',
        '--valid-videos',
        '24',
        '--num-frames',
        '6',
    ]
    monkeypatch.setattr(sys, 'argv', common)
    tool.main()
    assert 'there already, with the same parameters; nothing to do' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*common, '--num-frames', '8'])
    with pytest.raises(SystemExit, match='error: .*num_frames 6 instead of 8'):
        tool.main()
    monkeypatch.setattr(sys, 'argv', [*common, '--size', '96', '10'])
    with pytest.raises(SystemExit):
        tool.main()
    assert 'height must be from 48 to 1024 pixels, found 10' in capsys.readouterr().err


# --- scores by family


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def scored(data, guess):
    """The metric on the valid split; guess(ids, obj_ids, sentence) gives a mask."""
    metric = JFMetric(out_file=str(data.parent / 'scores.json'))
    samples = dataset(data, 'valid')
    for i in range(len(samples)):
        clip = samples[i]['data_samples']
        ids = [read_ids(path) for path in clip.mask_paths]
        masks = [[encode(guess(frame, clip.obj_ids, e)) for frame in ids] for e in range(2)]
        metric.process({}, [dict(clip.metainfo, pred_masks=masks, pred_scores=torch.ones(2))])
    return metric.evaluate(len(samples)), json.loads((data.parent / 'scores.json').read_text())


def test_metric_by_family(data):
    result, written = scored(data, lambda ids, obj_ids, e: ids == int(obj_ids[e]))
    assert next(iter(result)) == 'rvos/J&F'
    names = [*FAMILIES, 'held_out']
    assert list(result) == [
        f'rvos/{key}{name}' for name in ['', *(f'_{n}' for n in names)] for key in ('J&F', 'J', 'F')
    ]
    assert set(result.values()) == {1.0}
    assert [row['family'] for row in written['rows'][:8]] == [family for family in FAMILIES for _ in range(2)]
    assert sum(row['held_out'] for row in written['rows']) == 16
    # perfect in the first sentence of each video, empty in the second
    result, written = scored(data, lambda ids, obj_ids, e: (ids == int(obj_ids[e])) & (e == 0))
    for family in FAMILIES:
        of_family = [row['J&F'] for row in written['rows'] if row['family'] == family]
        assert result[f'rvos/J&F_{family}'] == pytest.approx(np.mean(of_family))
    assert 0.5 <= result['rvos/J&F_change'] < 0.6


def test_baselines(data):
    found = baselines(data)
    assert list(found) == ['empty', 'whole_frame', 'random_object']
    assert all(list(values) == [*FAMILIES, 'all'] for values in found.values())
    # the metric gives the same for what can be predicted
    for name, guess in (('empty', np.zeros_like), ('whole_frame', np.ones_like)):
        result, _ = scored(data, lambda ids, obj_ids, e, guess=guess: guess(ids))
        for family in FAMILIES:
            assert found[name][family] == pytest.approx(100 * result[f'rvos/J&F_{family}'], abs=0.006)
        assert found[name]['all'] == pytest.approx(100 * result['rvos/J&F'], abs=0.006)
    # change: objects are always visible and hardly touch, so that a random object scores about 1 / their number
    objects = json.loads((data / 'valid/meta.json').read_text())['videos']
    share = np.mean([1 / len(objects[f'valid{i:05d}']['objects']) for i in range(2, 24, 4)])
    assert 100 * share <= found['random_object']['change'] <= 100 * share + 5
    one = baselines(data, ['valid00002'])
    assert list(one['empty']) == ['change', 'all'] and one['empty']['change'] == one['empty']['all']
    with pytest.raises(ValueError, match='the valid split has no videos nowhere'):
        baselines(data, ['nowhere'])


def test_expressions_without_family(data, tmp_path):
    videos = expressions(data, 'valid')
    for video in videos.values():
        for claim in video['expressions'].values():
            del claim['family'], claim['held_out']
    plain = tmp_path / 'plain.json'
    plain.write_text(json.dumps(dict(videos=videos)))
    samples = dataset(data, 'valid', ann_file=str(plain))
    assert samples.get_data_info(0)['families'] is None and samples.get_data_info(0)['held_out'] is None
    assert not {'families', 'held_out'} & set(samples[0]['data_samples'].metainfo_keys())
    # some have it
    videos['valid00000']['expressions']['1']['family'] = 'new'
    plain.write_text(json.dumps(dict(videos=videos)))
    assert dataset(data, 'valid', ann_file=str(plain))[0]['data_samples'].families == [None, 'new']
    videos['valid00000']['expressions']['1']['family'] = 3
    plain.write_text(json.dumps(dict(videos=videos)))
    with pytest.raises(ValueError, match="video valid00000, expression 1: 'family' must be a str, found 3"):
        dataset(data, 'valid', ann_file=str(plain))
