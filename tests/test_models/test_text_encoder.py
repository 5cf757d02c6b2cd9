import json
import shutil
import zlib

import pytest
import torch
from transformers import RobertaConfig, RobertaModel

from mmsoc.models import HashTokenizer, RobertaTextEncoder
from tests.helpers import TINY_ROBERTA

HASH = dict(type='HashTokenizer', vocab_size=1000)


def scratch(**kwargs):
    return RobertaTextEncoder(**{**dict(pretrained=None, frozen=False, config=TINY_ROBERTA, tokenizer=HASH), **kwargs})


def test_shapes_and_padded_words(seeded):
    encoder = scratch().eval()
    short, long = 'a red car', 'the second person from the left, in blue'
    together = encoder([short, long])
    alone = encoder([short])
    assert together.words.shape == (2, 11, 256) and together.sentence.shape == (2, 256)
    assert together.pad_mask.tolist() == [[False] * 5 + [True] * 6, [False] * 11]
    assert torch.allclose(together.words[0, :5], alone.words[0], atol=1e-5)
    assert torch.allclose(together.sentence[0], alone.sentence[0], atol=1e-5)


def test_hash_tokenizer():
    tokenizer = HashTokenizer(vocab_size=100)
    ids = tokenizer(['A red car,', 'a  RED car', 'blau Straße'])['input_ids']
    assert ids[0][:4] == ids[1][:4] and len(ids[0]) == 6 and len(ids[1]) == 5  # the comma is a word of its own
    assert all(row[0] == 0 and row[-1] == 2 and all(4 <= id_ < 100 for id_ in row[1:-1]) for row in ids)
    assert ids[0][1] == 4 + zlib.crc32(b'a') % 96  # the same on every machine
    with pytest.raises(ValueError, match='vocab_size must be above 4, found 4'):
        HashTokenizer(vocab_size=4)


@pytest.mark.parametrize('text', ['', '   '])
def test_empty_sentence(text):
    with pytest.raises(ValueError, match='empty sentence'):
        scratch()(['a car', text])


def test_sentence_longer_than_the_tokenizer_allows():
    encoder = scratch()
    assert encoder.max_tokens == 64  # 66 positions, of which RoBERTa uses 2 and on
    encoder(['word ' * 62])
    with pytest.raises(ValueError, match=r"65 tokens.*at most 64.*max_position_embeddings.*'word word"):
        encoder(['word ' * 63])


def test_tokenizer_that_does_not_fit():
    with pytest.raises(ValueError, match='beyond the text encoder.*vocab_size 1000'):
        scratch(tokenizer=dict(type='HashTokenizer', vocab_size=100000))(['a car on the road'])


def test_frozen_and_trained(seeded):
    frozen = RobertaTextEncoder(
        pretrained='x', frozen=True, config=dict(TINY_ROBERTA, hidden_dropout_prob=0.5), tokenizer=HASH
    )
    frozen.train()
    assert not frozen.roberta.training and frozen.resizer.training
    frozen(['a car']).words.sum().backward()
    assert all(p.grad is None for p in frozen.roberta.parameters()) and frozen.resizer[0].weight.grad is not None
    trained = scratch()
    text = trained(['a car'])
    (text.words.sum() + text.sentence.square().sum()).backward()
    assert all(p.grad is not None for p in trained.parameters())


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(pretrained=None, tokenizer=None), '`tokenizer` is needed'),
        (dict(pretrained=None, tokenizer=HASH, frozen=True), 'would freeze random weights'),
        (
            dict(pretrained='somebody/their-roberta'),
            r'neither a local folder nor one of .*give its sizes in `text_encoder.config`',
        ),
    ],
)
def test_arguments_that_cannot_be_meant(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RobertaTextEncoder(**kwargs)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A pretrained model on disk, with random weights."""
    path = tmp_path_factory.mktemp('roberta')
    torch.manual_seed(3)
    RobertaModel(RobertaConfig(**TINY_ROBERTA)).save_pretrained(path)
    return path


def test_local_folder(folder):
    encoder = RobertaTextEncoder(pretrained=str(folder), tokenizer=HASH)  # sizes from the folder, weights not yet
    expected = RobertaModel.from_pretrained(folder).state_dict()
    assert not torch.equal(encoder.roberta.state_dict()['pooler.dense.weight'], expected['pooler.dense.weight'])
    encoder.init_weights()
    for name, value in encoder.roberta.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not any(p.requires_grad for p in encoder.roberta.parameters())


def test_weights_without_pooler_are_said_so(folder, tmp_path, monkeypatch):
    RobertaModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(tmp_path)
    said = []
    monkeypatch.setattr('mmsoc.models.text_encoders.roberta.print_log', lambda message, **_: said.append(message))
    RobertaTextEncoder(pretrained=str(tmp_path), tokenizer=HASH).init_weights()
    assert 'hold no pooler' in said[-1]


def test_other_missing_weights_are_an_error(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / 'model.safetensors')
    weights.pop('encoder.layer.1.output.dense.bias')
    save_file(weights, tmp_path / 'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(ValueError, match=r'text_encoder.pretrained.*lacks.*encoder.layer.1.output.dense.bias'):
        RobertaTextEncoder(pretrained=str(tmp_path), tokenizer=HASH).init_weights()


def test_weights_of_other_sizes_are_an_error(folder):
    with pytest.raises(ValueError, match='holds other sizes'):
        RobertaTextEncoder(
            pretrained=str(folder), config=dict(TINY_ROBERTA, hidden_size=32), tokenizer=HASH
        ).init_weights()


def test_missing_weights_and_tokenizer_name_the_key():
    encoder = RobertaTextEncoder(pretrained='no/such-model', config=TINY_ROBERTA)
    with pytest.raises(FileNotFoundError, match='no/such-model.*text_encoder.pretrained'):
        encoder.init_weights()
    with pytest.raises(FileNotFoundError, match='no/such-model.*text_encoder.tokenizer'):
        encoder(['a car'])


def test_roberta_base_s_tokenizer(reference):
    folder = reference / 'data' / 'roberta_tokenizer'
    encoder = RobertaTextEncoder(pretrained='x', config=dict(TINY_ROBERTA, vocab_size=50265), tokenizer=str(folder))
    expected = json.loads((folder / 'expected_ids.json').read_text())
    assert expected
    for text, ids in expected.items():
        assert encoder.tokenize([text])[0][0].tolist() == ids, text


def test_from_scratch_sentences_differ():
    torch.manual_seed(0)
    encoder = scratch().eval()

    def cosine():
        return torch.cosine_similarity(*encoder(['the red circle', 'the blue circle']).sentence, dim=0).item()

    with torch.no_grad():
        of_roberta = cosine()  # as transformers makes it: a standard deviation of 0.02 in all tables
        encoder.init_weights()
        assert cosine() < 0.98 < 0.999 < of_roberta
