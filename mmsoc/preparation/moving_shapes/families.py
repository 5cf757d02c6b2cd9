"""Scenes of the four families, each with two sentences about two different objects.

Single frames carry no information in *change* and *order*: in each frame the attribute that a sentence of the scene is
about (place, colour, brightness, orientation, size) is drawn for each look-alike independently from the same
distribution, whether it changes or not. That holds because every process is stationary: a bouncing object is uniform
over its range at each time, and so is one that circles from a random start.

The unordered set of frames carries no information in *order*. With look-alikes that simply did the reverse it would:
the one that differs from all others shows in the set. Instead, four objects visit the same places in four orders: a
random order of T places, its mirror image, the natural order and its mirror image. Each of the four is equally likely
to be the one in natural order: sort the frames by its places, and the other three are again its mirror image and a
random pair. So each of the four is the target with probability 1/4 given the set. Nothing else may move in these
scenes, since a second motion would order the frames.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from .predicates import (
    ANCHORED_EVENTS,
    RELATION_EVENTS,
    SIZE_RANGE,
    SYMMETRY,
    names_exactly_its_target,
)
from .scene import (
    COLORS,
    CYCLE,
    EVENT_AT,
    HELD_OUT_CHANGES,
    HELD_OUT_LOOKS,
    HELD_OUT_ORDERS,
    REACH,
    SHAPES,
    TURNING,
    Expression,
    Noun,
    Scene,
    Settings,
    Thing,
)
from .sentences import sentence

Look = tuple[str, str]  # shape and colour
Range = tuple[float, float]

CHANGE_ATTRIBUTES = {
    'position': ('moves', 'stays_still'),
    'light': ('flickers',),
    'colour': ('changes_colour',),
    'angle': ('turns',),
    'size': ('changes_size',),
}
ORDER_ATTRIBUTES = {  # attribute that runs forward, attribute that runs back
    'horizontal': ('moves_right', 'moves_left'),
    'vertical': ('moves_down', 'moves_up'),
    'angle': ('turns_clockwise', 'turns_counterclockwise'),
    'size': ('grows', 'shrinks'),
    'colour': ('red_green_blue', 'red_blue_green'),
}
TILT = 15.0  # degrees; shapes of 20 pixels in any orientation are hard to distinguish
_ALL_LOOKS = tuple(product(SHAPES, COLORS))
_SEEN_LOOKS = tuple(look for look in _ALL_LOOKS if look not in HELD_OUT_LOOKS)


def draw_scene(rng: np.random.Generator, settings: Settings, family: str, held_out: bool) -> Scene:
    """A scene whose two sentences are proven to name exactly their targets.

    Args:
        held_out: the sentences use combinations that the train split lacks (in change: one of the two).
    """
    happening = settings if settings.event_frames is None else replace(settings, num_frames=settings.event_frames)
    while True:
        scene = _FAMILIES[family](rng, happening, held_out)
        if scene is not None:
            break
    for claim in scene.expressions:
        assert names_exactly_its_target(scene, claim), (family, claim.event, str(claim.noun))
        claim.text = sentence(rng, claim)
    if settings.event_frames is not None:
        _add_rest(rng, settings, scene)
    return scene


def _add_rest(rng: np.random.Generator, settings: Settings, scene: Scene) -> None:
    """Extends the scene to the length of the video: everything rests before or after the events.

    Each frame's state is one of the scene's, so single frames still carry no information. In *order* the set of frames
    does: the most frequent state is the first or the last.
    """
    scene.event_at = settings.event_at or _pick(rng, EVENT_AT)
    rest = settings.num_frames - scene.num_frames
    state = np.clip(np.arange(settings.num_frames) - (rest if scene.event_at == 'end' else 0), 0, scene.num_frames - 1)
    for thing in scene.things:
        for name in ('color', 'bright', 'x', 'y', 'size', 'angle'):
            setattr(thing, name, getattr(thing, name)[state])
    scene.num_frames = settings.num_frames


def _make_scene(rng: np.random.Generator, settings: Settings, family: str, things: list[Thing], peers: int) -> Scene:
    """Assembles a scene; the first ``peers`` things are the look-alikes. The depth order is drawn here."""
    shuffled = [things[i] for i in rng.permutation(len(things))]
    scene = Scene(family, settings.width, settings.height, settings.num_frames, shuffled)
    scene.peers = [thing for thing in shuffled if any(thing is peer for peer in things[:peers])]
    return scene


def _pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def _thing(
    rng: np.random.Generator, settings: Settings, look: Look, texture: str, size: float | np.ndarray, **states
) -> Thing:
    """A bright, nearly upright thing in which nothing changes except the given states."""
    T = settings.num_frames
    angle = 0.0 if look[0] == 'circle' else rng.uniform(-TILT, TILT)
    values = dict(color=look[1], bright=True, x=0.0, y=0.0, size=size, angle=angle) | states
    return Thing(look[0], texture, **{name: np.broadcast_to(value, T).copy() for name, value in values.items()})


def _bounce(rng: np.random.Generator, T: int, low: float, high: float, speed: float) -> np.ndarray:
    """(T,) uniform in ``low..high`` at each time: back and forth, from a random place in a random direction."""
    span = high - low
    way = (rng.uniform(0, 2 * span) + speed * np.arange(T)) % (2 * span)
    return low + np.abs(span - way)


# --- appearance


def _appearance(rng: np.random.Generator, settings: Settings, held_out: bool) -> Scene | None:
    low, high = settings.level.objects
    number = int(rng.integers(low, high + 1))
    looks = _different_looks(rng, number, held_out)
    things: list[Thing] = []
    for look in looks:
        # the least crowded of three draws: objects overlap, but few are hidden most of the time
        candidates = [_wanderer(rng, settings, look, _pick(rng, settings.level.textures)) for _ in range(3)]
        things.append(min(candidates, key=lambda thing: sum(_overlap(thing, other) for other in things)))
    scene = _make_scene(rng, settings, 'appearance', things, number)
    for target in things[:2]:
        color = str(target.color[0])
        nouns = [Noun(target.shape, color)] * 2 + [Noun(target.shape)] * 2 + [Noun(None, color)]
        if target.texture != 'plain':
            nouns += [Noun(target.shape, None, target.texture), Noun(target.shape, color, target.texture)]
        claims = [Expression(noun, 'is', target, held_out=(target.shape, color) in HELD_OUT_LOOKS) for noun in nouns]
        claims = [claim for claim in claims if names_exactly_its_target(scene, claim)]
        scene.expressions.append(_pick(rng, claims))
    return scene


def _overlap(one: Thing, other: Thing) -> float:
    """Overlap of two objects, averaged over frames, from 0 (apart) to 1 (the same centre)."""
    distance = np.hypot(one.x - other.x, one.y - other.y)
    return float(np.maximum(1 - distance / (one.size + other.size), 0).mean())


def _different_looks(rng: np.random.Generator, number: int, held_out: bool) -> list[Look]:
    """Looks that share shapes and colours, so that naming one often takes both; the first two can be held out."""
    looks: list[Look] = []
    while len(looks) < number:
        special = held_out and len(looks) < 2
        pool = [look for look in (sorted(HELD_OUT_LOOKS) if special else _SEEN_LOOKS) if look not in looks]
        kin = [look for look in pool if any(set(look) & set(other) for other in looks)]
        looks.append(_pick(rng, kin if kin and not special and rng.random() < 0.8 else pool))
    return looks


def _wanderer(rng: np.random.Generator, settings: Settings, look: Look, texture: str) -> Thing:
    """Stands still, moves back and forth in the frame, or crosses its border: leaves on one side, enters on the other."""
    size = settings.unit * rng.uniform(0.16, 0.25)
    reach = size * REACH[look[0]]
    way = rng.choice(['stands', 'stays', 'crosses'], p=[0.3, 0.45, 0.25])
    direction = rng.uniform(0, 2 * np.pi)
    speed = 0.0 if way == 'stands' else settings.unit * rng.uniform(0.04, 0.16)
    states = {}
    for axis, extent, part in (('x', settings.width, np.cos(direction)), ('y', settings.height, np.sin(direction))):
        if way == 'crosses':  # a torus that is larger than the frame by the object
            span = extent + 2 * reach
            steps = speed * part * np.arange(settings.num_frames)
            states[axis] = (rng.uniform(0, span) + steps) % span - reach
        else:
            states[axis] = _bounce(rng, settings.num_frames, 0.7 * reach, extent - 0.7 * reach, speed * abs(part))
    return _thing(rng, settings, look, texture, size, **states)


# --- relation


def _relation(rng: np.random.Generator, settings: Settings, held_out: bool) -> Scene | None:
    event = _pick(rng, tuple(RELATION_EVENTS))
    look = _pick(rng, sorted(HELD_OUT_LOOKS) if held_out else _SEEN_LOOKS)
    number = int(rng.integers(settings.level.group[0] - 1, settings.level.group[1]))
    looks = [look] * number
    kin = [other for other in _SEEN_LOOKS if other[0] == look[0] or other[1] == look[1]]
    for _ in range(int(rng.integers(1, 3))):
        looks.append(_pick(rng, [other for other in (kin, _SEEN_LOOKS)[rng.integers(2)] if other not in looks]))
    texture = _pick(rng, settings.level.textures)
    for _ in range(300):
        things: list[Thing] = []
        for _attempt in range(8 * len(looks)):
            i = len(things)
            of_group = texture if i < number else _pick(rng, settings.level.textures)
            thing = _pacer(rng, settings, looks[i], of_group)
            if all(_apart(thing, other) for other in things):
                things.append(thing)
            if len(things) == len(looks):
                break
        else:
            continue
        scene = _make_scene(rng, settings, 'relation', things, number)
        first = _true_claims(scene, event)
        if not first:
            continue
        claim = _pick(rng, first)
        second = [c for e in RELATION_EVENTS for c in _true_claims(scene, e) if c.target is not claim.target]
        if not second:
            continue
        # superlatives are true more often than sentences with an anchor
        with_anchor = [c for c in second if c.anchor is not None]
        second = with_anchor if with_anchor and rng.random() < 0.8 else second
        scene.expressions = [claim, _pick(rng, second)]
        for c in scene.expressions:
            c.held_out = held_out
            c.noun = _pick(rng, _nouns(scene, scene.peers))
            if c.anchor is not None:
                c.anchor_noun = _pick(rng, _nouns(scene, [c.anchor]))
        return scene
    return None


def _pacer(rng: np.random.Generator, settings: Settings, look: Look, texture: str) -> Thing:
    """Stays within the frame; stands or moves a little."""
    size = settings.unit * 0.1 * 2.2 ** rng.random()
    reach = size * REACH[look[0]]
    place = {}
    for axis, extent in (('x', settings.width), ('y', settings.height)):
        speed = extent * max(rng.uniform(-0.03, 0.04), 0) * 6 / settings.num_frames
        place[axis] = _bounce(rng, settings.num_frames, reach, extent - reach, speed)
    return _thing(rng, settings, look, texture, size, **place)


def _apart(one: Thing, other: Thing) -> bool:
    """Whether two objects overlap so little that they can be distinguished even if they have the same colour."""
    distance = np.hypot(one.x - other.x, one.y - other.y)
    return bool((distance > 0.8 * (one.size + other.size)).all())


def _nouns(scene: Scene, meant: list[Thing]) -> list[Noun]:
    """Nouns with a shape that match exactly these look-alikes."""
    thing = meant[0]
    nouns = [Noun(thing.shape), Noun(thing.shape, str(thing.color[0]))]
    return [noun for noun in nouns if sum(noun.fits(other) for other in scene.things) == len(meant)]


def _true_claims(scene: Scene, event: str) -> list[Expression]:
    nouns = _nouns(scene, scene.peers)
    others = [thing for thing in scene.things if not any(thing is peer for peer in scene.peers)]
    anchors = [thing for thing in others if _nouns(scene, [thing])] if event in ANCHORED_EVENTS else [None]
    claims = [Expression(nouns[-1], event, target, anchor) for target in scene.peers for anchor in anchors]
    return [claim for claim in claims if names_exactly_its_target(scene, claim)]


# --- change and order: look-alikes


class _Places:
    """Places for look-alikes: each has its own lane (along x or y) or cell, so that none is hidden."""

    def __init__(self, rng: np.random.Generator, settings: Settings, number: int, axis: str | None) -> None:
        self.axis = axis
        self.extent = dict(x=settings.width, y=settings.height)
        if axis is None:
            wide = settings.width >= settings.height
            columns, rows = (3, 2) if wide else (2, 3)
            chosen = rng.permutation(6)[:number]
            cell = dict(x=settings.width / columns, y=settings.height / rows)
            jitter = rng.uniform(-0.15, 0.15, (2, number))
            self.place = [
                dict(
                    x=(c % columns + 0.5 + jitter[0, i]) * cell['x'], y=(c // columns + 0.5 + jitter[1, i]) * cell['y']
                )
                for i, c in enumerate(chosen)
            ]
            self.size = 0.27 * min(cell.values()) * settings.level.scale
        else:
            across = 'y' if axis == 'x' else 'x'
            lane = self.extent[across] / number
            jitter = rng.uniform(-0.1, 0.1, number)
            self.place = [{across: (i + 0.5 + jitter[k]) * lane} for k, i in enumerate(rng.permutation(number))]
            self.size = min(0.5 * lane, 0.135 * settings.unit) * min(settings.level.scale, 1)


def _other_things(
    rng: np.random.Generator, settings: Settings, shape: str, places: _Places, first: int, number: int
) -> list[Thing]:
    """Static things of another shape."""
    things = []
    for i in range(first, first + number):
        look = _pick(rng, [look for look in _SEEN_LOOKS if look[0] != shape])
        place = dict(places.place[i])
        if places.axis is not None:
            place[places.axis] = rng.uniform(0.1, 0.9) * places.extent[places.axis]
        things.append(_thing(rng, settings, look, _pick(rng, settings.level.textures), places.size, **place))
    return things


def _noun_of_group(rng: np.random.Generator, look: Look, changing: set[str]) -> Noun:
    # a dim colour is hard to name, and a changing one has no name
    return Noun(look[0], look[1] if not changing & {'light', 'colour'} and rng.random() < 0.5 else None)


def _change(rng: np.random.Generator, settings: Settings, held_out: bool) -> Scene | None:
    T = settings.num_frames
    shape, first, second = _shape_and_changes(rng, held_out)
    changing = {first, second}
    look = _pick(rng, [look for look in _SEEN_LOOKS if look[0] == shape])
    low, high = settings.level.group
    number = int(rng.integers(low, high + 1))
    others = int(rng.integers(settings.level.others[0], settings.level.others[1] + 1))
    axis = _pick(rng, ('x', 'y')) if 'position' in changing else None
    places = _Places(rng, settings, number + others, axis)
    texture = _pick(rng, settings.level.textures)
    sizes: Range = (places.size * 0.62, places.size * 1.4)
    events = [_pick(rng, CHANGE_ATTRIBUTES[first]), _pick(rng, CHANGE_ATTRIBUTES[second])]
    targets = dict(zip((first, second), (0, 1)))  # look-alikes 0 and 1; depth and place are drawn independently

    things = []
    for i in range(number):

        def changes(attribute: str, i: int = i) -> bool:
            return attribute in changing and (targets[attribute] == i) is not (
                attribute == 'position' and 'stays_still' in events
            )

        state: dict = dict(places.place[i])
        size: float | np.ndarray = places.size * rng.uniform(0.88, 1.12)
        if 'size' in changing:
            span = float(np.log(sizes[1] / sizes[0]))
            logs = _bounce(rng, T, 0, span, span * rng.uniform(1, 1.75) / (T - 1))
            size = sizes[0] * np.exp(logs if changes('size') else logs[0])
        if axis is not None:
            margin = (sizes[1] if 'size' in changing else places.size * 1.12) * REACH[shape]
            track = _bounce(
                rng, T, margin, places.extent[axis] - margin, settings.unit * rng.uniform(0.35, 0.65) / (T - 1)
            )
            state[axis] = track if changes('position') else track[0]
        if 'light' in changing:
            lit = (np.arange(T) + rng.integers(2)) % 2 == 0
            state['bright'] = lit if changes('light') else lit[0]
        if 'colour' in changing:
            hues = np.array(CYCLE)[(rng.integers(3) + _pick(rng, (-1, 1)) * np.arange(T)) % 3]
            state['color'] = hues if changes('colour') else hues[0]
        if 'angle' in changing:
            angle = rng.uniform(0, 360) + _pick(rng, (-1, 1)) * _turn(shape) * np.arange(T)
            state['angle'] = angle if changes('angle') else angle[0]
        things.append(_thing(rng, settings, look, texture, size, **state))
    noun = _noun_of_group(rng, look, changing)
    things += _other_things(rng, settings, shape, places, number, others)
    scene = _make_scene(rng, settings, 'change', things, number)
    scene.expressions = [
        Expression(noun, event, things[targets[attribute]], held_out=(shape, attribute) in HELD_OUT_CHANGES)
        for event, attribute in zip(events, (first, second))
    ]
    return scene


def _shape_and_changes(rng: np.random.Generator, held_out: bool) -> tuple[str, str, str]:
    """A shape and two different changes, in random order; exactly one of them, or none, is held out for this shape."""
    pairs = [(s, a) for s in SHAPES for a in CHANGE_ATTRIBUTES if a != 'angle' or s in TURNING]
    seen = [pair for pair in pairs if pair not in HELD_OUT_CHANGES]
    shape, first = _pick(rng, sorted(HELD_OUT_CHANGES) if held_out else seen)
    second = _pick(rng, [a for s, a in seen if s == shape and a != first])
    return (shape, first, second) if rng.random() < 0.5 else (shape, second, first)


def _turn(shape: str) -> float:
    """Degrees per frame of a turning object: well below half its symmetry angle, else it would seem to turn back."""
    return 0.2 * SYMMETRY[shape] if SYMMETRY[shape] <= 90 else 0.1 * SYMMETRY[shape]


# --- order


def order_tracks(rng: np.random.Generator, num_frames: int, step: float) -> np.ndarray:
    """Four orders of visiting the places 0 .. T-1: natural, its mirror image, a random one, its mirror image.

    Args:
        step: the distance between adjacent places on their circle of length 1.

    Returns:
        int (4, T). The random one neither advances nor retreats in more than two thirds of its steps, and the same
        holds with places and times exchanged, so it holds whichever of the four is the natural one.
    """
    T = num_frames
    while True:
        order = rng.permutation(T)
        if to_and_fro(order, step) and to_and_fro(np.argsort(order), step):
            natural = np.arange(T)
            return np.stack([natural, natural[::-1], order, T - 1 - order])


def to_and_fro(order: np.ndarray, step: float) -> bool:
    """Whether at most two thirds of the steps go forward, and at most two thirds back (the shorter way around)."""
    steps = np.round(np.diff(order) * step, 9) % 1
    forward, back = (steps > 0) & (steps < 0.5), steps > 0.5
    return max(forward.mean(), back.mean()) <= 2 / 3


def _order(rng: np.random.Generator, settings: Settings, held_out: bool) -> Scene | None:
    pairs = [(s, a) for s in SHAPES for a in ORDER_ATTRIBUTES if a != 'angle' or s in TURNING]
    pairs = [pair for pair in pairs if pair not in HELD_OUT_ORDERS]
    shape, attribute = _pick(rng, sorted(HELD_OUT_ORDERS) if held_out else pairs)
    look = _pick(rng, [look for look in _SEEN_LOOKS if look[0] == shape])
    others = int(rng.integers(settings.level.others[0], settings.level.others[1] + 1))
    axis = dict(horizontal='x', vertical='y').get(attribute)
    places = _Places(rng, settings, 4 + others, axis)
    texture = _pick(rng, settings.level.textures)
    step = {
        'angle': _turn(shape) / SYMMETRY[shape],
        'size': 0.15,
        'colour': 1 / 3,
    }.get(attribute) or rng.uniform(0.09, 0.12)

    things = []
    for i, track in enumerate(order_tracks(rng, settings.num_frames, step)):
        start = rng.integers(3) / 3 if attribute == 'colour' else rng.random()
        phase = (start + step * track) % 1
        state: dict = dict(places.place[i])
        size: float | np.ndarray = places.size * rng.uniform(0.88, 1.12)
        if axis is not None:
            reach = float(size) * REACH[shape]
            state[axis] = phase * (places.extent[axis] + 2 * reach) - reach
        elif attribute == 'angle':
            state['angle'] = (rng.random() + step * track * SYMMETRY[shape] / 360) % 1 * 360
        elif attribute == 'size':
            size = places.size * 0.62 * SIZE_RANGE**phase
        else:
            state['color'] = np.array(CYCLE)[np.round(phase * 3).astype(int) % 3]
        things.append(_thing(rng, settings, look, texture, size, **state))
    noun = _noun_of_group(rng, look, {attribute})
    things += _other_things(rng, settings, shape, places, 4, others)
    scene = _make_scene(rng, settings, 'order', things, 4)
    scene.expressions = [
        Expression(noun, event, target, held_out=(shape, attribute) in HELD_OUT_ORDERS)
        for event, target in zip(ORDER_ATTRIBUTES[attribute], things[:2])
    ]
    if rng.random() < 0.5:
        scene.expressions.reverse()
    return scene


_FAMILIES = dict(appearance=_appearance, relation=_relation, change=_change, order=_order)
