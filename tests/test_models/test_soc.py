import numpy as np
import pytest
import torch
from mmdet.models import TrackDataPreprocessor
from mmengine.model import BaseModel
from mmengine.utils import digit_version
from pycocotools import mask as coco_mask

from mmsoc.inference import MasksAndLogits, QueryPerFrame
from mmsoc.models import ClipDataPreprocessor, loss_monitor
from mmsoc.models.loss_monitor import LossMonitor
from mmsoc.structures import VisualFeatures, names_of
from tests.helpers import make_sample, random_clip, set_test_cfg, small_model, stack_clips

OUTPUTS = ('logits', 'boxes', 'masks', 'video_queries', 'guidance')


@pytest.fixture(scope='module')
def model(root):
    return small_model(root)


@torch.no_grad()
def outputs(model, clips, samples):
    (output,) = model(stack_clips(clips), samples, mode='tensor')
    return output


def assert_close(found, expected, rows=slice(None)):
    for name in OUTPUTS:
        difference = (found[name][rows] - expected[name]).abs().max() / expected[name].abs().max()
        assert difference < 1e-5, f'{name}: {difference:.1e}'


@pytest.mark.parametrize(('num_frames', 'size'), [(1, (64, 96)), (3, (45, 77)), (9, (33, 130))])
def test_odd_sizes(model, num_frames, size):
    video, masks = random_clip(num_frames, size)
    losses = model(video[None], [make_sample(size, ['a red car'], masks)], mode='loss')
    assert all(torch.isfinite(loss) for loss in losses.values())
    (sample,) = model(
        video[None], [make_sample(size, ['a red car'], num_frames=num_frames, ori_shape=(101, 203))], mode='predict'
    )
    assert len(sample.pred_masks[0]) == num_frames
    assert coco_mask.decode(sample.pred_masks[0][0]).shape == (101, 203)
    assert sample.pred_scores.shape == (1,) and sample.pred_queries.shape == (1, num_frames)


def test_a_clip_does_not_see_its_neighbours(model):
    videos = [random_clip(3, (64, 96), seed)[0] for seed in range(3)]
    texts = [
        'a red car',
        'the dog',
        'a person on a very long and narrow wooden bench',
    ]  # unequal lengths: padded words too
    together = outputs(model, videos, [make_sample((64, 96), [text], num_frames=3) for text in texts])
    for index, (video, text) in enumerate(zip(videos, texts, strict=True)):
        alone = outputs(model, [video], [make_sample((64, 96), [text], num_frames=3)])
        assert_close(together, alone, slice(index, index + 1))


def test_a_padded_clip_equals_itself_padded(model):
    large, small = random_clip(3, (64, 96))[0], random_clip(3, (45, 77), 1)[0]
    samples = [make_sample((64, 96), ['a red car'], num_frames=3), make_sample((45, 77), ['the dog'], num_frames=3)]
    together = outputs(model, [large, small], samples)
    padded = torch.nn.functional.pad(small, (0, 96 - 77, 0, 64 - 45))
    alone = outputs(model, [padded], [make_sample((45, 77), ['the dog'], num_frames=3)])
    assert_close(together, alone, slice(1, 2))
    # ... and padding is seen for what it is: an image whose right and lower part happens to be black is another one.
    black = outputs(model, [padded], [make_sample((64, 96), ['the dog'], num_frames=3)])
    assert (black['boxes'] - alone['boxes']).abs().max() > 1e-4


def test_losses_are_the_mean_of_the_clips(model):
    # Every sum is divided by the number of masks, so two clips of equal size give the mean of each alone.
    clips = [random_clip(3, (64, 96), seed) for seed in range(2)]
    samples = [make_sample((64, 96), ['a red car'], masks) for _, masks in clips]
    together = model(torch.stack([video for video, _ in clips]), samples, mode='loss')
    alone = [model(video[None], [sample], mode='loss') for (video, _), sample in zip(clips, samples, strict=True)]
    for name, value in together.items():
        assert value.item() == pytest.approx((alone[0][name] + alone[1][name]).item() / 2, rel=1e-4), name


def test_many_sentences_share_the_visual_features(model, monkeypatch):
    video = random_clip(4, (64, 96))[0]
    texts = ['a red car', 'the dog', 'a person on a bench', 'the second bicycle from the left', 'a cat']
    calls = []
    forward = model.backbone.forward
    set_test_cfg(model, monkeypatch, output=MasksAndLogits())
    monkeypatch.setattr(model.backbone, 'forward', lambda *args: calls.append(1) or forward(*args))
    (sample,) = model(video[None], [make_sample((64, 96), texts, num_frames=4)], mode='predict')
    assert len(calls) == 1
    for index, text in enumerate(texts):
        (alone,) = model(video[None], [make_sample((64, 96), [text], num_frames=4)], mode='predict')
        # A sum in another order can move a pixel on a mask's border.
        torch.testing.assert_close(alone.pred_logits[0], sample.pred_logits[index], rtol=1e-4, atol=1e-4)
        assert alone.pred_scores[0].item() == pytest.approx(sample.pred_scores[index].item(), rel=1e-5)
        assert torch.equal(alone.pred_queries[0], sample.pred_queries[index])
    assert len({str(masks) for masks in sample.pred_masks}) > 1, (
        'the sentences make no difference: the test tests nothing'
    )


def test_the_number_of_frames_per_pass_changes_nothing(model, monkeypatch):
    video = random_clip(2, (64, 96))[0]
    sample = make_sample((64, 96), ['a red car', 'the dog', 'a cat'], num_frames=2)
    expected = [model(video[None], [sample.clone()], mode='predict')[0]]
    for frames, at_once in ((1, 1), (3, 1), (4, 2), (6, 3)):
        set_test_cfg(model, monkeypatch, frames_per_pass=frames)
        assert model.test_cfg.sentences_at_once(2) == at_once
        (found,) = model(video[None], [sample.clone()], mode='predict')
        assert found.pred_masks == expected[0].pred_masks


def test_clips_with_several_sentences_in_one_batch(model):
    videos = [random_clip(2, (64, 96), seed)[0] for seed in range(2)]
    samples = [
        make_sample((64, 96), ['a red car', 'the dog'], num_frames=2),
        make_sample((64, 96), ['a cat'], num_frames=2),
    ]
    found = model(torch.stack(videos), samples, mode='predict')
    assert [len(sample.pred_masks) for sample in found] == [2, 1]
    (alone,) = model(videos[1][None], [make_sample((64, 96), ['a cat'], num_frames=2)], mode='predict')
    assert found[1].pred_masks == alone.pred_masks


def test_prediction_is_the_best_query_s_mask(model):
    """The query is chosen before its mask is decoded; choosing among all decoded masks gives the same."""
    video = random_clip(3, (64, 96))[0]
    sample = make_sample((64, 96), ['a red car'], num_frames=3, ori_shape=(64, 96))
    every = outputs(model, [video], [sample])
    (found,) = model(video[None], [sample], mode='predict')
    score = every['logits'].sigmoid().mean(1).amax(-1)[0]
    assert found.pred_queries[0, 0] == score.argmax() and found.pred_scores[0].item() == pytest.approx(
        score.max().item(), rel=1e-5
    )
    masks = (
        torch.nn.functional.interpolate(every['masks'][0, :, score.argmax()][None], (64, 96), mode='bilinear')[0] > 0
    )
    assert np.array_equal(np.stack([coco_mask.decode(code) for code in found.pred_masks[0]]), masks.numpy())


def test_a_query_for_each_frame(model, monkeypatch):
    """Each frame's mask is that of the frame's best query; the scores come from the network that saw the whole clip."""
    video = random_clip(6, (64, 96))[0]
    sample = make_sample((64, 96), ['a red car', 'the dog'], num_frames=6, ori_shape=(64, 96))
    every = outputs(model, [video], [sample])
    set_test_cfg(model, monkeypatch, selector=QueryPerFrame())
    (found,) = model(video[None], [sample], mode='predict')
    score_MTN = every['logits'].sigmoid().amax(-1)
    assert torch.equal(found.pred_queries, score_MTN.argmax(-1))
    assert len(found.pred_queries[0].unique()) > 1, 'one query is the best in all frames: the test tests nothing'
    torch.testing.assert_close(found.pred_frame_scores, score_MTN.amax(-1))
    for expr in range(2):
        for frame, query in enumerate(found.pred_queries[expr]):
            logits = every['masks'][expr, frame, query][None, None]
            mask = torch.nn.functional.interpolate(logits, (64, 96), mode='bilinear')[0, 0] > 0
            assert np.array_equal(coco_mask.decode(found.pred_masks[expr][frame]), mask.numpy())


def test_long_videos_in_clips(model, monkeypatch):
    # 5 frames in clips of 2, 2 and 1: each clip as if it were a video; the score is the mean over the frames.
    video, texts = random_clip(5, (64, 96))[0], ['a red car', 'the dog']
    set_test_cfg(model, monkeypatch, frames_per_clip=2)
    (found,) = model(video[None], [make_sample((64, 96), texts, num_frames=5)], mode='predict')
    parts = [
        model(video[None, a:b], [make_sample((64, 96), texts, num_frames=b - a)], mode='predict')[0]
        for a, b in ((0, 2), (2, 4), (4, 5))
    ]
    for expr in range(2):
        assert found.pred_masks[expr] == [code for part in parts for code in part.pred_masks[expr]]
        assert torch.equal(found.pred_queries[expr], torch.cat([part.pred_queries[expr] for part in parts]))
        expected = sum(weight * part.pred_scores[expr] for weight, part in zip((2, 2, 1), parts, strict=True)) / 5
        assert found.pred_scores[expr].item() == pytest.approx(expected.item(), rel=1e-5)
        frames = torch.cat([part.pred_frame_scores[expr] for part in parts])
        assert torch.equal(found.pred_frame_scores[expr], frames)


def test_only_annotated_frames_go_on(model):
    video, masks = random_clip(5, (64, 96))
    sample = make_sample((64, 96), ['a red car'], masks)
    sample.key_frames_inds = [2]
    output = outputs(model, [video], [sample])
    assert output['masks'].shape[1] == 1
    losses = model(video[None], [sample], mode='loss')
    # Other frames' targets are not looked at.
    masks[[0, 1, 3, 4]] = 0
    other = make_sample((64, 96), ['a red car'], masks)
    other.key_frames_inds = [2]
    for name, value in model(video[None], [other], mode='loss').items():
        assert value.item() == losses[name].item()


def test_annotated_frames_are_not_cut_into_clips(model, monkeypatch):
    set_test_cfg(model, monkeypatch, frames_per_clip=2)
    sample = make_sample((64, 96), ['a red car'], num_frames=5)
    sample.key_frames_inds = [2]
    with pytest.raises(ValueError, match='frames_per_clip=2 cuts a clip of 5 frames'):
        model(random_clip(5, (64, 96))[0][None], [sample], mode='predict')


def test_unequal_numbers_of_annotated_frames(model):
    video, masks = random_clip(3, (64, 96))
    samples = [make_sample((64, 96), ['a'], masks) for _ in range(2)]
    samples[0].key_frames_inds, samples[1].key_frames_inds = [0], [0, 1]
    with pytest.raises(ValueError, match=r'equally many annotated frames, found \[1, 2\]'):
        model(torch.stack([video, video]), samples, mode='loss')


def test_released_prediction_layer(root):
    """predict_layer=0: frame queries and branches of layer 0, video queries of the last layer."""
    first, last = small_model(root, test_cfg=dict(predict_layer=0)), small_model(root)
    video, sample = random_clip(2, (64, 96))[0], make_sample((64, 96), ['a red car'], num_frames=2)
    of_first, of_last = outputs(first, [video], [sample]), outputs(last, [video], [sample])
    assert torch.equal(of_first['video_queries'], of_last['video_queries'])
    assert (of_first['logits'] - of_last['logits']).abs().max() > 1e-3


@pytest.mark.parametrize('precision', ['tf32', 'bf16'])
def test_other_precisions(model, monkeypatch, precision):
    """bfloat16 has 8 bits of mantissa; TF32 is for GPUs and changes nothing here. Neither outlives the prediction."""
    video, sample = random_clip(2, (64, 96))[0], make_sample((64, 96), ['a red car', 'the dog'], num_frames=2)
    (expected,) = model(video[None], [sample.clone()], mode='predict')
    dtypes = set()
    set_test_cfg(model, monkeypatch, precision=precision)
    handle = model.neck.register_forward_hook(lambda module, inputs, outputs: dtypes.update(o.dtype for o in outputs))
    (found,) = model(video[None], [sample.clone()], mode='predict')
    handle.remove()
    assert dtypes == {torch.bfloat16 if precision == 'bf16' else torch.float32}
    torch.testing.assert_close(found.pred_scores, expected.pred_scores, atol=1e-2 if precision == 'bf16' else 0, rtol=0)
    assert not torch.is_autocast_enabled('cpu') and not torch.backends.cuda.matmul.allow_tf32


def test_compile_leaves_training_alone(root, monkeypatch):
    """`torch.compile` is called once, in the first prediction, with a backend that only counts."""
    options, ran = [], []
    compiler = torch.compile

    def backend(graph, inputs):
        return lambda *args: ran.append(1) or graph(*args)

    def compiled(module, **given):
        options.append(given)
        return compiler(module, backend=backend, **given)

    monkeypatch.setattr(torch, 'compile', compiled)
    plain, model = small_model(root), small_model(root, test_cfg=dict(compile=True))
    video, masks = random_clip(2, (64, 96))

    def losses(model):
        model.train()
        torch.manual_seed(0)
        found = model(video[None], [make_sample((64, 96), ['a red car'], masks)], mode='loss')
        model.eval()
        return {name: value.item() for name, value in found.items()}

    def prediction(model):
        (found,) = model(video[None], [make_sample((64, 96), ['a red car', 'the dog'], num_frames=2)], mode='predict')
        return found

    expected = losses(plain)
    assert losses(model) == expected and not options
    found = prediction(model)
    assert options == [dict(dynamic=False)] and ran
    torch.testing.assert_close(found.pred_scores, prediction(plain).pred_scores)
    count = len(ran)
    assert losses(model) == expected and len(ran) == count, 'the compiled backbone trains'
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_modules()] == [name for name, _ in plain.named_modules()]
    prediction(model)
    assert len(options) == 1 and len(ran) > count


def test_a_prediction_leaves_out_what_only_a_loss_reads(model, monkeypatch):
    monkeypatch.setattr(model.fusion.v2l, 'forward', lambda *args: pytest.fail('vision to language ran'))
    model(random_clip(2, (64, 96))[0][None], [make_sample((64, 96), ['a red car'], num_frames=2)], mode='predict')


def test_a_loss_that_is_not_finite_names_iteration_video_and_sentence(model):
    from mmengine.logging import MessageHub

    MessageHub.get_current_instance().update_info('iter', 41)
    video, masks = random_clip(2, (64, 96))
    video[0, 0, 0, 0] = float('nan')
    with pytest.raises(FloatingPointError, match=r"iteration 41.*class logits.*video: \['a red car'\]"):
        model(video[None], [make_sample((64, 96), ['a red car'], masks)], mode='loss')


def check(monitor, loss_mask=1.0, features=1.0):
    """Of two losses."""
    losses = dict(loss_cls=torch.tensor(1.0), loss_mask=torch.tensor(loss_mask))
    suspects = {'class logits': torch.zeros(2), 'boxes': torch.zeros(2), 'mask features': torch.tensor([features])}
    monitor.check(losses, suspects, names_of([make_sample((8, 8), ['a red car'], num_frames=1)]))
    return losses


@pytest.mark.parametrize('number', [float('nan'), float('inf'), -float('inf')])
def test_what_is_not_finite_is_named(number):
    monitor = LossMonitor()
    with pytest.raises(FloatingPointError, match=r'iteration \S+: loss_mask \(video'):
        check(monitor, loss_mask=number)
    with pytest.raises(
        FloatingPointError, match=r'iteration \S+: loss_mask, mask features|: mask features, loss_mask \(video'
    ):
        check(monitor, loss_mask=number, features=number)
    check(monitor)


@pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.4'), reason='this PyTorch has no float16 on a CPU'
)
def test_losses_may_overflow_in_float16_for_a_while(monkeypatch):
    monkeypatch.setattr(loss_monitor, 'MAX_OVERFLOWS', 3)
    monitor = LossMonitor()
    check(monitor)
    nan = float('nan')
    with torch.autocast('cpu', torch.float16):
        for _ in range(2):
            check(monitor, nan)
        check(monitor)  # counts from zero again
        for _ in range(2):
            check(monitor, nan)
        with pytest.raises(FloatingPointError, match=r'loss_mask .* and in the 2 before'):
            check(monitor, nan)
    check(monitor)
    with torch.autocast('cpu', torch.bfloat16), pytest.raises(FloatingPointError):
        check(monitor, nan)
    check(monitor)


def test_logged_losses(model):
    video, masks = random_clip(2, (64, 96))
    losses = model(video[None], [make_sample((64, 96), ['a red car'], masks)], mode='loss')
    total, logged = model.parse_losses(losses)
    assert logged.keys() == {'loss', *losses} and {type(value) for value in logged.values()} == {float}
    for name, value in losses.items():
        assert logged[name] == value.item(), name
    assert logged['loss'] == pytest.approx(total.item(), rel=1e-6)
    torch.testing.assert_close(total, sum(losses.values()))
    parameter = model.head.kernel_branch.layers[-1].weight
    assert torch.autograd.grad(total, parameter)[0].abs().sum() > 0


@pytest.mark.parametrize('change', ['others', 'a copy of one', 'one more', 'again'])
def test_losses_that_are_not_the_last_ones(model, change):
    """MMEngine looks at them."""
    losses = check(model._monitor)
    if change == 'others':
        losses = dict(
            loss_a=torch.tensor([1.0, 3.0]), loss_b=[torch.tensor(2.0), torch.tensor(5.0)], accuracy=torch.tensor(7.0)
        )
    elif change == 'a copy of one':
        losses['loss_mask'] = losses['loss_mask'] * 2
    elif change == 'one more':
        losses['accuracy'] = torch.tensor(7.0)
    else:
        model.parse_losses(losses)
    total, logged = model.parse_losses(losses)
    expected_total, expected = BaseModel.parse_losses(model, losses)
    assert total == expected_total and logged.keys() == expected.keys()
    assert all(float(logged[name]) == float(value) for name, value in expected.items())


def test_accuracies_are_logged_and_not_trained(model):
    losses = dict(loss_cls=torch.tensor(1.0), accuracy=torch.tensor(50.0))
    model._monitor.check(losses, {}, '')
    total, logged = model.parse_losses(losses)
    assert total == 1 and logged == dict(loss=1.0, loss_cls=1.0, accuracy=50.0)


def test_the_preprocessor_is_mmdet_s_and_leaves_samples_alone():
    settings = dict(
        mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], pad_mask=True, bgr_to_rgb=False, pad_size_divisor=2
    )
    clips = [random_clip(3, size) for size in ((45, 77), (64, 60))]

    def batch():
        samples = [make_sample(masks.shape[1:], ['a red car'], masks) for _, masks in clips]
        return dict(inputs=[(video * 50 + 120).clamp(0, 255).byte() for video, _ in clips], data_samples=samples)

    given = batch()
    own = [frame.gt_instances.bboxes for sample in given['data_samples'] for frame in sample]
    found = ClipDataPreprocessor(**settings)(given, training=True)
    expected = TrackDataPreprocessor(**settings)(batch(), training=True)
    assert found['inputs'].shape == (2, 3, 3, 64, 78) and torch.equal(found['inputs'], expected['inputs'])
    frames, expected_frames = (
        [frame for sample in result['data_samples'] for frame in sample] for result in (found, expected)
    )
    for frame, other, boxes in zip(frames, expected_frames, own, strict=True):
        assert frame.metainfo == other.metainfo and frame.batch_input_shape == (64, 78)
        assert np.array_equal(frame.gt_instances.masks.masks, other.gt_instances.masks.masks)
        assert frame.gt_instances.bboxes is boxes
    stacked = dict(inputs=torch.zeros(2, 3, 3, 8, 8, dtype=torch.uint8), data_samples=None)
    elsewhere = ClipDataPreprocessor(**settings).to('meta')
    assert elsewhere.cast_data(stacked)['inputs'].is_meta
    moved = elsewhere.cast_data(batch())
    assert all(inputs.is_meta for inputs in moved['inputs'])
    assert not any(frame.gt_instances.bboxes.is_meta for sample in moved['data_samples'] for frame in sample)


def test_clips_without_padding_have_no_masks(model):
    """The same as with masks of nothing, through fusion and SIM."""
    videos = torch.stack([random_clip(3, (64, 96), seed)[0] for seed in range(2)])
    samples = [make_sample((64, 96), [text], num_frames=3) for text in ('a red car', 'the dog')]
    with torch.no_grad():
        visual, text = model.extract_visual(videos, samples), model.text_encoder(['a red car', 'the dog'])
        assert visual.pad_masks is None and {len(position) for position in visual.positions} == {1}
        masks = tuple(torch.zeros(2, *level.shape[-2:], dtype=torch.bool) for level in visual.levels)
        masked = VisualFeatures(
            **dict(
                visual._asdict(), pad_masks=masks, positions=tuple(model.positional_encoding(mask) for mask in masks)
            )
        )
        results = []
        for features in (visual, masked):
            fused = model.fuse(features, text)
            frame = model.aggregate(features, fused, text.sentence)
            results.append([*fused.levels, fused.guidance, *frame.memory, frame.queries, frame.references])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        # Of two sentences of the first clip and one of the second.
        clips = [0, 0, 1]
        assert visual.of_sentences(clips).pad_masks is None and len(masked.of_sentences(clips).pad_masks[0]) == 3
        padded = [make_sample((64, 96), ['a'], num_frames=3), make_sample((45, 77), ['b'], num_frames=3)]
        found = model.extract_visual(videos, padded)
    for mask in found.pad_masks:
        height, width = mask.shape[1:]
        whole = torch.ones(1, 1, 64, 96)
        whole[..., :45, :77] = 0
        expected = torch.nn.functional.interpolate(whole, size=(height, width), mode='nearest')[0, 0].bool()
        assert not mask[0].any() and torch.equal(mask[1], expected)


def test_a_sample_without_sentences(model):
    video, masks = random_clip(2, (64, 96))
    with pytest.raises(ValueError, match='without sentences.*video'):
        model(video[None], [make_sample((64, 96), [], masks)], mode='loss')


def test_bfloat16_autocast_on_the_cpu(model):
    """tools/train.py refuses --amp without a GPU (MMEngine's wrapper asserts); the network itself runs under autocast."""
    video, masks = random_clip(4, (64, 96))
    sample = make_sample((64, 96), ['a red car'], masks)
    model.train()
    expected = sum(model(video[None], [sample], mode='loss').values()).item()
    with torch.autocast('cpu', torch.bfloat16):
        total = sum(model(video[None], [sample], mode='loss').values())
    total.backward()
    assert abs(total.item() - expected) / expected < 0.05
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    model.eval()
    with torch.autocast('cpu', torch.bfloat16):
        (found,) = model(video[None], [make_sample((64, 96), ['a red car', 'the dog'], num_frames=4)], mode='predict')
    assert len(found.pred_masks) == 2 and len(found.pred_masks[0]) == 4 and torch.isfinite(found.pred_scores).all()
