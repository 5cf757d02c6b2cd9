"""Streamed prediction against prediction of the whole video."""

from dataclasses import replace

import pytest
import torch
from mmdet.structures.mask import encode_mask_results

from mmsoc.inference import AllQueries, QueryByLength, QueryPerFrame, StreamPredictor
from tests.helpers import set_test_cfg
from tests.test_inference.conftest import LENGTH, ORI, SIZE, TEXTS, predict_whole


@pytest.fixture(scope='module')
def whole(model, video):
    return predict_whole(model, video)


def streamed(model, video, pieces, **options):
    with StreamPredictor(model, TEXTS, frame_size=SIZE, ori_shape=ORI, **options) as stream:
        for piece in video.split(pieces):
            stream.feed(piece)
        scores = stream.finish()
        logits, masks = torch.cat(list(stream.logits()), 1), torch.cat(list(stream.masks()), 1)
        assert torch.equal(torch.cat(list(stream.masks()), 1), masks), 'a second reading differs'
    return scores, logits, masks


@pytest.mark.parametrize(
    'options',
    [dict(chunk_frames=LENGTH, overlap=0), dict(chunk_frames=100), dict(chunk_frames=3, overlap=LENGTH)],
    ids=['one chunk', 'shorter than a chunk', 'overlap over all'],
)
def test_it_is_the_whole_video_where_the_backbone_sees_it_whole(model, video, whole, options):
    scores, logits, masks = streamed(model, video, 4, **options)
    assert torch.equal(scores.queries, whole.pred_queries)
    torch.testing.assert_close(scores.scores, whole.pred_scores, rtol=0, atol=1e-6)
    torch.testing.assert_close(scores.frame_scores.mean(1), scores.scores)
    expected = torch.stack(whole.pred_logits)
    assert expected.std() > 0.1 and scores.frame_scores.std(1).min() > 0
    torch.testing.assert_close(logits, expected, rtol=2e-3, atol=2e-3 * expected.abs().max().item())  # half precision
    found = [encode_mask_results(of_sentence.numpy()) for of_sentence in masks]
    differing = sum(a != b for x, y in zip(found, whole.pred_masks, strict=True) for a, b in zip(x, y, strict=True))
    assert masks.shape == (3, LENGTH, *ORI) and differing <= 2, 'more than a pixel on the border here and there'


# Chunks are shorter than the limit; the video is longer.
@pytest.mark.parametrize('selector', [QueryPerFrame(), QueryByLength(LENGTH - 1)], ids=lambda kind: type(kind).__name__)
def test_a_query_for_each_frame(model, video, monkeypatch, selector):
    set_test_cfg(model, monkeypatch, selector=selector)
    whole = predict_whole(model, video)
    scores, logits, _ = streamed(model, video, 4, chunk_frames=3, overlap=LENGTH)
    assert torch.equal(scores.queries, whole.pred_queries) and (scores.queries != scores.queries[:, :1]).any()
    torch.testing.assert_close(scores.frame_scores, whole.pred_frame_scores, rtol=0, atol=1e-6)
    expected = torch.stack(whole.pred_logits)
    torch.testing.assert_close(logits, expected, rtol=2e-3, atol=2e-3 * expected.abs().max().item())  # half precision


def test_the_pieces_do_not_matter(model, video):
    first, other = (streamed(model, video, pieces, chunk_frames=4, overlap=2) for pieces in (1, LENGTH))
    for a, b in zip([*first[0], *first[1:]], [*other[0], *other[1:]], strict=True):
        assert torch.equal(a, b)


def test_chunks_without_context_differ_in_the_backbone_only(model, video, whole):
    """The windows of chunks that are cut where the backbone's are: the same queries are close, not equal."""
    scores, logits, _ = streamed(model, video, 4, chunk_frames=4, overlap=0)
    expected = torch.stack(whole.pred_logits)
    assert not torch.allclose(logits, expected, atol=1e-3)
    torch.testing.assert_close(scores.scores, whole.pred_scores, rtol=0, atol=0.1)


def test_frames_are_let_go(model, video):
    with StreamPredictor(model, TEXTS[:1], frame_size=SIZE, ori_shape=ORI, chunk_frames=2, overlap=1) as stream:
        for frame in video:
            stream.feed(frame[None])
            assert len(stream._chunks._waiting) <= 2 + 2 * 1
        assert stream.num_frames == LENGTH
        assert stream.finish().frame_scores.shape == (1, LENGTH)


def test_the_layer_that_predicts(model, video, monkeypatch):
    """The released way: layer 0, enriched by the video queries of the last."""
    set_test_cfg(model, monkeypatch, predict_layer=0)
    expected = predict_whole(model, video)
    scores, _, _ = streamed(model, video, 5, chunk_frames=LENGTH)
    torch.testing.assert_close(scores.scores, expected.pred_scores, rtol=0, atol=1e-6)


def test_a_config_of_its_own(model, video, whole, monkeypatch):
    """In the place of the model's, which stays."""
    config = replace(model.test_cfg, predict_layer=0, selector=QueryPerFrame())
    found, _, _ = streamed(model, video, 5, chunk_frames=4, overlap=2, config=config)
    assert not torch.equal(found.scores, streamed(model, video, 5, chunk_frames=4, overlap=2)[0].scores)
    set_test_cfg(model, monkeypatch, predict_layer=0, selector=QueryPerFrame())
    for a, b in zip(found, streamed(model, video, 5, chunk_frames=4, overlap=2)[0], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(texts=[]), 'texts is empty'),
        (dict(chunk_frames=0), 'chunk_frames of at least 1'),
        (dict(overlap=-1), 'found 24 and -1'),
    ],
)
def test_bad_arguments(model, change, message):
    options = dict(texts=TEXTS, frame_size=SIZE, ori_shape=ORI) | change
    with pytest.raises(ValueError, match=message):
        StreamPredictor(model, options.pop('texts'), **options)


def test_bad_order_and_sizes(model, video):
    with StreamPredictor(model, TEXTS, frame_size=SIZE, ori_shape=ORI) as stream:
        with pytest.raises(ValueError, match='no frame was fed'):
            stream.finish()
        with pytest.raises(ValueError, match=r'\(t, 3, 64, 96\).*found \(11, 3, 64, 90\)'):
            stream.feed(video[..., :90])
        stream.feed(video[:1])
        with pytest.raises(ValueError, match='known after finish'):
            next(stream.masks())
        stream.finish()
        with pytest.raises(ValueError, match='was finished'):
            stream.feed(video)
        with pytest.raises(ValueError, match='called twice'):
            stream.finish()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(frames_per_clip=8), 'frames_per_clip=8: a stream is one clip'),
        (dict(selector=AllQueries()), 'selector=AllQueries: a stream gives the masks of one query per frame'),
    ],
)
def test_what_a_stream_cannot_do(model, monkeypatch, changes, message):
    set_test_cfg(model, monkeypatch, **changes)
    with pytest.raises(ValueError, match=message):
        StreamPredictor(model, TEXTS, frame_size=SIZE, ori_shape=ORI)


def test_the_files_are_gone(model, video, tmp_path):
    with StreamPredictor(model, TEXTS, frame_size=SIZE, ori_shape=ORI, folder=tmp_path) as stream:
        stream.feed(video[:1])
        stream.finish()
        next(stream.masks())
    assert not list(tmp_path.iterdir()) and all(store._file.closed for store in stream._stores)
    with pytest.raises(ValueError, match='closed'):
        next(stream.masks())


def test_mask_features_beyond_float16(model, video, monkeypatch):
    """Above 65,504 they are not infinite: the masks are those of the whole video."""
    decoder = model.head.mask_features
    monkeypatch.setattr(model.head, 'mask_features', lambda *args: 1e5 * decoder(*args))
    whole = predict_whole(model, video)
    _, logits, masks = streamed(model, video, 4, chunk_frames=LENGTH, overlap=0)
    expected = torch.stack(whole.pred_logits)
    assert torch.isfinite(expected).all() and expected.abs().max() > 1e5
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    found = [encode_mask_results(of_sentence.numpy()) for of_sentence in masks]
    differing = sum(a != b for x, y in zip(found, whole.pred_masks, strict=True) for a, b in zip(x, y, strict=True))
    assert differing <= 2 and masks.any()
