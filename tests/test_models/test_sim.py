import pytest
import torch
from mmengine import Config

from mmsoc.models import Conv1dCluster
from mmsoc.models.sim import SIM
from mmsoc.registry import MODELS
from mmsoc.structures import FrameQueries
from tests.helpers import small_model

CLUSTERS = [
    dict(type='NoCluster'),
    dict(type='AverageCluster'),
    dict(type='Conv1dCluster', embed_dims=128),
    dict(type='KMeansCluster'),
    'both',
    'encoder-only',
    'decoder-only',
]


def build(cfg, root):
    if isinstance(cfg, dict):
        return MODELS.build(cfg)
    paper = Config.fromfile(root / 'configs' / '_base_' / 'models' / 'soc_tiny.py').model.sim.cluster
    if cfg == 'encoder-only':
        paper.decoder = None
    if cfg == 'decoder-only':
        paper.encoder = None
    return MODELS.build(paper)


@pytest.mark.parametrize('cfg', CLUSTERS, ids=str)
def test_clusters(cfg, root, seeded):
    cluster = build(cfg, root).eval()
    queries, sentence = torch.randn(3, 5, 8, 128, requires_grad=True), torch.randn(3, 128)
    video = cluster(queries, sentence)
    assert video.shape == (3, 8, 128)
    video.sum().backward()
    assert queries.grad.abs().sum() > 0
    # The released implementation's cluster mixes the clips of a batch; ours must not.
    for clip in range(3):
        assert torch.allclose(cluster(queries[clip : clip + 1], sentence[clip : clip + 1])[0], video[clip], atol=1e-5)


def test_the_paper_s_cluster_starts_from_the_sentence(root, seeded):
    cluster = build('both', root).eval()
    queries = torch.randn(1, 5, 8, 128)
    assert (cluster(queries, torch.randn(1, 128)) - cluster(queries, torch.randn(1, 128))).abs().max() > 1e-3


def test_video_queries_can_start_as_others(root, seeded):
    cluster = build('both', root).eval()
    queries, sentence = torch.randn(2, 5, 8, 128), torch.randn(2, 128)
    expected = cluster(queries, sentence)
    assert torch.equal(cluster(queries, sentence, start=sentence[:, None].repeat(1, 8, 1)), expected)
    assert (cluster(queries, sentence, start=expected) - expected).abs().max() > 1e-3


def test_the_paper_s_cluster_does_not_know_the_order_of_frames(root, seeded):
    # Neither queries nor keys carry the frame's number (so order can only come from the backbone's windows).
    cluster = build('both', root).eval()
    queries, sentence = torch.randn(1, 5, 8, 128), torch.randn(1, 128)
    assert torch.allclose(cluster(queries, sentence), cluster(queries.flip(1), sentence), atol=1e-5)


def test_frame_position_tells_the_frames_apart(root, seeded):
    cfg = Config.fromfile(root / 'configs' / '_base_' / 'models' / 'soc_tiny.py').model.sim.cluster
    plain, ordered = MODELS.build(cfg).eval(), MODELS.build(dict(cfg, frame_position=True)).eval()
    ordered.load_state_dict(plain.state_dict())  # no parameters of its own
    queries, sentence = torch.randn(2, 5, 8, 128), torch.randn(2, 128)
    assert (ordered(queries, sentence) - ordered(queries.flip(1), sentence)).abs().max() > 1e-3
    assert torch.allclose(ordered(queries[:1], sentence[:1])[0], ordered(queries, sentence)[0], atol=1e-5)


def test_average_by_hand_and_residual():
    cluster = MODELS.build(dict(type='AverageCluster'))
    queries = torch.tensor([[[[1.0]], [[3.0]]]])  # one clip, two frames, one query, one channel
    video = cluster(queries, torch.zeros(1, 1))
    assert video.tolist() == [[[2.0]]]
    assert cluster.enrich(queries, video).flatten().tolist() == [3.0, 5.0]
    assert MODELS.build(dict(type='NoCluster')).enrich(queries, video).flatten().tolist() == [1.0, 3.0]


def test_k_means_by_hand():
    # Frame 0 at 0 and 10, frame 1 at 11 and 1 (slots swapped): the groups are {0, 1} and {10, 11} whatever the slot.
    queries = torch.tensor([[[[0.0], [10.0]], [[11.0], [1.0]]]])
    assert MODELS.build(dict(type='KMeansCluster'))(queries, torch.zeros(1, 1)).flatten().tolist() == [0.5, 10.5]


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match='kernel_size must be odd, found 2'):
        Conv1dCluster(kernel_size=2)


def test_valid_ratio_by_hand():
    mask = torch.ones(1, 4, 10, dtype=torch.bool)
    mask[:, :3, :5] = False  # half of the width, three quarters of the height
    assert SIM._valid_ratio(mask).tolist() == [[0.5, 0.75]]


@pytest.mark.parametrize(
    ('layers', 'video_layers', 'clustered'), [([0, 1], [0, 1], 2), ([1], [1], 1), ([0], [1], 1), ([1, 0], [1, 1], 1)]
)
def test_all_layers_are_clustered_in_one_call(root, monkeypatch, layers, video_layers, clustered, seeded):
    sim = small_model(root).sim
    frame = FrameQueries(memory=(), queries=torch.randn(2, 3, 5, 8, 128), initial_reference=None, references=None)
    sentence = torch.randn(3, 128)
    calls, forward = [], sim.cluster.forward
    monkeypatch.setattr(sim.cluster, 'forward', lambda *given: calls.append(len(given[0])) or forward(*given))
    objects = sim.integrate(frame, sentence, layers=layers, video_layers=video_layers)
    assert calls == [3 * clustered] and objects.layers == tuple(layers)
    for index, (layer, video_layer) in enumerate(zip(layers, video_layers, strict=True)):
        video = forward(frame.queries[video_layer], sentence)
        torch.testing.assert_close(objects.video_queries[index], video)
        torch.testing.assert_close(objects.queries[index], sim.cluster.enrich(frame.queries[layer], video))


def test_no_mask_is_a_mask_of_nothing(root, seeded):
    model = small_model(root)
    sizes = [(8, 12), (4, 6), (2, 3), (1, 2)]
    levels = [torch.randn(4, 128, *size) for size in sizes]
    positions = [torch.randn(1, 128, *size) for size in sizes]
    masks = [torch.zeros(2, *size, dtype=torch.bool) for size in sizes]
    sentence = torch.randn(2, 128)
    found = model.sim.aggregate(levels, None, positions, model.head.box_branches, 2, sentence)
    expected = model.sim.aggregate(
        levels, masks, [position.expand(2, -1, -1, -1) for position in positions], model.head.box_branches, 2, sentence
    )
    for ours, theirs in zip(found.memory, expected.memory, strict=True):
        torch.testing.assert_close(ours, theirs)
    for name in ('queries', 'initial_reference', 'references'):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
