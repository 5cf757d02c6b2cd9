"""Streamed prediction against prediction of the whole video."""

import pytest
import torch
from mmdet.structures.mask import encode_mask_results
from mmengine import Config

from mmsoc.apis.stream import StreamPredictor
from mmsoc.registry import MODELS
from tests.conftest import ROOT
from tests.helpers import make_sample

TEXTS = ['a red car', 'the dog on the left', 'a tall tree']
SIZE, ORI, LENGTH = (64, 96), (70, 101), 11


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(3)
    cfg = Config.fromfile(ROOT / 'configs' / 'soc' / 'soc_tiny_moving-shapes.py').model
    cfg.test_cfg = dict(frames_per_pass=2 * LENGTH, return_logits=True)
    model = MODELS.build(cfg).eval()
    model.init_weights()
    for parameter in model.parameters():  # so that scores and masks differ between queries, sentences and frames
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope='module')
def video():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (LENGTH, 3, *SIZE), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope='module')
def whole(model, video):
    sample = make_sample(SIZE, TEXTS, num_frames=LENGTH, ori_shape=ORI)
    return model.test_step(dict(inputs=[video], data_samples=[sample]))[0]


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


def test_a_query_for_each_frame(model, video, monkeypatch):
    monkeypatch.setitem(model.test_cfg, 'query_per_frame', True)
    sample = make_sample(SIZE, TEXTS, num_frames=LENGTH, ori_shape=ORI)
    (whole,) = model.test_step(dict(inputs=[video], data_samples=[sample]))
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
            assert len(stream._waiting) <= 2 + 2 * 1
        assert stream.num_frames == LENGTH
        assert stream.finish().frame_scores.shape == (1, LENGTH)


def test_the_layer_that_predicts(model, video):
    """The released way: layer 0, enriched by the video queries of the last."""
    sample = make_sample(SIZE, TEXTS, num_frames=LENGTH, ori_shape=ORI)
    before = model.test_cfg
    model.test_cfg = {**before, 'predict_layer': 0}
    try:
        expected = model.test_step(dict(inputs=[video], data_samples=[sample]))[0]
        scores, _, _ = streamed(model, video, 5, chunk_frames=LENGTH)
    finally:
        model.test_cfg = before
    torch.testing.assert_close(scores.scores, expected.pred_scores, rtol=0, atol=1e-6)


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


def test_clips_of_their_own_are_refused(model):
    before = model.test_cfg
    model.test_cfg = {**before, 'frames_per_clip': 8}
    try:
        with pytest.raises(ValueError, match='frames_per_clip=8'):
            StreamPredictor(model, TEXTS, frame_size=SIZE, ori_shape=ORI)
    finally:
        model.test_cfg = before
