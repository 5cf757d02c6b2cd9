"""Which queries are chosen, by hand; and a selector of somebody else's."""

import math
import re
import sys

import pytest
import torch
from mmengine.config import Config

from mmsoc.inference import AllQueries, QueryByLength, QueryPerFrame, QueryPerVideo, RunningScores, StreamPredictor
from mmsoc.registry import MODELS, TASK_UTILS
from tests.conftest import ROOT
from tests.helpers import make_sample, random_clip

# The logits of the chances 0.5, 0.75 and 0.25.
HALF, MORE, LESS = 0.0, math.log(3), -math.log(3)
# Two sentences, two frames, two queries, two classes.
LOGITS = torch.tensor(
    [
        # frame 0: (query 0, query 1), frame 1
        [[[MORE, LESS], [HALF, HALF]], [[LESS, LESS], [MORE, HALF]]],  # means: query 0: .5, .25; query 1: .625, .5
        [[[LESS, HALF], [LESS, LESS]], [[LESS, MORE], [MORE, LESS]]],  # means: query 0: .25, .625; query 1: .5, .25
    ]
)


def assert_found(selection, queries, scores):
    assert selection.queries.tolist() == queries and selection.queries.dtype == torch.int64
    torch.testing.assert_close(selection.scores, torch.tensor(scores))


def test_a_query_per_video():
    found = QueryPerVideo()(LOGITS)
    # The score in a frame is that of the class that is best over all frames.
    assert_found(found, [[[1], [1]], [[0], [0]]], [[[0.5], [0.75]], [[0.5], [0.75]]])
    assert QueryPerVideo.single


def test_a_query_per_frame():
    # Best of the classes: frame 0 .75, .5 and .5, .25; frame 1 .25, .75 and .75, .75 (the first of equals).
    found = QueryPerFrame()(LOGITS)
    assert_found(found, [[[0], [1]], [[0], [0]]], [[[0.75], [0.75]], [[0.5], [0.75]]])
    assert QueryPerFrame.single


def test_a_query_per_video_up_to_a_length():
    within, beyond = QueryByLength(2), QueryByLength(1)
    for selector, expected in ((within, QueryPerVideo()), (beyond, QueryPerFrame())):
        found = selector(LOGITS)
        assert_found(found, expected(LOGITS).queries.tolist(), expected(LOGITS).scores.tolist())
    assert within(LOGITS).queries.tolist() != beyond(LOGITS).queries.tolist()
    # A live stream is as long as all its frames so far.
    so_far = RunningScores(torch.zeros(()), 0).add(LOGITS).add(LOGITS)
    assert QueryByLength(4)(LOGITS, so_far).queries.tolist() == within(LOGITS).queries.tolist()
    assert QueryByLength(3)(LOGITS, so_far).queries.tolist() == beyond(LOGITS).queries.tolist()
    assert QueryByLength().max_frames == 36 and QueryByLength.single


def test_all_queries():
    # The best class over all frames: class 0 of both queries of the first sentence; 1 and 0 of the second.
    found = AllQueries()(LOGITS)
    assert_found(
        found, [[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[[0.75, 0.5], [0.25, 0.75]], [[0.5, 0.25], [0.75, 0.75]]]
    )
    assert not AllQueries.single


def test_half_precision_is_scored_in_float32():
    for selector in (QueryPerVideo(), QueryPerFrame(), AllQueries()):
        assert selector(LOGITS.bfloat16()).scores.dtype == torch.float32


def frames(*logits):
    """(1, T, 2, 1) of (query 0, query 1) per frame."""
    return torch.tensor(logits)[None, :, :, None]


def test_the_frames_before_count():
    """With the class scores of three frames before, the query of these two is that of all five."""
    before, now = frames((MORE, HALF), (MORE, HALF), (MORE, LESS)), frames((HALF, MORE), (HALF, HALF))
    past = RunningScores(torch.zeros(()), 0).add(before)
    assert past.num_frames == 3
    torch.testing.assert_close(past.total, torch.tensor([[[2.25], [1.25]]]))
    so_far = past.add(now)
    # These two alone: .5 and .625; all five: 3.25 / 5 and 2.5 / 5.
    assert_found(QueryPerVideo()(now), [[[1], [1]]], [[[0.75], [0.5]]])
    assert_found(QueryPerVideo()(now, so_far), [[[0], [0]]], [[[0.5], [0.5]]])
    # The same as of all frames at once.
    assert QueryPerVideo()(torch.cat([before, now], 1)).queries[:, 3:].tolist() == [[[0], [0]]]
    # A query per frame asks the frame alone.
    assert_found(QueryPerFrame()(now, so_far), [[[1], [0]]], [[[0.75], [0.5]]])
    assert past.num_frames == 3, 'past was changed'


def test_the_past_decides_on_the_class():
    """One query, two classes: .25 and .5 now, .75 and .25 in two frames before."""
    now = torch.tensor([[[[LESS, HALF]]]])
    so_far = RunningScores(torch.tensor([[[1.5, 0.5]]]), 2).add(now)
    assert_found(AllQueries()(now), [[[0]]], [[[0.5]]])
    assert_found(AllQueries()(now, so_far), [[[0]]], [[[0.25]]])
    assert_found(QueryPerVideo()(now, so_far), [[[0]]], [[[0.25]]])


# ------------------------------------------------------------------------------------------------ one from outside


def documented_selector():
    """The code of docs/swap_a_component.md."""
    page = (ROOT / 'docs/swap_a_component.md').read_text()
    (code,) = re.findall(r'```python\n(.*?class RunnerUp.*?)```', page.split('## A selector of your own')[1], re.DOTALL)
    return code


@pytest.fixture
def runner_up(root, tmp_path, monkeypatch):
    """A model whose config names a selector in a file beside it."""
    (tmp_path / 'runner_up.py').write_text(documented_selector())
    (tmp_path / 'config.py').write_text(
        f'_base_ = {str(root / "configs/_base_/models/soc_tiny.py")!r}\n'
        "custom_imports = dict(imports=['runner_up'])\n"
        "model = dict(test_cfg=dict(selector=dict(type='RunnerUp')))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(tmp_path / 'config.py').model).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    yield model
    TASK_UTILS.module_dict.pop('RunnerUp')
    sys.modules.pop('runner_up')


def test_a_selector_from_outside(runner_up):
    """Named in one line of a config, it chooses in `SOC.predict` and in a stream."""
    video = (random_clip(3, (64, 96))[0] * 50 + 120).clamp(0, 255).byte()
    texts = ['a red car', 'the dog']
    batch = runner_up.data_preprocessor(
        dict(inputs=[video], data_samples=[make_sample((64, 96), texts, num_frames=3, ori_shape=(70, 101))])
    )
    with torch.no_grad():
        (output,) = runner_up(**batch, mode='tensor')
    expected = output['logits'].sigmoid().mean(1).amax(-1).argsort(1, descending=True)[:, 1]
    (found,) = runner_up(**batch, mode='predict')
    assert found.pred_queries.tolist() == [[query] * 3 for query in expected.tolist()]
    scores = output['logits'].sigmoid().amax(-1)[[0, 1], :, expected]
    torch.testing.assert_close(found.pred_frame_scores, scores, rtol=0, atol=1e-6)
    with StreamPredictor(runner_up, texts, frame_size=(64, 96), ori_shape=(70, 101)) as stream:
        stream.feed(video)
        streamed = stream.finish()
        masks = torch.cat(list(stream.masks()), 1)
    assert torch.equal(streamed.queries, found.pred_queries) and masks.shape == (2, 3, 70, 101)
    torch.testing.assert_close(streamed.frame_scores, found.pred_frame_scores, rtol=0, atol=1e-6)
