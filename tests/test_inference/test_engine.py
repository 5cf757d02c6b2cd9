"""What the engine passes from a network to selector and masks, with a network whose numbers are written down."""

import math
from types import SimpleNamespace

import pytest
import torch

from mmsoc.inference import AllQueries, Engine, PredictionConfig, QueryPerVideo, RecentFrames
from mmsoc.inference.engine import check_finite
from mmsoc.structures import FrameOutputs, FrameQueries, Predictions, TextFeatures

# The logits of the chances 0.5, 0.75 and 0.25.
HALF, MORE, LESS = 0.0, math.log(3), -math.log(3)
TEXT = TextFeatures(torch.zeros(1, 1, 1), None, torch.zeros(1, 1))


class Network:
    """Two decoder layers, two queries, one sentence. A query is its class logit, a kernel its query's number, a mask feature the
    frame's number, and a mask logit 10 times the latter plus the former."""

    def __init__(self):
        self.sim = SimpleNamespace(num_layers=2)
        self.head = SimpleNamespace(decode_masks=self.decode_masks)
        self.num_frames = 0
        self.seen = []  # of each call of run_video, which layers, and the logits that are clustered; None: those of its frames
        self.widths = []  # of the queries that reach it, per layer

    def run_frames(self, visual, text, with_guidance):
        assert text is TEXT and not with_guidance
        logits = visual.logits[None, :, :, None]
        count = logits.shape[1]
        numbers = torch.arange(self.num_frames, self.num_frames + count).float()
        self.num_frames += count
        queries = FrameQueries(
            memory=(torch.zeros(count, 1, 1, 1),),
            queries=torch.stack([logits - 100, logits]),
            initial_reference=torch.zeros(1, count, 2, 2),
            references=torch.zeros(2, 1, count, 2, 4),
        )
        return FrameOutputs(None, queries, numbers[:, None, None, None])

    def run_video(self, queries, sentence, image_sizes, layers, video_layers, seen):
        assert sentence is TEXT.sentence and image_sizes.tolist() == [[96.0, 64.0]] and not queries.memory
        assert queries.references.shape[2] == queries.initial_reference.shape[1] == queries.queries[1].shape[1]
        self.seen.append((layers, video_layers, None if seen is None else seen[0, :, :, 0].tolist()))
        self.widths.append([layer.shape[-1] for layer in queries.queries])
        logits = queries.queries[1][None]
        numbers = torch.arange(2.0)[:, None].expand_as(logits)
        return None, Predictions(logits, logits.repeat(1, 1, 1, 1, 4), numbers, numbers.repeat(1, 1, 1, 1, 2))

    def decode_masks(self, features, kernels, points):
        assert features.shape[0] == kernels.shape[1] == points.shape[1] and points.shape[-1] == 2
        return 10 * features[None, :, None, 0] + kernels[..., None]


def visual(*logits):
    """(query 0, query 1) of each frame."""
    return SimpleNamespace(logits=torch.tensor(logits), image_sizes=torch.tensor([[96.0, 64.0]]))


def decoded(engine):
    """Per chunk, per frame, per query."""
    return [chunk[0, :, :, 0, 0].tolist() for chunk in engine.logits()]


def test_chunks_are_one_video():
    """Three frames and two: means over all five are 3 / 5 and 2.5 / 5; of the last two alone the other query would be chosen."""
    network = Network()
    engine = Engine(network, TEXT, PredictionConfig())
    engine.add(visual((MORE, HALF), (MORE, HALF), (MORE, LESS)))
    engine.add(visual((LESS, MORE), (HALF, HALF)))
    selection = engine.select()
    assert selection.queries.tolist() == [[[0]] * 5]
    torch.testing.assert_close(selection.scores[0, :, 0], torch.tensor([0.75, 0.75, 0.75, 0.25, 0.5]))
    assert decoded(engine) == decoded(engine) == [[[0], [10], [20]], [[30], [40]]]
    assert network.seen == [([1], [1], None)]
    # Nothing reads the queries of layer 0.
    assert network.widths == [[0, 1]]


def test_the_layer_that_predicts_is_kept():
    network = Network()
    engine = Engine(network, TEXT, PredictionConfig(predict_layer=0))
    engine.add(visual((HALF, MORE)))
    engine.select()
    assert network.seen == [([0], [1], None)] and network.widths == [[1, 1]]


def test_all_queries_are_decoded():
    engine = Engine(Network(), TEXT, PredictionConfig(selector=AllQueries()))
    engine.add(visual((HALF, MORE)))
    assert engine.select().scores.shape == (1, 1, 2) and decoded(engine) == [[[0, 1]]]


# Chunks of two frames. Query 0 is ahead after the first (.75, .5) and still is after the second (.625, .5625), in which it is
# behind (.5, .625); after the third it is not (.5, .625).
LIVE = [
    visual((MORE, HALF), (MORE, HALF)),
    visual((HALF, MORE), (HALF, HALF)),
    visual((LESS, MORE), (LESS, MORE)),
]


def test_a_live_choice_is_of_all_frames_so_far():
    network = Network()
    engine = Engine(network, TEXT, PredictionConfig(), causal=True)
    queries, scores, masks = [], [], []
    for chunk in LIVE:
        engine.add(chunk)
        selection = engine.select()
        queries.append(selection.queries[0, :, 0].tolist())
        scores.append(selection.scores[0, :, 0])
        masks.append(decoded(engine))
    assert queries == [[0, 0], [0, 0], [1, 1]]
    torch.testing.assert_close(torch.cat(scores), torch.tensor([0.75, 0.75, 0.5, 0.5, 0.75, 0.75]))
    # Each chunk's features are gone with the next one.
    assert masks == [[[[0], [10]]], [[[20], [30]]], [[[41], [51]]]]
    frames = [logits for chunk in LIVE for logits in chunk.logits.tolist()]
    assert [seen for _, _, seen in network.seen] == [frames[:2], frames[:4], frames]


def test_a_live_choice_of_each_chunk_alone():
    """What the past is worth: the second chunk has another query without it."""
    queries = []
    for chunk in LIVE:
        engine = Engine(Network(), TEXT, PredictionConfig(), causal=True)
        engine.add(chunk)
        queries.append(engine.select().queries[0, :, 0].tolist())
    assert queries == [[0, 0], [1, 1], [1, 1]]


def test_the_cluster_sees_what_the_memory_keeps():
    network = Network()
    engine = Engine(network, TEXT, PredictionConfig(memory=RecentFrames(3)), causal=True)
    for chunk in LIVE:
        engine.add(chunk)
        engine.select()
    frames = [logits for chunk in LIVE for logits in chunk.logits.tolist()]
    assert [seen for _, _, seen in network.seen] == [frames[:2], frames[:4], frames[1:]]
    # The choice knows of all frames, those too that the memory has dropped.
    assert engine._so_far.num_frames == 6


def test_the_selector_gets_the_scores_so_far():
    given = []

    class Recording(QueryPerVideo):
        def __call__(self, logits, so_far=None):
            given.append(so_far)
            return super().__call__(logits, so_far)

    for causal in (False, True):
        engine = Engine(Network(), TEXT, PredictionConfig(selector=Recording()), causal=causal)
        for chunk in LIVE[:2]:
            engine.add(chunk)
            engine.select()
    assert given[:2] == [None] * 2 and [scores.num_frames for scores in given[2:]] == [2, 4]
    torch.testing.assert_close(given[2].total, torch.tensor([[[1.5], [1.0]]]))
    torch.testing.assert_close(given[3].total, torch.tensor([[[2.5], [2.25]]]))


def test_masks_before_a_choice():
    engine = Engine(Network(), TEXT, PredictionConfig())
    with pytest.raises(AssertionError, match='select'):
        next(engine.logits())


def test_what_is_not_finite():
    check_finite(torch.tensor(True), 'scores')
    with pytest.raises(
        FloatingPointError, match=r'^the scores are not finite; do the weights fit the config, and does'
    ):
        check_finite(torch.tensor(False), 'scores')
    with pytest.raises(
        FloatingPointError, match=r"the mask logits are not finite \(video a: \['x'\]\); do the weights"
    ):
        check_finite(False, 'mask logits', "video a: ['x']")
