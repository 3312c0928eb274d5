"""CLIP, BLIP and SAM as DGL-RSIS loads them; open_clip's files against a forward pass written in open_clip's terms."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from transformers import (
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    SamModel,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from dgl_rsis.tiny_models import SAM, SAM2, blip_options, clip_options, tiny_blip, tiny_clip, tiny_sam, tiny_sam2
from s4eca.build import instantiate
from s4eca.dgl_rsis.models import Blip, Clip, load_sam
from s4eca.dgl_rsis.open_clip import whole_from_open_clip
from s4eca.errors import S4ecaError
from s4eca.tokenizer import aerial_tokenizer
from s4eca.weights import hash_weights, load_transformers

ROOT = Path(__file__).parents[2]
VOCABULARY = 40
TEXTS = ["a ship", "the large storage tank on the lower left"]
HUB_CLIPS = ["openai_b16", "openai_l14", "remoteclip_b32", "remoteclip_l14", "georsclip_b32"]


def noisy(model):
    """Moves every parameter, so that biases and norms count."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def whole_clip(activation="quick_gelu"):
    torch.manual_seed(7)
    tower = {"num_hidden_layers": 2, "hidden_act": activation}
    text = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 96, "vocab_size": VOCABULARY, **tower}
    text |= {"max_position_embeddings": 12, "bos_token_id": 38, "eos_token_id": 39, "pad_token_id": 39}
    vision = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 80, **tower}
    vision |= {"image_size": 24, "patch_size": 8}
    return noisy(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)))


def as_open_clip(model):
    text, vision = model.text_model, model.vision_model
    state = {
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        "positional_embedding": text.embeddings.position_embedding.weight,
        "ln_final.weight": text.final_layer_norm.weight,
        "ln_final.bias": text.final_layer_norm.bias,
        "text_projection": model.text_projection.weight.T,
        "logit_scale": model.logit_scale,
        "visual.class_embedding": vision.embeddings.class_embedding,
        "visual.positional_embedding": vision.embeddings.position_embedding.weight,
        "visual.conv1.weight": vision.embeddings.patch_embedding.weight,
        "visual.ln_pre.weight": vision.pre_layrnorm.weight,
        "visual.ln_pre.bias": vision.pre_layrnorm.bias,
        "visual.ln_post.weight": vision.post_layernorm.weight,
        "visual.ln_post.bias": vision.post_layernorm.bias,
        "visual.proj": model.visual_projection.weight.T,
    }
    for start, tower in (("", text), ("visual.", vision)):
        for number, layer in enumerate(tower.encoder.layers):
            for kind in ("weight", "bias"):
                parts = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
                own = {
                    f"attn.in_proj_{kind}": torch.cat([getattr(part, kind) for part in parts]),
                    f"attn.out_proj.{kind}": getattr(layer.self_attn.out_proj, kind),
                    f"ln_1.{kind}": getattr(layer.layer_norm1, kind),
                    f"ln_2.{kind}": getattr(layer.layer_norm2, kind),
                    f"mlp.c_fc.{kind}": getattr(layer.mlp.fc1, kind),
                    f"mlp.c_proj.{kind}": getattr(layer.mlp.fc2, kind),
                }
                state |= {f"{start}transformer.resblocks.{number}.{name}": value for name, value in own.items()}
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A folder with a tokenizer whose last token ends a text, as in CLIP's."""
    words = ["[PAD]", "[UNK]", "[MASK]", *sorted({word for text in TEXTS for word in text.split()})]
    words += [f"unused{number}" for number in range(VOCABULARY - len(words) - 2)] + ["[CLS]", "[SEP]"]
    folder = tmp_path_factory.mktemp("tokenizer")
    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder)
    return str(folder)


def text_rows(clip, texts, **settings):
    return clip.tokenizer(texts, return_tensors="pt", **{"padding": True, **settings})


def text_features(clip, texts, **settings):
    rows = text_rows(clip, texts, **settings)
    with torch.no_grad():
        return clip.model.get_text_features(rows["input_ids"], attention_mask=rows["attention_mask"]).pooler_output


def image_features(model, pixels):
    with torch.no_grad():
        return model.get_image_features(pixels).pooler_output


def open_clip_blocks(state, start, x, mask):
    """Pre-norm transformer blocks with torch's own multi-head attention; x is (length, batch, width)."""
    for number in range(2):
        own = {name.removeprefix(f"{start}{number}."): value for name, value in state.items()}
        width = x.shape[-1]
        normed = F.layer_norm(x, (width,), own["ln_1.weight"], own["ln_1.bias"])
        attention = torch.nn.MultiheadAttention(width, width // 64)
        attention.load_state_dict({name[5:]: value for name, value in own.items() if name.startswith("attn.")})
        x = x + attention(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        normed = F.layer_norm(x, (width,), own["ln_2.weight"], own["ln_2.bias"])
        inner = F.linear(normed, own["mlp.c_fc.weight"], own["mlp.c_fc.bias"])
        x = x + F.linear(inner * torch.sigmoid(1.702 * inner), own["mlp.c_proj.weight"], own["mlp.c_proj.bias"])
    return x


@torch.no_grad()
def open_clip_forward(state, pixels, ids):
    width = state["visual.conv1.weight"].shape[0]
    x = F.conv2d(pixels, state["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    x = (
        torch.cat([state["visual.class_embedding"].expand(len(x), 1, width), x], 1)
        + state["visual.positional_embedding"]
    )
    x = F.layer_norm(x, (width,), state["visual.ln_pre.weight"], state["visual.ln_pre.bias"])
    x = open_clip_blocks(state, "visual.transformer.resblocks.", x.transpose(0, 1), None)[0]
    image = (
        F.layer_norm(x, (width,), state["visual.ln_post.weight"], state["visual.ln_post.bias"]) @ state["visual.proj"]
    )
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    causal = torch.full((ids.shape[1],) * 2, -torch.inf).triu(1)
    x = open_clip_blocks(state, "transformer.resblocks.", x.transpose(0, 1), causal).transpose(0, 1)
    x = F.layer_norm(x, x.shape[-1:], state["ln_final.weight"], state["ln_final.bias"])
    return image, x[torch.arange(len(ids)), ids.argmax(-1)] @ state["text_projection"]


@pytest.mark.parametrize("form", ["plain", "nested", "half", "safetensors"])
def test_a_file_of_open_clip_equals_the_model_it_was_made_of(tmp_path, tokenizer, form):
    model = whole_clip()
    if form == "half":
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float()
    state, path = as_open_clip(model), tmp_path / f"clip.{'safetensors' if form == 'safetensors' else 'pt'}"
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    elif form == "nested":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        torch.save({name: value.half() if form == "half" else value for name, value in state.items()}, path)
    clip = Clip("openai/clip-vit-base-patch32", weights=str(path), tokenizer=tokenizer)
    assert {parameter.dtype for parameter in clip.parameters()} == {torch.float32}
    assert (clip.image_size, clip.base.source, clip.base.name) == (24, path.name, "openai/clip-vit-base-patch32")
    pixels, rows = torch.randn(2, 3, 24, 24), text_rows(clip, TEXTS)
    assert torch.equal(image_features(clip.model, pixels), image_features(model, pixels))
    with torch.no_grad():
        expected = model.get_text_features(rows["input_ids"], attention_mask=rows["attention_mask"]).pooler_output
    assert torch.equal(text_features(clip, TEXTS), expected)
    assert torch.equal(clip.model.logit_scale, model.logit_scale)


def test_a_file_of_open_clip_means_what_open_clip_means_by_it(tmp_path, tokenizer):
    state = as_open_clip(whole_clip())
    torch.save(state, tmp_path / "clip.pt")
    clip = Clip(weights=str(tmp_path / "clip.pt"), tokenizer=tokenizer)
    pixels, rows = torch.randn(2, 3, 24, 24), text_rows(clip, TEXTS)
    image, text = open_clip_forward(state, pixels, rows["input_ids"])
    torch.testing.assert_close(image_features(clip.model, pixels), image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text_features(clip, TEXTS), text, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_the_activation_is_that_of_both_towers(tmp_path, tokenizer, activation):
    torch.save(as_open_clip(whole_clip()), tmp_path / "clip.pt")
    clip = Clip(weights=str(tmp_path / "clip.pt"), tokenizer=tokenizer, activation=activation)
    pixels = torch.randn(1, 3, 24, 24)
    for other in ("quick_gelu", "gelu"):
        expected = image_features(whole_clip(other), pixels)
        assert torch.equal(image_features(clip.model, pixels), expected) == (other == activation)
    assert clip.model.config.text_config.hidden_act == activation


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("visual.ln_pre.bias", r"do not fit clip\.name=.*1 missing, 0 unexpected.*pre_layrnorm\.bias"),
        ("visual.transformer.resblocks.1.attn.in_proj_weight", r"3 missing, 0 unexpected.*vision_model.*self_attn"),
        ("transformer.resblocks.1.ln_2.bias", r"1 missing, 0 unexpected.*text_model\.encoder\.layers\.1\.layer_norm2"),
        ("logit_scale", r"1 missing, 0 unexpected, for example logit_scale"),
        ("visual.proj", r"is no whole CLIP of open_clip, it lacks visual\.proj; give one"),
        ("text_projection", r"is no whole CLIP of open_clip, it lacks text_projection"),
        ("token_embedding.weight", r"is no open_clip model with a text tower"),
    ],
)
def test_nothing_of_a_clip_stays_random_silently(tmp_path, tokenizer, name, match):
    state = as_open_clip(whole_clip())
    del state[name]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(S4ecaError, match=match):
        Clip(weights=str(tmp_path / "clip.pt"), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ({"visual.layer1.0.conv1.weight": torch.ones(1)}, r"ResNet as its image tower.*give the file of a ViT"),
        ({"visual.attnpool.k_proj.weight": torch.ones(1)}, r"ResNet as its image tower"),
        ({"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(1)}, r"0 missing, 1 unexpected.*resblocks\.0\.ls_1"),
        ({"visual.trunk.weight": torch.ones(1)}, r"0 missing, 1 unexpected, for example visual\.trunk\.weight"),
        ({"logit_bias": torch.ones(1)}, r"0 missing, 1 unexpected, for example logit_bias"),
        ({"visual.positional_embedding": torch.ones(9, 192)}, r"192 wide with 8 cells.*a square of cells"),
        ({"visual.conv1.weight": torch.ones(100, 3, 8, 8)}, r"100 wide with 9 cells.*heads of 64"),
    ],
)
def test_foreign_files_are_refused(tmp_path, tokenizer, extra, match):
    torch.save({**as_open_clip(whole_clip()), **extra}, tmp_path / "clip.pt")
    with pytest.raises(S4ecaError, match=match):
        Clip(weights=str(tmp_path / "clip.pt"), tokenizer=tokenizer)


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16)])
def test_image_towers_have_as_many_heads_as_open_clip_gives_them(width, heads):
    state = as_open_clip(whole_clip())
    state |= {
        "visual.conv1.weight": torch.ones(width, 3, 14, 14),
        "visual.positional_embedding": torch.ones(257, width),
    }
    fields, _ = whole_from_open_clip("clip.pt", state, "gelu")
    assert fields["vision_config"]["num_attention_heads"] == heads
    assert (fields["vision_config"]["image_size"], fields["text_config"]["num_attention_heads"]) == (224, 2)


def test_a_tokenizer_of_another_model_is_refused(tmp_path, tokenizer):
    torch.save(as_open_clip(whole_clip()), tmp_path / "clip.pt")
    aerial_tokenizer().save_pretrained(tmp_path / "aerial")
    with pytest.raises(
        S4ecaError, match=r"the tokenizer has \d+ tokens and the model 40 embeddings.*clip\.tokenizer=PATH"
    ):
        Clip(weights=str(tmp_path / "clip.pt"), tokenizer=str(tmp_path / "aerial"))
    with pytest.raises(S4ecaError, match=r"ends a text with token 39 and this CLIP looks for 7"):
        tiny = clip_options(text_config={"eos_token_id": 7})
        Clip(weights="random", tokenizer=tokenizer, options=tiny)
    with pytest.raises(S4ecaError, match=r"in .*nowhere could not be loaded.*with clip\.tokenizer=PATH"):
        Clip(weights="random", tokenizer=str(tmp_path / "nowhere"), options=clip_options())


@pytest.mark.parametrize("make", [tiny_clip, tiny_blip])
def test_random_models_are_frozen_and_made_by_the_seed_alone(make):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = make(seed=3), make(seed=3), make(seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.base == again.base
    assert first.base.sha256 == hash_weights(first.model.state_dict()) != other.base.sha256
    assert (first.base.source, other.base.source) == ("random:3", "random:4")
    assert not first.model.training
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert (first.mean, first.std) == (tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD))


def test_a_text_feature_is_that_of_the_end_token_and_padding_does_not_move_it():
    clip = tiny_clip()
    rows = text_rows(clip, TEXTS)
    alone = torch.cat([text_features(clip, [text]) for text in TEXTS])
    longer = text_features(clip, TEXTS, padding="max_length", max_length=30)
    torch.testing.assert_close(text_features(clip, TEXTS), alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        text_features(clip, [*TEXTS, "a large storage tank on the left of the tennis court"])[:2],
        alone,
        atol=1e-6,
        rtol=0,
    )
    torch.testing.assert_close(longer, alone, atol=1e-6, rtol=0)
    with torch.no_grad():
        hidden = clip.model.text_model(
            **{name: rows[name] for name in ("input_ids", "attention_mask")}
        ).last_hidden_state
        last = rows["attention_mask"].sum(1) - 1  # [SEP]
        expected = clip.model.text_projection(hidden[torch.arange(2), last])
    torch.testing.assert_close(text_features(clip, TEXTS), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)


def test_padding_moves_no_match_score_of_blip():
    blip = tiny_blip()
    pixels = torch.randn(1, 3, 96, 96)

    def scores(texts):
        rows = blip.tokenizer(texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            return blip.model(
                rows["input_ids"], pixels.expand(len(texts), -1, -1, -1), attention_mask=rows["attention_mask"]
            )[0]

    alone = torch.cat([scores([text]) for text in TEXTS])
    torch.testing.assert_close(scores(TEXTS), alone, atol=1e-6, rtol=0)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)
    assert (blip.image_size, blip.model.config._attn_implementation) == (96, "eager")


@pytest.mark.parametrize(("kind", "tiny"), [(Clip, tiny_clip), (Blip, tiny_blip)])
def test_folders_hold_model_tokenizer_and_statistics(tmp_path, kind, tiny):
    made = tiny()
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    read = kind(weights=str(tmp_path))
    assert (read.base.sha256, read.base.source) == (made.base.sha256, tmp_path.name)
    assert read.tokenizer(TEXTS)["input_ids"] == made.tokenizer(TEXTS)["input_ids"]
    assert (read.mean, read.image_size) == (made.mean, made.image_size)
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    read = kind(weights=str(tmp_path))
    assert (read.mean, read.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_the_end_token_of_openais_published_configs(tmp_path, tokenizer):
    model = whole_clip()
    model.config.text_config.eos_token_id = 2
    model.save_pretrained(tmp_path)
    clip = Clip(weights=str(tmp_path), tokenizer=tokenizer)
    rows = text_rows(clip, TEXTS)
    with torch.no_grad():  # this one looks for 39
        expected = model.get_text_features(rows["input_ids"], attention_mask=rows["attention_mask"]).pooler_output
    assert clip.model.text_model.eos_token_id == 2
    assert torch.equal(text_features(clip, TEXTS), expected)


def test_errors_name_the_setting(tmp_path):
    with pytest.raises(
        S4ecaError, match=r"clip-vit-base-patch16 could not be fetched from the hub.*clip\.weights=PATH"
    ):
        Clip()
    with pytest.raises(S4ecaError, match=r"blip-itm-base-coco could not be fetched.*grounding\.blip\.weights=PATH"):
        Blip()
    with pytest.raises(S4ecaError, match=r"sam-vit-base could not be fetched from the hub.*proposer\.weights=random"):
        load_sam(SamModel, "facebook/sam-vit-base", "hub")
    with pytest.raises(S4ecaError, match=r"clip\.weights=.*nowhere does not exist"):
        Clip(weights=str(tmp_path / "nowhere"))
    with pytest.raises(S4ecaError, match=r"clip\.activation=relu is neither quick_gelu nor gelu"):
        Clip(weights="random", activation="relu")
    with pytest.raises(S4ecaError, match=r"clip\.activation is for single files, and clip\.weights=random"):
        Clip(weights="random", activation="gelu")
    with pytest.raises(S4ecaError, match=r"clip\.options shapes random weights only"):
        Clip(weights="hub", options=clip_options())
    with pytest.raises(S4ecaError, match=r"clip\.options names depth, which CLIPConfig does not have"):
        tiny_clip(depth=3)
    with pytest.raises(S4ecaError, match=r"clip\.options\.vision_config names depth, which CLIPVisionConfig does not"):
        tiny_clip(vision_config={"depth": 3})
    with pytest.raises(
        S4ecaError, match=r"proposer\.options\.vision_config\.backbone_config names depth, which Sam2Hiera"
    ):
        load_sam(Sam2Model, "tiny", "random", options={"vision_config": {"backbone_config": {"depth": 3}}})
    with pytest.raises(S4ecaError, match=r"grounding\.blip\.options\.text_config\.vocab_size=\d+\.$"):
        Blip(weights="random", options=blip_options(text_config={"vocab_size": 20}))
    (tmp_path / "blip.pt").write_bytes(b"")
    with pytest.raises(S4ecaError, match=r"is a single file, and a blip model needs the config.*a folder"):
        Blip(weights=str(tmp_path / "blip.pt"))


def test_weights_of_another_model_are_told_apart(tmp_path):
    tiny_blip().model.save_pretrained(tmp_path / "blip")
    tiny_sam2().save_pretrained(tmp_path / "sam2")
    clip = tiny_clip().model
    CLIPTextModel(clip.config.text_config).save_pretrained(tmp_path / "text")
    with pytest.raises(
        S4ecaError, match=r"is a blip model, and this model reads.*clip models; give weights.*clip\.weights"
    ):
        Clip(weights=str(tmp_path / "blip"))
    with pytest.raises(
        S4ecaError, match=r"is a clip_text_model model, and this model reads the weights of clip models"
    ):
        Clip(weights=str(tmp_path / "text"))
    with pytest.raises(S4ecaError, match=r"is a sam2 model.*choose proposer=sam2 for it"):
        load_sam(SamModel, "sam", str(tmp_path / "sam2"))
    clip.save_pretrained(tmp_path / "clip")
    state = safetensors.torch.load_file(tmp_path / "clip" / "model.safetensors")
    del state["visual_projection.weight"]
    safetensors.torch.save_file(state, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        S4ecaError, match=r"lacks 1 weights of the clip model.*visual_projection\.weight.*clip\.weights"
    ):
        load_transformers("clip", CLIPModel, "clip", str(tmp_path / "clip"), 0, {})


@pytest.mark.parametrize(("library", "make", "options"), [(SamModel, tiny_sam, SAM), (Sam2Model, tiny_sam2, SAM2)])
def test_sam_is_read_from_a_folder(tmp_path, library, make, options):
    made = make(seed=2)
    made.save_pretrained(tmp_path)
    model, base = load_sam(library, "sam", str(tmp_path))
    assert base.sha256 == hash_weights(made.state_dict()) == load_sam(library, "sam", "random", 2, options)[1].sha256
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_sam2_is_read_out_of_its_video_model(tmp_path):
    sizes = {"memory_encoder_hidden_size": 16, "memory_encoder_output_channels": 8, "memory_attention_hidden_size": 16}
    video = Sam2VideoModel(Sam2VideoConfig(**SAM2, **sizes, image_size=64)).eval()
    video.save_pretrained(tmp_path)
    model, _ = load_sam(Sam2Model, "sam2", str(tmp_path))
    stored = video.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


def test_configs_build_what_they_say():
    node = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "clip" / "tiny.yaml"))
    clip = instantiate(node, "clip")
    assert (clip.image_size, clip.base.source, clip.model.config.vision_config.patch_size) == (64, "random:0", 8)
    nested = instantiate({"_target_": "s4eca.dgl_rsis.models.Clip", **node}, "model")
    assert nested.base == clip.base


@pytest.mark.parametrize("option", HUB_CLIPS)
def test_configs_of_published_weights_ask_for_them(option):
    node = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "clip" / f"{option}.yaml"))
    with pytest.raises(S4ecaError, match=r"could not be fetched from the hub.*clip\.weights=PATH"):
        instantiate(node, "clip")
