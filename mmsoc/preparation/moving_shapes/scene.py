"""The model of a scene, and the settings of a set. Symbolic only; nothing is drawn."""

from dataclasses import dataclass, field

import numpy as np

from mmsoc.utils.errors import UserError

EVENT_AT = ('start', 'end')
FAMILIES = ('appearance', 'relation', 'change', 'order')
TEXTURES = ('plain', 'striped', 'dotted')
COLORS = {
    'red': (225, 35, 40),
    'green': (40, 175, 60),
    'blue': (45, 85, 235),
    'yellow': (245, 225, 45),
    'purple': (160, 50, 200),
    'cyan': (60, 220, 230),
    'orange': (250, 140, 20),
}
CYCLE = ('red', 'green', 'blue')  # colours of an object that changes colour
TURNING = ('square', 'triangle', 'cross', 'heart')  # shapes whose rotation is clearly visible

# Combinations that appear in the valid split only. Shape and colour for appearance and relation: no colour of CYCLE, so
# that no object of the train split takes on such a look temporarily. Shape and changing attribute for the other two
# families.
HELD_OUT_LOOKS = {
    ('circle', 'yellow'),
    ('square', 'purple'),
    ('triangle', 'cyan'),
    ('star', 'orange'),
    ('cross', 'yellow'),
    ('heart', 'purple'),
}
HELD_OUT_CHANGES = {
    ('circle', 'light'),
    ('square', 'angle'),
    ('triangle', 'position'),
    ('star', 'colour'),
    ('cross', 'size'),
    ('heart', 'position'),
}
HELD_OUT_ORDERS = {
    ('circle', 'size'),
    ('square', 'horizontal'),
    ('triangle', 'angle'),
    ('star', 'vertical'),
    ('cross', 'colour'),
    ('heart', 'horizontal'),
}


def _polygon(shape: str) -> np.ndarray:
    """Corners (N, 2) of a shape of size 1, x to the right and y down, around its centre."""
    if shape == 'circle':
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return np.stack([np.cos(angle), np.sin(angle)], 1)
    if shape == 'square':
        return 0.87 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    if shape == 'triangle':  # taller than wide, so that it is not symmetric under a rotation by 120 degrees
        return np.array([[0, -1.4], [0.95, 0.85], [-0.95, 0.85]])
    if shape == 'star':
        angle = np.arange(10) * np.pi / 5 - np.pi / 2
        radius = np.where(np.arange(10) % 2, 0.6, 1.35)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    if shape == 'cross':
        a, b = 1.2, 0.42
        return np.array(
            [[-b, -a], [b, -a], [b, -b], [a, -b], [a, b], [b, b], [b, a], [-b, a], [-b, b], [-a, b], [-a, -b], [-b, -b]]
        )
    assert shape == 'heart', shape
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2], 1) / 13


POLYGONS = {shape: _polygon(shape) for shape in ('circle', 'square', 'triangle', 'star', 'cross', 'heart')}
SHAPES = tuple(POLYGONS)
REACH = {shape: float(np.hypot(*polygon.T).max()) for shape, polygon in POLYGONS.items()}  # at size 1


@dataclass(frozen=True)
class Difficulty:
    """Numbers as (least, most).

    Args:
        objects: in a video of the family appearance.
        group: look-alikes in the families relation and change.
        others: further objects in the families change and order.
        textures: each with its frequency in this list.
        scale: factor on all sizes.
        grain: standard deviation of the noise that differs in each frame, in grey levels.
    """

    objects: tuple[int, int]
    group: tuple[int, int]
    others: tuple[int, int]
    textures: tuple[str, ...]
    backgrounds: tuple[str, ...]
    scale: float
    grain: float


_BACKGROUNDS = ('plain', 'gradient', 'clouds', 'stripes', 'checks')
DIFFICULTIES = {
    'easy': Difficulty((2, 3), (3, 3), (0, 0), TEXTURES[:1], _BACKGROUNDS[:2], 1.1, 0),
    'normal': Difficulty((2, 5), (3, 4), (0, 1), ('plain', *TEXTURES), _BACKGROUNDS, 1.0, 3),
    'hard': Difficulty((4, 5), (4, 4), (1, 1), TEXTURES, _BACKGROUNDS[2:], 0.85, 8),
}


@dataclass(frozen=True)
class Settings:
    """The parameters of a set; together with the package's version they determine every byte.

    Args:
        event_frames: all events happen within this many frames; in the others everything rests as in the nearest of
            them. None: events take the whole video.
        event_at: where those frames lie, at the 'start' or 'end' of the video; None: drawn for each video.

    Raises:
        UserError: a parameter is out of range.
    """

    seed: int = 0
    train_videos: int = 9600
    valid_videos: int = 432
    width: int = 96
    height: int = 64
    num_frames: int = 4
    difficulty: str = 'normal'
    event_frames: int | None = None
    event_at: str | None = None

    def __post_init__(self) -> None:
        def check(name: str, good: bool, expected: str) -> None:
            if not good:
                raise UserError(f'MovingShapes: {name} must be {expected}, found {getattr(self, name)!r}')

        for name in ('seed', 'train_videos', 'valid_videos', 'width', 'height', 'num_frames'):
            check(name, type(getattr(self, name)) is int, 'an integer')
        check('seed', self.seed >= 0, 'at least 0')
        for name in ('train_videos', 'valid_videos'):
            number = getattr(self, name)
            check(name, number > 0 and number % 4 == 0, 'a positive multiple of 4 (four families of equal number)')
        for name in ('width', 'height'):
            check(name, 48 <= getattr(self, name) <= 1024, 'from 48 to 1024 pixels')
        check('num_frames', 4 <= self.num_frames <= 512, 'from 4 to 512 (an order shows in no fewer frames)')
        check('difficulty', self.difficulty in DIFFICULTIES, f'one of {", ".join(DIFFICULTIES)}')
        if self.event_frames is not None:
            check('event_frames', type(self.event_frames) is int, 'an integer')
            check(
                'event_frames', 4 <= self.event_frames <= self.num_frames, f'from 4 to num_frames ({self.num_frames})'
            )
        check('event_at', self.event_at in (None, *EVENT_AT), f'one of {", ".join(EVENT_AT)}')
        check(
            'event_at',
            self.event_at is None or self.event_frames is not None,
            'left out where there is no event_frames',
        )

    @property
    def level(self) -> Difficulty:
        return DIFFICULTIES[self.difficulty]

    @property
    def unit(self) -> float:
        """The reference length of sizes, in pixels: the short side, but at most 2/3 of the long one."""
        short, long = sorted((self.width, self.height))
        return self.level.scale * min(short, long * 2 / 3)


@dataclass(eq=False)
class Thing:
    """An object; its state is given for each of the T frames.

    Args:
        color: (T,) names from COLORS.
        bright: (T,) bool; a dim object shows its colour at less than half its brightness.
        x, y: (T,) centre in pixels from the upper left corner; may lie outside of the frame.
        size: (T,) pixels; a shape's corners lie at ``size * POLYGONS[shape]``.
        angle: (T,) degrees, clockwise on the screen.
    """

    shape: str
    texture: str
    color: np.ndarray
    bright: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    angle: np.ndarray

    @property
    def reach(self) -> float:
        """Radius of the circle around the object's largest state, in pixels."""
        return float(self.size.max()) * REACH[self.shape]


@dataclass(frozen=True)
class Noun:
    """Attributes stated by a noun phrase; None: not stated."""

    shape: str | None = None
    color: str | None = None
    texture: str | None = None

    def fits(self, thing: Thing) -> bool:
        """An object that changes colour matches no colour."""
        return (
            self.shape in (None, thing.shape)
            and self.texture in (None, thing.texture)
            and (self.color is None or bool((thing.color == self.color).all()))
        )

    def __str__(self) -> str:
        return ' '.join(word for word in (self.texture, self.color, self.shape or 'object') if word)


@dataclass(eq=False)
class Expression:
    """A claim (noun, event, anchor), its target object, and its sentence."""

    noun: Noun
    event: str
    target: Thing
    anchor: Thing | None = None
    anchor_noun: Noun | None = None
    held_out: bool = False
    text: str = ''


@dataclass(eq=False)
class Scene:
    """Objects (the later ones lie in front; object i is id i + 1) and the sentences about them."""

    family: str
    width: int
    height: int
    num_frames: int
    things: list[Thing]
    expressions: list[Expression] = field(default_factory=list)
    peers: list[Thing] = field(default_factory=list)  # look-alikes, among them every target of change and order
    event_at: str | None = None  # 'start' or 'end', where most of the video is at rest
