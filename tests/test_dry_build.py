import copy

import pytest
import torch

from runs import TINY, composed
from s4eca.build import build_module
from s4eca.cli.training import train
from s4eca.dry_build import check_build, dry_build
from s4eca.errors import S4ecaError
from s4eca.towers import BertTower, ClipTextTower, RobertaTower, SwinTower, ViTTower
from s4eca.weights import SizesUnknownError, is_hollow
from tiny_text import BERT


@pytest.fixture(scope="module")
def config():
    return composed(*TINY)


def test_a_dry_build_takes_no_memory_no_random_numbers_and_no_files(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    built = []
    monkeypatch.setattr("s4eca.dry_build.build_module", lambda *given: built.append(build_module(*given)) or built[0])
    torch.manual_seed(3)
    before = torch.get_rng_state()
    dry_build({**config, "model": {**config["model"], "feature_cache": None}})
    assert torch.equal(torch.get_rng_state(), before)
    tensors = [*built[0].parameters(), *built[0].buffers()]
    assert len(tensors) > 100
    assert all(tensor.is_meta for tensor in tensors)
    assert not list(tmp_path.iterdir())
    assert not is_hollow()


def test_it_has_the_sizes_of_the_real_network(config):
    real = {name: value.shape for name, value in build_module(copy.deepcopy(config)).named_parameters()}
    with torch.device("meta"):
        hollow = {name: value.shape for name, value in build_module(copy.deepcopy(config)).named_parameters()}
    assert hollow == real


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["decoder.width=-3"], r"decoder\.width=-3 must be a positive multiple of 8"),
        (["decoder.width=0"], r"decoder\.width=0"),
        (["fusion=pwam", "fusion.heads=0"], r"fusion\.heads=0"),
        (["fusion=pwam", "fusion.heads=3"], r"heads 3 do not divide"),
        (["fusion=pwam", "fusion.dropout=2"], r"fusion\.dropout=2"),
        (["decoder=lavt", "decoder.factor=0"], r"decoder\.factor=0"),
        (["decoder=lavt", "decoder.factor=-2"], r"decoder\.factor=-2"),
        (["decoder=lavt", "decoder.factor=999"], r"decoder\.factor=999 leaves nothing"),
        (["data.max_tokens=600"], r"512 positions and got rows of 600 tokens"),
        (["model.segmenter.tower_dtype=bf16"], r"set trainer\.precision=bf16-mixed"),
        (["trainer=fsdp", "model.segmenter.compile=block"], "trainer=fsdp cannot compile"),
        (["model.segmenter.placement=side", "model.feature_cache=x", "augmentation=geometric"], "augmentation=none"),
        (["budget=0.001"], "budget=0.001 cannot be met"),
        (["tuning=frozen"], "brings no language"),
        (["vision.weights=nowhere"], r"vision\.weights=nowhere does not exist"),
        (["data.batch_size=0"], "batch_size"),
    ],
)
def test_what_a_run_would_be_refused_with_is_known_before_any_data(overrides, said, tmp_path):
    tuned = {item.partition("=")[0] for item in overrides}
    tiny = [item for item in TINY if not {item.partition(".")[0], item.partition("=")[0]} & tuned]
    wrong = composed(*tiny, *overrides, f"data.root={tmp_path}/data")
    with pytest.raises(S4ecaError, match=said):
        train(wrong, tmp_path / "run")
    assert not list(tmp_path.iterdir()), "not even the scenes were drawn"


def test_sizes_come_from_where_the_weights_are(tmp_path):
    BertTower(weights="random", options={**BERT, "num_hidden_layers": 3}).model.save_pretrained(tmp_path / "bert")
    real = BertTower(weights=str(tmp_path / "bert"))
    with torch.device("meta"):
        hollow = BertTower(weights=str(tmp_path / "bert"))
    assert (hollow.size, len(hollow.steps), hollow.widths) == (real.size, 3, [32])
    state = {"token_embedding.weight": torch.zeros(99, 64), "positional_embedding": torch.zeros(12, 64)}
    for layer in range(2):
        state[f"transformer.resblocks.{layer}.mlp.c_fc.weight"] = torch.zeros(128, 64)
    torch.save(state, tmp_path / "clip.pt")
    with torch.device("meta"):
        hollow = ClipTextTower(weights=str(tmp_path / "clip.pt"))
    assert (hollow.widths, len(hollow.steps), hollow.positions) == ([64], 2, 12)


def test_the_shipped_towers_have_their_sizes_without_the_hub():
    with torch.device("meta"):
        swin, bert = SwinTower(), BertTower()
        large = ClipTextTower("openai/clip-vit-large-patch14", "hf:chendelong/RemoteCLIP/RemoteCLIP-ViT-L-14.pt")
        assert RobertaTower().positions == 512
        small = ViTTower("vit_small_patch14_dinov2.lvd142m")
        minilm = BertTower("sentence-transformers/all-MiniLM-L6-v2")
        with pytest.raises(SizesUnknownError):
            BertTower("somebody/bert-of-their-own")
    assert swin.size + bert.size == 195_768_184
    assert (large.widths, len(large.steps)) == ([768], 12)
    # the published files' numbers but for what is left out: 37 x 37 positions resized to 34 x 34, the last norm; the
    # pooler
    assert small.size == 22_056_192 - (37**2 - 34**2) * 384 - 2 * 384
    assert (minilm.size, len(minilm.steps), minilm.widths) == (22_713_216 - 385 * 384, 6, [384])


def test_what_nobody_knows_yet_is_left_to_the_run(config):
    unknown = {**config, "text": {**config["text"], "name": "somebody/bert", "weights": "hub", "options": {}}}
    check_build(unknown)
    with pytest.raises(SizesUnknownError):
        dry_build(unknown)
