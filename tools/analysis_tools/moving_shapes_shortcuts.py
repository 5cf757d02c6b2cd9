"""Tests for shortcuts in MovingShapes: classifiers that know the true states of its scenes.

    python tools/analysis_tools/moving_shapes_shortcuts.py

Each chooses among the look-alikes of a scene. It is fitted on one half of many generated scenes, separately for each
event (so it knows the sentence), and evaluated on the other half. It is a softmax over the candidates' features;
nothing is rendered, so it sees exact positions, sizes, orientations, colours and brightness.

- *single frame t*: the states of all look-alikes in frame t, absolute and relative to the others, and all their
  products. Must be at chance for change and order, at each t.
- *set of frames*: for each look-alike the sorted values, and the correlation of its course with the others' (a sum over
  frames of products within a frame); invariant to shuffling the frames. Must be at chance for order; identifies change.
- *ordered frames*: the steps from frame to frame. Must be far above chance.
- *set of frames, if look-alikes just did the reverse*: shows that the set classifier can find a leak: this would be
  order without the random orders (see mmsoc/datasets/moving_shapes/families.py).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmsoc.preparation.moving_shapes import Settings, draw_scene
from mmsoc.preparation.moving_shapes.predicates import CHANGE_EVENTS, COURSES, ORDER_EVENTS, SYMMETRY
from mmsoc.preparation.moving_shapes.scene import CYCLE
from mmsoc.utils.errors import user_errors

EVENTS = dict(change=tuple(CHANGE_EVENTS), order=tuple(ORDER_EVENTS))
_MAX_PEERS = 4


@dataclass
class Cases:
    """Sentences of one event. N cases, P candidates (padded), T frames.

    Args:
        states: float (N, P, T, F), true states; zeros for padded candidates.
        course: float (N, P, T), for order the one state of the event, on a circle of length 1.
        there: bool (N, P).
        target: int (N,).
    """

    states: np.ndarray
    course: np.ndarray
    there: np.ndarray
    target: np.ndarray

    @property
    def chance(self) -> float:
        """Accuracy of a random choice on the second half."""
        half = len(self.target) // 2
        return float((1 / self.there[half:].sum(1)).mean())


def draw_cases(family: str, per_event: int, seed: int = 0, settings: Settings | None = None) -> dict[str, Cases]:
    """At least ``per_event`` sentences for each event of the family."""
    settings = settings or Settings()
    rng = np.random.default_rng(seed)
    found: dict[str, list] = {event: [] for event in EVENTS[family]}
    while min(map(len, found.values())) < per_event:
        scene = draw_scene(rng, settings, family, held_out=False)
        order = rng.permutation(len(scene.peers))
        peers = [scene.peers[i] for i in order]
        for claim in scene.expressions:
            if len(found[claim.event]) < per_event:
                states = np.zeros((_MAX_PEERS, settings.num_frames, len(_state(settings, peers[0])[0])))
                course = np.zeros((_MAX_PEERS, settings.num_frames))
                for i, peer in enumerate(peers):
                    states[i] = _state(settings, peer)
                    states[i, :, -1] = scene.things.index(peer)
                    if family == 'order':
                        values, length = COURSES[claim.event](scene, peer)
                        course[i] = values / length % 1
                found[claim.event].append((states, course, len(peers), peers.index(claim.target)))
    result = {}
    for event, cases in found.items():
        states, course, number, target = map(np.array, zip(*cases))
        result[event] = Cases(states, course, np.arange(_MAX_PEERS) < number[:, None], target)
    return result


def _state(settings: Settings, thing) -> np.ndarray:
    """(T, F)"""
    angle = np.deg2rad(thing.angle)
    symmetric = angle * 360 / SYMMETRY[thing.shape]
    columns = [
        thing.x / settings.width,
        thing.y / settings.height,
        np.log(thing.size / settings.unit),
        thing.bright,
        *(thing.color == color for color in CYCLE),
        np.cos(angle),
        np.sin(angle),
        np.cos(symmetric),
        np.sin(symmetric),
        np.abs(thing.x / settings.width - 0.5),
        np.abs(thing.y / settings.height - 0.5),
        np.zeros(settings.num_frames),  # depth, filled in by the caller
    ]
    return np.stack([np.asarray(column, float) for column in columns], 1)


def single_frame(cases: Cases, t: int) -> np.ndarray:
    """(N, P, D)"""
    state = cases.states[:, :, t]
    there = cases.there[..., None]
    others = (there.sum(1, keepdims=True) - 1).clip(1)
    mean = ((state * there).sum(1, keepdims=True) - state) / others
    distance = np.abs(state[:, :, None] - state[:, None])  # (N, P, P, F)
    pair = cases.there[:, :, None] & cases.there[:, None] & ~np.eye(_MAX_PEERS, dtype=bool)
    nearest = np.where(pair[..., None], distance, 9).min(2)
    plain = np.concatenate([state, state - mean], 2)
    first, second = np.triu_indices(plain.shape[2])
    return np.concatenate([plain, nearest, plain[..., first] * plain[..., second]], 2)


def frame_set(cases: Cases) -> np.ndarray:
    """(N, P, D), independent of the order of the frames."""
    ordered = np.sort(cases.states, 2)
    own = np.concatenate(
        [ordered.reshape(*ordered.shape[:2], -1), cases.states.mean(2), cases.states.var(2), np.ptp(cases.states, 2)], 2
    )
    turn = np.exp(2j * np.pi * cases.course)
    together = []
    for power in (1, 2, 3):
        for partner in (turn.conj(), turn):  # in step with each other, or opposite to each other
            strength = np.abs(np.einsum('npt,nqt->npq', turn**power, partner**power)) / turn.shape[2]
            strength[:, np.arange(_MAX_PEERS), np.arange(_MAX_PEERS)] = 0
            strength *= cases.there[:, None]
            together += [np.sort(strength, 2), strength.sum(2, keepdims=True), (strength**2).sum(2, keepdims=True)]
    features = np.concatenate([own, *together], 2)
    return np.concatenate([features, np.concatenate(together, 2) ** 2], 2)


def ordered_frames(cases: Cases) -> np.ndarray:
    """(N, P, D)"""
    step = np.diff(cases.course, axis=2) % 1
    return np.concatenate([np.sin(2 * np.pi * step), np.cos(2 * np.pi * step), (step < 0.5) - 0.5], 2)


def with_reversed_peers(cases: Cases, rng: np.random.Generator) -> Cases:
    """Order as it would be if all look-alikes of a target did the reverse."""
    T = cases.course.shape[2]
    way = np.where(np.arange(_MAX_PEERS) == cases.target[:, None], 1, -1)[..., None] * np.arange(T) / 9
    course = (rng.random((*cases.there.shape, 1)) + way) % 1
    return Cases(np.zeros_like(cases.states), course, cases.there, cases.target)


def accuracy(features: np.ndarray, cases: Cases, decay: float = 0.02, steps: int = 120) -> float:
    """Fits a softmax over candidates on the first half of the cases; returns the accuracy on the second."""
    half = len(cases.target) // 2
    used = features[:half][cases.there[:half]]
    scale = used.std(0)
    features = ((features - used.mean(0)) / np.where(scale > 1e-9, scale, 1)).clip(-5, 5).astype(np.float32)
    features = features[..., scale > 1e-9]
    blocked = np.where(cases.there, 0, -1e9).astype(np.float32)
    wanted = np.eye(_MAX_PEERS, dtype=np.float32)[cases.target]
    train = features[:half].reshape(-1, features.shape[2])
    weight, first, second = (np.zeros(features.shape[2], np.float32) for _ in range(3))
    for step in range(1, steps + 1):  # Adam
        logits = (train @ weight).reshape(half, -1) + blocked[:half]
        chosen = np.exp(logits - logits.max(1, keepdims=True))
        chosen /= chosen.sum(1, keepdims=True)
        gradient = (chosen - wanted[:half]).ravel() @ train / half + decay * weight
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        weight -= 0.03 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    guess = (features[half:] @ weight + blocked[half:]).argmax(1)
    return float((guess == cases.target[half:]).mean())


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


@user_errors()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--per-event', type=int, default=4000, help='sentences per event (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    args = parser.parse_args()
    num_frames = Settings().num_frames
    for family, events in EVENTS.items():
        cases = draw_cases(family, args.per_event, args.seed)
        columns = [f'frame {t}' for t in range(num_frames)] + ['set']
        columns += ['ordered', 'set if reversed'] if family == 'order' else []
        print(f'\n| {family}, % | chance | ' + ' | '.join(columns) + ' |\n|---|' + '---:|' * (len(columns) + 1))
        rows = []
        for event in events:
            of_event = cases[event]
            row = [of_event.chance] + [accuracy(single_frame(of_event, t), of_event) for t in range(num_frames)]
            row.append(accuracy(frame_set(of_event), of_event))
            if family == 'order':
                row.append(accuracy(ordered_frames(of_event), of_event))
                naive = with_reversed_peers(of_event, np.random.default_rng(args.seed))
                row.append(accuracy(frame_set(naive), naive))
            rows.append(row)
            print(f'| {event} | ' + ' | '.join(f'{100 * value:.1f}' for value in row) + ' |', flush=True)
        print('| **mean** | ' + ' | '.join(f'**{100 * mean(column):.1f}**' for column in zip(*rows)) + ' |', flush=True)


if __name__ == '__main__':
    main()
