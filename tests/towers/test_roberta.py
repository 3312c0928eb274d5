import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

from s4eca.errors import S4ecaError
from s4eca.tokenizer import tokenizer_files, tokenizer_from_files
from s4eca.towers import RobertaTower
from tiny import BERT, tiny_text
from towers.text_checks import check_added_tokens, check_linear_layers, check_sites, walk, words

SENTENCE = "The gray ship"


def byte_level(folder):
    """Writes a RoBERTa tokenizer whose merges spell the sentence's words."""
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([SENTENCE] * 3, vocab_size=300, min_frequency=1, special_tokens=special)
    trained.save_model(str(folder))
    RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)
    return len(trained.get_vocab())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_walk_equals_transformers_bit_for_bit(attention, padded):
    tower = RobertaTower(weights="random", seed=4, options=BERT, attention=attention)
    torch.manual_seed(4)
    config = RobertaConfig(**BERT, pad_token_id=0, attn_implementation=attention)
    reference = RobertaModel(config, add_pooling_layer=False).eval()
    ids, mask = words(padded)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(walk(tower, ids, mask), expected)


def test_every_site_is_visited_and_obeyed():
    check_sites(tiny_text("roberta"), norm_first=False)
    check_linear_layers(tiny_text("roberta"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_added_tokens_act_and_see_no_padding(attention, padded):
    tower = RobertaTower(weights="random", seed=4, options=BERT, attention=attention)
    check_added_tokens(tower, attention, padded, causal=False)


def test_positions_of_a_random_tower_fit_the_built_in_tokenizer():
    tower = tiny_text("roberta", max_position_embeddings=16)
    tokens = tower.load_tokenizer()(SENTENCE, padding="max_length", max_length=8, return_tensors="pt")
    assert tokens.input_ids[0, -1] == 0
    embeddings = tower.model.embeddings
    # five tokens, numbered from 1 on; the padding has the padding position 0
    positions = torch.tensor([[1, 2, 3, 4, 5, 0, 0, 0]])
    with torch.no_grad():
        expected = embeddings(tokens.input_ids, position_ids=positions)
        assert torch.equal(tower.begin(tokens.input_ids, tokens.attention_mask).hidden, expected)


def test_rows_may_be_as_long_as_the_positions_last():
    tower = tiny_text("roberta", max_position_embeddings=16)  # position 0 belongs to the padding
    ids = torch.full((1, 16), 7)
    assert walk(tower, ids[:, :15], torch.ones(1, 15)).shape == (1, 15, 32)
    with pytest.raises(S4ecaError, match=r"15 positions and got rows of 16 tokens; set data\.max_tokens=15 or less"):
        tower.begin(ids, torch.ones(1, 16))


def test_a_folder_brings_its_byte_level_tokenizer(tmp_path):
    size = byte_level(tmp_path)
    model = RobertaModel(RobertaConfig(**BERT | {"vocab_size": size, "max_position_embeddings": 12})).eval()
    model.save_pretrained(tmp_path)
    tower = RobertaTower(weights=str(tmp_path))
    assert tower.positions == 10  # padding is token 1
    tokenizer = tower.load_tokenizer()
    assert tokenizer.tokenize(SENTENCE) == ["The", "Ġgray", "Ġship"]
    settings = {"padding": "max_length", "truncation": True, "max_length": 6, "return_tensors": "pt"}
    tokens = tokenizer([SENTENCE, "gray"], **settings)
    again = tokenizer_from_files(tokenizer_files(tokenizer))([SENTENCE, "gray"], **settings)
    assert torch.equal(again.input_ids, tokens.input_ids)
    assert torch.equal(again.attention_mask, tokens.attention_mask)
    assert tokens.input_ids[0, [0, 4, 5]].tolist() == [0, 2, 1]
    assert tokens.attention_mask[0].tolist() == [1, 1, 1, 1, 1, 0]
    with torch.no_grad():
        expected = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        assert torch.equal(walk(tower, tokens.input_ids, tokens.attention_mask), expected)


def test_a_tokenizer_that_pads_with_another_token_is_refused(tmp_path):
    size = byte_level(tmp_path)
    tower = RobertaTower(weights="random", options=BERT | {"vocab_size": size}, tokenizer=str(tmp_path))
    with pytest.raises(S4ecaError, match=r"pads with token 1, and this RoBERTa leaves token 0 out.*text\.tokenizer="):
        tower.load_tokenizer()
