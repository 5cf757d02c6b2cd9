"""Wordings of claims, several for each."""

import numpy as np

from .scene import Expression, Noun

# {n}: the noun without its article. {a}: the anchor's. Only whole words may say left or right (left, leftmost,
# leftwards, ...): a flipped clip exchanges them.
_WORDINGS = {
    'left_of': (
        'the {n} left of the {a}',
        'the {n} to the left of the {a}',
        'the {n} that is on the left of the {a}',
        'left of the {a}, the {n}',
    ),
    'right_of': (
        'the {n} right of the {a}',
        'the {n} to the right of the {a}',
        'the {n} that is on the right of the {a}',
        'right of the {a}, the {n}',
    ),
    'above': ('the {n} above the {a}', 'the {n} that is above the {a}', 'the {n} higher up than the {a}'),
    'below': ('the {n} below the {a}', 'the {n} that is below the {a}', 'the {n} lower down than the {a}'),
    'leftmost': ('the leftmost {n}', 'the {n} farthest to the left', 'the {n} on the far left'),
    'rightmost': ('the rightmost {n}', 'the {n} farthest to the right', 'the {n} on the far right'),
    'topmost': ('the topmost {n}', 'the highest {n}', 'the {n} nearest to the top'),
    'lowest': ('the lowest {n}', 'the bottommost {n}', 'the {n} nearest to the bottom'),
    'largest': ('the largest {n}', 'the biggest {n}', 'the {n} of the greatest size'),
    'smallest': ('the smallest {n}', 'the littlest {n}', 'the {n} of the least size'),
    'moves': ('the {n} that moves', 'the moving {n}', 'the {n} that is moving', 'the {n} in motion'),
    'stays_still': ('the {n} that stays still', 'the {n} that does not move', 'the {n} at rest', 'the resting {n}'),
    'flickers': ('the {n} that flickers', 'the flickering {n}', 'the {n} that blinks', 'the blinking {n}'),
    'changes_colour': (
        'the {n} that changes colour',
        'the {n} whose colour changes',
        'the {n} with a changing colour',
    ),
    'turns': ('the {n} that turns', 'the turning {n}', 'the {n} that rotates', 'the rotating {n}'),
    'changes_size': ('the {n} that changes size', 'the {n} whose size changes', 'the {n} with a changing size'),
    'moves_right': ('the {n} that moves right', 'the {n} moving to the right', 'the {n} that goes rightwards'),
    'moves_left': ('the {n} that moves left', 'the {n} moving to the left', 'the {n} that goes leftwards'),
    'moves_down': ('the {n} that moves down', 'the {n} moving downwards', 'the sinking {n}'),
    'moves_up': ('the {n} that moves up', 'the {n} moving upwards', 'the rising {n}'),
    'turns_clockwise': ('the {n} that turns clockwise', 'the {n} rotating clockwise'),
    'turns_counterclockwise': ('the {n} that turns counterclockwise', 'the {n} rotating counterclockwise'),
    'grows': ('the {n} that grows', 'the growing {n}', 'the {n} that gets bigger and bigger'),
    'shrinks': ('the {n} that shrinks', 'the shrinking {n}', 'the {n} that gets smaller and smaller'),
    'red_green_blue': (
        'the {n} that goes from red to green to blue',
        'the {n} whose colour goes red, green, blue',
        'the {n} that turns red, then green, then blue',
    ),
    'red_blue_green': (
        'the {n} that goes from red to blue to green',
        'the {n} whose colour goes red, blue, green',
        'the {n} that turns red, then blue, then green',
    ),
}


def sentence(rng: np.random.Generator, claim: Expression) -> str:
    """One of the wordings of a claim."""
    if claim.event == 'is':
        wordings = _plain(claim.noun)
    else:
        wordings = _WORDINGS[claim.event]
    wording = wordings[rng.integers(len(wordings))]
    return wording.format(n=claim.noun, a=claim.anchor_noun)


def _plain(noun: Noun) -> tuple[str, ...]:
    if noun.shape is None:
        return ('the {n}', 'the ' + str(noun).replace('object', 'thing'), 'the ' + str(noun).replace('object', 'one'))
    if noun.color is not None and noun.texture is None:
        return (
            'the {n}',
            'the {n}',
            f'the {noun.shape} that is {noun.color}',
            f'the {noun.shape} coloured {noun.color}',
            'a {n}' if noun.color != 'orange' else 'an {n}',
        )
    return ('the {n}', 'the {n} in the video')
