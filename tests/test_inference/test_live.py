"""Masks that leave before the next frames come."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from mmsoc.inference import AllQueries, LivePredictor, QueryByLength, QueryPerFrame, QueryPerVideo, RecentFrames
from tests.helpers import set_test_cfg
from tests.test_inference.conftest import LENGTH, ORI, SIZE, TEXTS, make_video, predict_whole


def live(model, **options):
    return LivePredictor(model, **dict(texts=TEXTS, frame_size=SIZE, ori_shape=ORI) | options)


def run(predictor, video, pieces=1):
    """What each chunk gives."""
    found = [chunk for piece in video.split(pieces) for chunk in predictor.feed(piece)]
    return [*found, *predictor.finish()]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    'selector',
    [QueryPerVideo(), QueryPerFrame(), QueryByLength(LENGTH), QueryByLength(LENGTH - 1)],
    ids=lambda selector: type(selector).__name__,
)
@pytest.mark.parametrize('chunk_frames', [LENGTH, 100])
def test_one_chunk_is_the_whole_video(model, video, monkeypatch, selector, chunk_frames):
    """Number by number: nothing is stored in half precision."""
    set_test_cfg(model, monkeypatch, selector=selector, frames_per_pass=1)
    whole = predict_whole(model, video)
    (found,) = run(live(model, chunk_frames=chunk_frames), video, 4)
    masks = np.stack([coco_mask.decode(codes).transpose(2, 0, 1) for codes in whole.pred_masks]).astype(bool)
    assert np.array_equal(found.masks.numpy(), masks) and masks.any() and not masks.all()
    assert torch.equal(found.frame_scores, whole.pred_frame_scores)
    assert torch.equal(found.queries, whole.pred_queries)


def test_a_chunk_leaves_with_its_last_frame(model, video):
    predictor = live(model, chunk_frames=4, overlap=2)
    counts = [[len(chunk.queries[0]) for chunk in predictor.feed(frame[None])] for frame in video]
    assert counts == [[], [], [], [4], [], [], [], [4], [], [], []]
    assert predictor.num_frames == LENGTH and predictor.chunk_frames == 4
    (rest,) = predictor.finish()
    assert rest.masks.shape == (3, 3, *ORI) and rest.masks.dtype == torch.bool
    assert rest.frame_scores.shape == rest.queries.shape == (3, 3) and rest.queries.dtype == torch.int64
    assert not predictor.finish()
    with pytest.raises(ValueError, match='the source was finished'):
        predictor.feed(video)


def test_later_frames_change_nothing(model, video):
    """Two videos with the same first 8 frames."""
    other = torch.cat([video[:8], make_video(seed=1)[8:]])
    one, two = (run(live(model, chunk_frames=4, overlap=2), frames) for frames in (video, other))
    assert len(one) == len(two) == 3
    for index in range(2):
        assert_equal(one[index], two[index])
    assert not torch.equal(one[2].frame_scores, two[2].frame_scores), 'nor do their own: the test tests nothing'
    # And earlier ones change something: the third chunk alone is another one.
    (alone,) = run(live(model, chunk_frames=4, overlap=2), video[8:])
    assert not torch.equal(alone.frame_scores, one[2].frame_scores)


def test_the_pieces_do_not_matter(model, video):
    one, two = (run(live(model, chunk_frames=4, overlap=2), video, pieces) for pieces in (1, LENGTH))
    for a, b in zip(one, two, strict=True):
        assert_equal(a, b)


def test_memory_has_a_bound(model):
    config = replace(model.test_cfg, memory=RecentFrames(3), frames_per_pass=4)
    predictor = live(model, chunk_frames=2, overlap=1, config=config)
    frames_kept = []
    for frame in make_video(20):
        predictor.feed(frame[None])
        assert len(predictor._chunks._waiting) <= 1 + 2
        for engine in predictor._engines:
            frames_kept.append(engine._remembered.queries.shape[1])
            assert len(engine._store._chunks) == 1 and not engine._pending
            assert engine._so_far.total.shape == (len(engine._text.sentence), 8, 1)
    assert len(predictor._engines) == 2 and max(frames_kept) == 3 + 2
    assert {engine._so_far.num_frames for engine in predictor._engines} == {20}


def test_a_query_is_that_of_all_frames_so_far(model, video):
    """Its score is the mean over all frames that have been seen, those too that the memory has dropped."""
    seen = []

    class Recording(QueryPerVideo):
        def __call__(self, logits, so_far=None):
            seen.append(logits)
            return super().__call__(logits, so_far)

    config = replace(model.test_cfg, selector=Recording(), memory=RecentFrames(1), frames_per_pass=100)
    chunks = run(live(model, chunk_frames=2, overlap=0, config=config), video)
    assert len(chunks) == len(seen) == 6
    for count, chunk in enumerate(chunks, 1):
        scores = torch.cat(seen[:count], 1).sigmoid().mean(1).amax(-1)
        assert chunk.queries.tolist() == [[query] * chunk.queries.shape[1] for query in scores.argmax(1).tolist()]


def test_sentences_one_after_the_other(model, video):
    together, apart = (
        run(live(model, chunk_frames=4, config=replace(model.test_cfg, frames_per_pass=frames)), video, LENGTH)
        for frames in (100, 1)
    )
    for one, two in zip(together, apart, strict=True):
        torch.testing.assert_close(one.frame_scores, two.frame_scores, rtol=0, atol=1e-6)
        assert torch.equal(one.queries, two.queries)
        assert (one.masks != two.masks).float().mean() < 1e-3  # a sum in another order can move a border


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(texts=[]), 'texts is empty; expected at least one sentence'),
        (dict(chunk_frames=0), 'chunk_frames of at least 1'),
        (dict(overlap=-1), 'found 8 and -1'),
    ],
)
def test_bad_arguments(model, options, message):
    with pytest.raises(ValueError, match=message):
        live(model, **options)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(frames_per_clip=8), 'frames_per_clip=8: a stream is one clip'),
        (dict(selector=AllQueries()), 'selector=AllQueries: a stream gives the masks of one query per frame'),
    ],
)
def test_what_it_cannot_do(model, changes, message):
    with pytest.raises(ValueError, match=message):
        live(model, config=replace(model.test_cfg, **changes))


def test_frames_of_another_size(model, video):
    with pytest.raises(ValueError, match=r'\(t, 3, 64, 96\).*found \(11, 3, 64, 90\)'):
        live(model).feed(video[..., :90])


def test_nothing_was_fed(model):
    assert live(model).finish() == []
