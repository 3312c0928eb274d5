import pytest
import safetensors.torch
import torch
from tokenizers import CharBPETokenizer
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from s4eca.errors import S4ecaError
from s4eca.tokenizer import tokenizer_files, tokenizer_from_files
from s4eca.towers import ClipTextTower
from tiny import BERT, tiny_text
from towers.text_checks import check_added_tokens, check_linear_layers, check_sites, prompting, walk, words

TEXT = {**BERT, "bos_token_id": 1, "eos_token_id": 2}
SENTENCE = "The gray ship"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("length", [8, 77])
def test_walk_equals_transformers_bit_for_bit(attention, padded, length):
    tower = ClipTextTower(weights="random", seed=4, options=BERT, attention=attention)
    torch.manual_seed(4)
    reference = CLIPTextModel(CLIPTextConfig(**TEXT, attn_implementation=attention)).eval()
    ids, mask = words(padded, length)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(walk(tower, ids, mask), expected)


def test_every_site_is_visited_and_obeyed():
    check_sites(tiny_text("clip"), norm_first=True)
    check_linear_layers(tiny_text("clip"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_added_tokens_act_and_see_no_padding(attention, padded):
    tower = ClipTextTower(weights="random", seed=4, options=BERT, attention=attention)
    check_added_tokens(tower, attention, padded, causal=True)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_batches_with_and_without_padding_agree_on_added_tokens(attention):
    # sdpa has no mask for the one and a mask for the other
    tower = ClipTextTower(weights="random", seed=4, options=BERT, attention=attention)
    ids, mask = words(padded=True)
    tap = prompting(torch.randn(2, 32, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        torch.testing.assert_close(walk(tower, ids[:1], mask[:1], tap), walk(tower, ids, mask, tap)[:1])
        torch.testing.assert_close(walk(tower, ids[1:, :5], mask[1:, :5], tap), walk(tower, ids, mask, tap)[1:, :5])


def test_a_word_sees_no_later_word():
    tower = tiny_text("clip")
    ids, mask = words(padded=False)
    other = ids.clone()
    other[:, -1] = 200
    with torch.no_grad():
        one, two = walk(tower, ids, mask), walk(tower, other, mask)
    torch.testing.assert_close(one[:, :-1], two[:, :-1])
    assert not torch.equal(one[:, -1], two[:, -1])


def test_rows_may_be_as_long_as_the_positions_last():
    with pytest.raises(S4ecaError, match=r"77 positions and got rows of 78 tokens; set data\.max_tokens=77 or less"):
        tiny_text("clip").begin(torch.full((1, 78), 7), torch.ones(1, 78))


def whole_clip():
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision |= {"image_size": 32, "patch_size": 16}
    text = {**TEXT, "projection_dim": 16}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()


@pytest.mark.parametrize("kind", ["whole", "text", "projection", "4.x"])
def test_reads_every_folder_that_holds_a_clip_text_model(tmp_path, kind):
    if kind == "whole":
        model = whole_clip()
        text = model.text_model
    elif kind == "projection":
        model = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, projection_dim=16)).eval()
        text = model.text_model
    else:
        model = text = CLIPTextModel(CLIPTextConfig(**TEXT)).eval()
    model.save_pretrained(tmp_path)
    if kind == "4.x":  # nested its text model once more
        state = {f"text_model.{name}": value for name, value in text.state_dict().items()}
        safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tower = ClipTextTower(weights=str(tmp_path))
    ids, mask = words(padded=True)
    with torch.no_grad():
        assert torch.equal(walk(tower, ids, mask), text(input_ids=ids, attention_mask=mask).last_hidden_state)
    assert not [name for name, _ in tower.named_parameters() if "projection" in name or "vision" in name]


def test_a_whole_clip_without_a_text_weight_is_refused(tmp_path):
    whole_clip().save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del state["text_model.encoder.layers.1.mlp.fc1.bias"]
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(S4ecaError, match=r"lacks 1 weights.*encoder\.layers\.1\.mlp\.fc1\.bias"):
        ClipTextTower(weights=str(tmp_path))


def test_a_folder_brings_its_tokenizer(tmp_path):
    trained = CharBPETokenizer(suffix="</w>", lowercase=True)
    special = ["<|startoftext|>", "<|endoftext|>"]
    trained.train_from_iterator([SENTENCE] * 3, vocab_size=300, min_frequency=1, suffix="</w>", special_tokens=special)
    trained.save_model(str(tmp_path))
    CLIPTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    CLIPTextModel(CLIPTextConfig(**TEXT)).save_pretrained(tmp_path)
    tokenizer = ClipTextTower(weights=str(tmp_path)).load_tokenizer()
    assert tokenizer.tokenize(SENTENCE) == ["the</w>", "gray</w>", "ship</w>"]
    settings = {"padding": "max_length", "truncation": True, "max_length": 7, "return_tensors": "pt"}
    tokens = tokenizer([SENTENCE, "gray"], **settings)
    again = tokenizer_from_files(tokenizer_files(tokenizer))([SENTENCE, "gray"], **settings)
    assert torch.equal(again.input_ids, tokens.input_ids)
    assert torch.equal(again.attention_mask, tokens.attention_mask)
    # it pads with the token that ends the text, which only the mask tells apart
    assert tokens.input_ids[0, [0, 4, 5, 6]].tolist() == [0, 1, 1, 1]
    assert tokens.attention_mask[0].tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    whole_clip().save_pretrained(tmp_path)  # from its config alone transformers makes up a tokenizer without words
    with pytest.raises(S4ecaError, match=r"holds no tokenizer with a vocabulary.*text\.tokenizer=PATH"):
        ClipTextTower(weights=str(tmp_path)).load_tokenizer()


def test_activation_is_for_single_files(tmp_path):
    with pytest.raises(S4ecaError, match=r"text\.activation=relu is neither quick_gelu nor gelu"):
        ClipTextTower(weights="random", options=BERT, activation="relu")
    for weights in ("random", "hub", str(tmp_path)):
        with pytest.raises(S4ecaError, match=r"text\.activation is for single files.*leave it null"):
            ClipTextTower(weights=weights, activation="gelu")
