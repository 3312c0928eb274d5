import pytest
import torch
from transformers import BertTokenizer, DistilBertConfig, DistilBertModel

from s4eca.errors import S4ecaError
from s4eca.towers import DistilBertTower
from tiny import tiny_text
from tiny_text import DISTILBERT
from towers.text_checks import check_added_tokens, check_linear_layers, check_sites, walk, words


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_walk_equals_transformers_bit_for_bit(attention, padded):
    tower = DistilBertTower(weights="random", seed=4, options=DISTILBERT, attention=attention)
    torch.manual_seed(4)
    reference = DistilBertModel(DistilBertConfig(**DISTILBERT, attn_implementation=attention)).eval()
    ids, mask = words(padded)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(walk(tower, ids, mask), expected)


def test_every_site_is_visited_and_obeyed():
    check_sites(tiny_text("distilbert"), norm_first=False)
    check_linear_layers(tiny_text("distilbert"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_added_tokens_act_and_see_no_padding(attention, padded):
    tower = DistilBertTower(weights="random", seed=4, options=DISTILBERT, attention=attention)
    check_added_tokens(tower, attention, padded, causal=False)


def test_rows_may_be_as_long_as_the_positions_last():
    tower = tiny_text("distilbert", max_position_embeddings=9)
    assert walk(tower, torch.full((1, 9), 7), torch.ones(1, 9)).shape == (1, 9, 32)
    with pytest.raises(S4ecaError, match=r"9 positions and got rows of 10 tokens; set data\.max_tokens=9 or less"):
        tower.begin(torch.full((1, 10), 7), torch.ones(1, 10))


def test_options_go_by_both_of_transformers_names():
    other = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "hidden_dim": 64, "vocab_size": 256}
    tower = DistilBertTower(weights="random", options=other)
    assert tower.base.sha256 == tiny_text("distilbert").base.sha256


def test_reads_what_save_pretrained_wrote(tmp_path):
    model = DistilBertModel(DistilBertConfig(**DISTILBERT)).eval()
    model.save_pretrained(tmp_path)
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ship"]
    BertTokenizer(vocab={word: index for index, word in enumerate(vocab)}).save_pretrained(tmp_path)
    tower = DistilBertTower(weights=str(tmp_path))
    assert tower.load_tokenizer().tokenize("ship") == ["ship"]
    ids, mask = words(padded=True)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(walk(tower, ids, mask), expected)
