"""Truth of a sentence's claim about an object, decided from the states alone, not from how they were generated."""

from collections.abc import Callable

import numpy as np

from .scene import CYCLE, REACH, Expression, Scene, Thing

# True: clearly. False: clearly not. None: ambiguous to a person, so the scene must not be used.
Verdict = bool | None
Course = Callable[[Scene, Thing], tuple[np.ndarray, float]]  # values (T,) on a circle, and the circle's length


def fulfils(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
    """Whether ``thing`` matches the claim, over all frames."""
    if not claim.noun.fits(thing):
        return False
    return EVENTS[claim.event](scene, thing, claim)


def names_exactly_its_target(scene: Scene, claim: Expression) -> bool:
    """The proof of uniqueness: the claim is clearly true of its target and clearly false of every other object."""
    return all(fulfils(scene, thing, claim) is (thing is claim.target) for thing in scene.things)


def _always(true: np.ndarray, false: np.ndarray) -> Verdict:
    return True if bool(true.all()) else False if bool(false.all()) else None


# --- change


def _changes(values: np.ndarray) -> bool:
    return bool((values != values[0]).any())


def _moves(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
    way = np.hypot(np.diff(thing.x), np.diff(thing.y)).sum()  # over the whole video, regardless of the number of frames
    return True if way > 0.06 * scene.width else False if way == 0 else None


def _stays(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
    moves = _moves(scene, thing, claim)
    return None if moves is None else not moves


def _flickers(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
    return _changes(thing.bright)


def _changes_colour(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
    return _changes(thing.color)


def _turns(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
    return _changes(thing.angle)


def _changes_size(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
    ratio = thing.size.max() / thing.size.min()
    return True if ratio > 1.2 else False if ratio == 1 else None


# --- order


def _runs(get: Course, sign: int) -> Callable:
    """All steps go forward (sign 1) or back (-1) on a circle, or at most two thirds of them do."""

    def verdict(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
        values, length = get(scene, thing)
        step = np.round(sign * np.diff(values) / length, 9) % 1
        share = ((step > 0) & (step < 0.5)).mean()
        return True if share == 1 else False if share <= 2 / 3 else None

    return verdict


def _x(scene: Scene, thing: Thing) -> tuple[np.ndarray, float]:
    return thing.x, scene.width + 2 * thing.reach


def _y(scene: Scene, thing: Thing) -> tuple[np.ndarray, float]:
    return thing.y, scene.height + 2 * thing.reach


def _angle(scene: Scene, thing: Thing) -> tuple[np.ndarray, float]:
    return thing.angle, SYMMETRY[thing.shape]


def _size(scene: Scene, thing: Thing) -> tuple[np.ndarray, float]:
    return np.log(thing.size), np.log(SIZE_RANGE)


def _hue(scene: Scene, thing: Thing) -> tuple[np.ndarray, float]:
    return np.array([CYCLE.index(color) if color in CYCLE else 0 for color in thing.color], float), len(CYCLE)


# degrees of rotation after which a shape looks the same
SYMMETRY = dict(circle=1, square=90, triangle=360, star=72, cross=90, heart=360)
SIZE_RANGE = 2.3  # growth is circular: beyond SIZE_RANGE times the least size an object is small again
assert set(SYMMETRY) == set(REACH)


# --- relation


def _beside(axis: str, sign: int) -> Callable:
    """At least a margin on one side of the anchor in all frames; clearly not: as much on the other side."""

    def verdict(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
        assert claim.anchor is not None
        if thing is claim.anchor:
            return False
        margin = 0.08 * (scene.width if axis == 'x' else scene.height)
        gap = sign * (getattr(thing, axis) - getattr(claim.anchor, axis)) / margin
        return _always(gap >= 1, gap <= -1)

    return verdict


def _most(value: Callable[[Scene, Thing], np.ndarray]) -> Callable:
    """Ahead of all others of its kind by 1 in all frames; clearly not: in all frames behind one of them by 1."""

    def verdict(scene: Scene, thing: Thing, claim: Expression) -> Verdict:
        others = [value(scene, other) for other in scene.things if other is not thing and claim.noun.fits(other)]
        if not others:
            return None
        gap = value(scene, thing) - np.max(others, axis=0)
        return _always(gap >= 1, gap <= -1)

    return verdict


def _along(axis: str, sign: int) -> Callable[[Scene, Thing], np.ndarray]:
    def value(scene: Scene, thing: Thing) -> np.ndarray:
        return sign * getattr(thing, axis) / (0.08 * (scene.width if axis == 'x' else scene.height))

    return value


def _larger(sign: int) -> Callable[[Scene, Thing], np.ndarray]:
    return lambda scene, thing: sign * np.log(thing.size) / np.log(1.3)


CHANGE_EVENTS = {
    'moves': _moves,
    'stays_still': _stays,
    'flickers': _flickers,
    'changes_colour': _changes_colour,
    'turns': _turns,
    'changes_size': _changes_size,
}
COURSES: dict[str, Course] = {
    'moves_right': _x,
    'moves_left': _x,
    'moves_down': _y,
    'moves_up': _y,
    'turns_clockwise': _angle,
    'turns_counterclockwise': _angle,
    'grows': _size,
    'shrinks': _size,
    'red_green_blue': _hue,
    'red_blue_green': _hue,
}
ORDER_EVENTS = {event: _runs(course, (1, -1)[i % 2]) for i, (event, course) in enumerate(COURSES.items())}
ANCHORED_EVENTS = {
    'left_of': _beside('x', -1),
    'right_of': _beside('x', 1),
    'above': _beside('y', -1),
    'below': _beside('y', 1),
}
SUPERLATIVE_EVENTS = {
    'leftmost': _most(_along('x', -1)),
    'rightmost': _most(_along('x', 1)),
    'topmost': _most(_along('y', -1)),
    'lowest': _most(_along('y', 1)),
    'largest': _most(_larger(1)),
    'smallest': _most(_larger(-1)),
}
RELATION_EVENTS = ANCHORED_EVENTS | SUPERLATIVE_EVENTS
EVENTS: dict[str, Callable[[Scene, Thing, Expression], Verdict]] = {
    'is': lambda scene, thing, claim: True,
    **RELATION_EVENTS,
    **CHANGE_EVENTS,
    **ORDER_EVENTS,
}
