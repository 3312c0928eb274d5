"""Features kept on disk: exact in fp32, bounded in bf16, independent of the batch that made them."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s4eca.cache import digest
from s4eca.data.augmentation.turns import Turn
from s4eca.data.references import Batch
from s4eca.errors import S4ecaError
from s4eca.features import FeatureCache, open_features, stage_shapes
from s4eca.fusion.film import FiLM
from s4eca.fusion.pwam import PWAM
from s4eca.runner import Encoded
from s4eca.segmenter import ReferringSegmenter
from s4eca.towers.base import Step
from s4eca.tuning import Frozen
from s4eca.tuning.base import INSIDE, Capabilities, TuningMethod
from tiny import shake, tiny_inputs, tiny_segmenter
from tiny_text import TEXT
from tiny_vision import VISION
from tuning.methods import s4eca


class Mean(TuningMethod):
    """At the side, adds what it learns from the mean word of several layers to every place of every stage."""

    name = "mean"
    capabilities = Capabilities(language=True, side=True)

    def __init__(self, layers=(0, 2)) -> None:
        super().__init__()
        self.layers = list(layers)

    def attach(self, text, vision, scope=INSIDE) -> None:
        super().attach(text, vision, scope)
        width = text.widths[-1] * (len(self.layers) + 1)
        self.add = torch.nn.ModuleList(torch.nn.Linear(width, stage) for stage in vision.widths)

    def side_layers(self, text) -> list[int]:
        return self.layers

    def side(self, words, stages, context):
        real = context.word_mask[..., None]
        mean = torch.cat([(layer * real).sum(1) / real.sum(1) for layer in words], dim=-1)
        return [
            stage + add(mean).view(len(mean), *[1] * (stage.ndim - 2), -1)
            for stage, add in zip(stages, self.add, strict=True)
        ]


NETWORKS = {"film": (Frozen, FiLM), "pwam": (Frozen, PWAM), "mean": (Mean, None), "s4eca": (s4eca, None)}


def network(name: str = "pwam", **options) -> ReferringSegmenter:
    torch.manual_seed(0)
    method, fusion = NETWORKS[name]
    made = tiny_segmenter(method(), fusion, placement="side", **options).eval()
    shake(made, scale=0.3)
    return made


def batch_of(image, ids, mask, keys=None) -> Batch:
    size = len(ids)
    return Batch(
        index=torch.arange(size),
        image=image,
        input_ids=ids,
        attention_mask=mask,
        mask=torch.zeros(size, 64, 64, dtype=torch.bool),
        ids=[str(number) for number in range(size)],
        expressions=[""] * size,
        categories=[None] * size,
        original_sizes=[(64, 64)] * size,
        no_target=[False] * size,
        image_keys=keys or [f"image {number}" for number in range(size)],
        word_ids=[row[: int(real.sum())].tolist() for row, real in zip(ids, mask, strict=True)],
    )


def tiny_batch(size: int = 4, seed: int = 0, **options) -> Batch:
    """Of four samples two are padded by three words."""
    return batch_of(*tiny_inputs(seed, size, **options))


def alone(made: ReferringSegmenter, batch: Batch) -> Encoded:
    """What the towers give for each sample by itself, without padding, put together by hand."""
    words = [
        made.runner.encode_words(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
        for ids in batch.word_ids
    ]
    images = [made.runner.encode_image(image[None]) for image in batch.image]
    length = batch.input_ids.shape[1]
    pad = torch.nn.functional.pad
    return Encoded(
        [torch.cat([pad(one, (0, 0, 0, length - one.shape[1])) for one in row]) for row in zip(*words, strict=True)],
        [torch.cat(row) for row in zip(*images, strict=True)],
    )


def step(made: ReferringSegmenter, batch: Batch, encoded: Encoded | None) -> tuple[torch.Tensor, dict]:
    made.zero_grad()
    logits = made(batch.image, batch.input_ids, batch.attention_mask, encoded)
    logits.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    assert gradients
    return logits.detach(), gradients


def same(one, other) -> bool:
    return torch.equal(one[0], other[0]) and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def files(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.cached")}


def counted(tower) -> Counter:
    """Counts the samples that a tower sees from now on."""
    seen, original = Counter(), tower.begin
    tower.begin = lambda first, *rest: seen.update(samples=len(first)) or original(first, *rest)
    return seen


@pytest.mark.parametrize("name", NETWORKS)
def test_in_fp32_a_cached_step_has_the_same_bits(tmp_path, name):
    made, batch = network(name), tiny_batch()
    wanted = step(made, batch, alone(made, batch))
    assert same(step(made, batch, FeatureCache(tmp_path, made.runner, "fp32").encode(batch)), wanted), "encoded"
    assert same(step(made, batch, FeatureCache(tmp_path, made.runner, "fp32").encode(batch)), wanted), "read"


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_cache_a_step_differs_by_the_kernels_choice_at_most(tmp_path, name):
    made, batch = network(name), tiny_batch()
    cache = FeatureCache(tmp_path, made.runner, "fp32")
    cached, plain = step(made, batch, cache.encode(batch)), step(made, batch, None)
    assert (cached[0] - plain[0]).abs().max() <= 1e-5
    for key, gradient in plain[1].items():
        torch.testing.assert_close(cached[1][key], gradient, rtol=1e-4, atol=1e-5, msg=key)
    single = tiny_batch(size=1)  # one sample, no padding: the towers see the same without a cache
    assert same(step(made, single, cache.encode(single)), step(made, single, None))


@pytest.mark.parametrize("vision", VISION)
def test_bf16_rounds_every_feature_once(tmp_path, vision):
    """Eight significant bits: the nearest number is off by 2^-8 at most, relatively."""
    made, batch = network(vision=vision), tiny_batch()
    exact = alone(made, batch)
    cache = FeatureCache(tmp_path, made.runner, "bf16")
    first, second = cache.encode(batch), cache.encode(batch)
    for one, other, true in zip(
        [*first.words, *first.stages], [*second.words, *second.stages], [*exact.words, *exact.stages], strict=True
    ):
        assert one.dtype == torch.float32
        assert torch.equal(one, other), "what was encoded just now is rounded like what is read"
        assert ((one - true).abs() <= 2**-8 * true.abs()).all()
        assert not torch.equal(one, true)


@pytest.mark.parametrize("vision", ["swin", "swinv2"])
@pytest.mark.parametrize("name", NETWORKS)
def test_bf16_moves_logits_like_independent_roundings(tmp_path, name, vision):
    """To first order by the sum of error * gradient; errors are at most 2^-8 of a feature, evenly spread below that."""
    made, batch = network(name, vision=vision), tiny_batch(seed=1)
    exact, kept = alone(made, batch), FeatureCache(tmp_path, made.runner, "bf16").encode(batch)
    features = [state.requires_grad_() for state in [*exact.words, *exact.stages]]
    logits = [made(batch.image, batch.input_ids, batch.attention_mask, states) for states in (exact, kept)]
    moved = (logits[1] - logits[0]).detach().abs()
    assert 0 < moved.max() < 0.2 * logits[0].std()
    for row in range(4):
        place = int(moved[row].argmax())  # of 4096 the one that moved furthest
        gradients = torch.autograd.grad(logits[0][row].flatten()[place], features, retain_graph=True)
        total = sum(float((g * f.detach()).square().sum()) for g, f in zip(gradients, features, strict=True))
        deviation = 2**-8 / 3**0.5 * total**0.5
        assert moved[row].max() < 5 * deviation


def test_what_is_stored_does_not_depend_on_the_batch_or_on_autocast(tmp_path):
    made, batch = network(vision="swinv2"), tiny_batch(8)
    together, one = FeatureCache(tmp_path / "a", made.runner, "fp32"), FeatureCache(tmp_path / "b", made.runner, "fp32")
    together.encode(batch)
    for row in range(8):
        part = slice(row, row + 1)
        single = batch_of(batch.image[part], batch.input_ids[part], batch.attention_mask[part], batch.image_keys[part])
        with torch.autocast("cpu", torch.bfloat16):
            encoded = one.encode(single)
        assert {state.dtype for state in [*encoded.words, *encoded.stages]} == {torch.float32}
    assert len(files(tmp_path / "a")) == 16
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_another_padding_finds_the_expression(tmp_path):
    made, batch = network(), tiny_batch(length=8)
    cache = FeatureCache(tmp_path, made.runner, "fp32")
    short = cache.encode(batch)
    seen = counted(made.text)
    longer = [torch.nn.functional.pad(x, (0, 5)) for x in (batch.input_ids, batch.attention_mask)]
    padded = cache.encode(batch_of(batch.image, *longer))
    assert seen["samples"] == 0
    for before, after in zip(short.words, padded.words, strict=True):
        assert torch.equal(after[:, :8], before)
        assert not after[:, 8:].any()
        assert not before[1:, 5:].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_words_at_padded_positions_cannot_matter(tmp_path, name):
    made, batch = network(name), tiny_batch()
    encoded = FeatureCache(tmp_path, made.runner, "fp32").encode(batch)
    padding = ~batch.attention_mask.bool()
    assert padding.sum() == 9
    junk = [torch.where(padding[..., None], 1000.0 + torch.randn_like(words), words) for words in encoded.words]
    assert same(step(made, batch, encoded), step(made, batch, Encoded(junk, encoded.stages)))


def test_each_image_and_each_expression_is_encoded_once(tmp_path):
    made = network()
    image, ids, mask = tiny_inputs(batch=3)
    rows = [0, 1, 0, 2, 1]
    # the third image with the first's expression
    words = [0, 1, 1, 0, 0]
    batch = batch_of(image[rows], ids[words], mask[words], [f"image {row}" for row in rows])
    images, expressions = counted(made.vision), counted(made.text)
    encoded = FeatureCache(tmp_path, made.runner, "fp32").encode(batch)
    assert (images["samples"], expressions["samples"]) == (3, 2)
    assert len(files(tmp_path / "stages")) == 3
    assert len(files(tmp_path / "words")) == 2
    wanted = alone(made, batch)
    pairs = zip([*encoded.words, *encoded.stages], [*wanted.words, *wanted.stages], strict=True)
    assert all(torch.equal(got, state) for got, state in pairs)


def test_a_sample_without_a_key_leaves_the_batch_to_the_towers(tmp_path):
    made, batch = network(), tiny_batch()
    cache = FeatureCache(tmp_path, made.runner)
    for keys in (["a", "b", None, "c"], []):
        batch.image_keys = keys
        assert cache.encode(batch) is None
    assert files(tmp_path) == {}


# rows, columns and the two diagonals, by NumPy
MOVES = {
    Turn.IDENTITY: lambda grid: grid,
    Turn.HORIZONTAL_FLIP: np.fliplr,
    Turn.VERTICAL_FLIP: np.flipud,
    Turn.ROTATE_180: lambda grid: np.rot90(grid, 2),
    Turn.ROTATE_90: lambda grid: np.rot90(grid, 1),
    Turn.ROTATE_270: lambda grid: np.rot90(grid, 3),
    Turn.TRANSPOSE: lambda grid: np.swapaxes(grid, 0, 1),
    Turn.ANTITRANSPOSE: lambda grid: np.swapaxes(np.rot90(grid, 2), 0, 1),
}


@pytest.mark.parametrize("vision", ["swin", "vit"])
def test_turned_samples_have_the_upright_images_features_turned(tmp_path, vision):
    """Whether an image is met upright first or turned first."""
    made = network(vision=vision)
    upright = tiny_batch(1)
    wanted = [state[0].detach().numpy() for state in made.runner.encode_image(upright.image)]
    ends = [step for step in made.vision.steps if step.ends_stage]
    for turn, move in MOVES.items():
        turned = np.ascontiguousarray(move(upright.image[0].permute(1, 2, 0).numpy()))
        batch = tiny_batch(1)
        batch.image, batch.turns = torch.from_numpy(turned).permute(2, 0, 1)[None], [turn]
        encoded = FeatureCache(tmp_path / turn.name, made.runner, "fp32").encode(batch)
        shared = FeatureCache(tmp_path / "shared", made.runner, "fp32").encode(batch)
        for states in (encoded.stages, shared.stages):
            for state, whole, end in zip(states, wanted, ends, strict=True):
                got = state[0].numpy()
                if whole.ndim == 3:
                    assert np.array_equal(got, move(whole)), turn
                else:
                    assert np.array_equal(got[: end.prefix], whole[: end.prefix]), turn
                    grids = [tokens[end.prefix :].reshape(*end.grid, -1) for tokens in (got, whole)]
                    assert np.array_equal(grids[0], move(grids[1])), turn
    assert len(files(tmp_path / "shared" / "stages")) == 1


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize(("vision", "text"), [(name, "bert") for name in VISION] + [("swin", name) for name in TEXT])
def test_the_example_is_as_large_as_an_entry(tmp_path, vision, text, dtype):
    """Every family of towers, without running one."""
    made, batch = network(vision=vision, text=text), tiny_batch(2, length=9)
    cache = FeatureCache(tmp_path / "real", made.runner, dtype)
    cache.encode(batch)
    examples = FeatureCache(tmp_path / "example", made.runner, dtype)
    made.vision.begin = made.text.begin = None
    examples.stages.put(digest(), examples.image_example())
    for length in (9, 6):
        examples.words.put(digest(length=length), examples.words_example(length))
    for kind in ("stages", "words"):
        real, example = files(tmp_path / "real" / kind), files(tmp_path / "example" / kind)
        assert {len(content) for content in real.values()} == {len(content) for content in example.values()}, kind


def test_swin_base_takes_seven_megabytes_an_image():
    """Four stages of 128 to 1024 channels at a 4th to a 32nd of 480 pixels, two bytes each."""
    steps = [
        Step("vision", 2 * stage + block, stage, 128 * 2**stage, block == 1, grid=(120 // 2**stage,) * 2)
        for stage in range(4)
        for block in range(2)
    ]
    shapes = stage_shapes(SimpleNamespace(steps=steps, takes_tokens=False))
    assert shapes == [(120, 120, 128), (60, 60, 256), (30, 30, 512), (15, 15, 1024)]
    assert 2 * sum(int(np.prod(shape)) for shape in shapes) == 6_912_000
    plain = [Step("vision", stage, stage, 768, True, grid=(30, 30), prefix=5) for stage in range(4)]
    assert stage_shapes(SimpleNamespace(steps=plain, takes_tokens=True)) == [(905, 768)] * 4


def test_keys(monkeypatch, tmp_path):
    def keys(made=None, dtype="fp32", device="cpu", image="a", words=(2, 7, 3)):
        cache = FeatureCache(tmp_path, (made or network()).runner, dtype)
        return cache.image_entry(image, device), cache.words_entry(words, device)

    same_again = keys()
    assert keys() == same_again, "another object of the same weights"
    assert keys(words=[2, 7, 3]) == same_again
    both = [keys(dtype="bf16"), keys(device="cuda")]
    torch.set_float32_matmul_precision("high")
    both.append(keys())
    torch.set_float32_matmul_precision("highest")
    for library in ("timm", "transformers"):
        with monkeypatch.context() as patch:
            patch.setattr(f"s4eca.features.{library}.__version__", "0")
            both.append(keys())
    for found in both:
        assert not set(found) & set(same_again)
    assert len({found for pair in both for found in pair}) == 2 * len(both)
    image, words = same_again
    assert keys(image="b")[0] != image
    assert keys(image="b")[1] == words
    assert keys(words=[2, 7])[1] != words
    assert keys(words=[2, 7])[0] == image


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_a_tower_that_computes_something_else_has_other_keys(tmp_path, kind):
    """Weights, constants beside them, and settings that no weight shows."""

    def keys(change) -> dict[str, str]:
        made = network()
        change(getattr(made, kind))
        cache = FeatureCache(tmp_path, made.runner, "fp32")
        return {"vision": cache.image_entry("a", "cpu"), "text": cache.words_entry([2, 3], "cpu")}

    def weights(tower):
        tower.base = type(tower.base)(tower.base.name, tower.base.source, "another")

    def constants(tower):
        tower.register_buffer("mean", torch.ones(1, 3, 1, 1), persistent=False)

    def heads(tower):
        block = tower.block(0)
        attention = block.attn if kind == "vision" else block.attention.self
        name = "num_heads" if kind == "vision" else "num_attention_heads"
        setattr(attention, name, getattr(attention, name) * 2)

    def epsilon(tower):
        next(part for part in tower.modules() if isinstance(part, torch.nn.LayerNorm)).eps = 1e-3

    before = keys(lambda tower: None)
    other = "text" if kind == "vision" else "vision"
    found = [keys(change) for change in (weights, constants, heads, epsilon)]
    assert len({entry[kind] for entry in [before, *found]}) == 5
    assert {entry[other] for entry in found} == {before[other]}
    moved = keys(lambda tower: setattr(tower.model, "name_or_path", "/elsewhere"))
    assert moved == before, "where the weights lay is no part of it"


def test_the_layers_that_a_method_reads_are_in_the_key_of_words(tmp_path):
    networks = [tiny_segmenter(Mean(layers), placement="side") for layers in ([0, 2], [1, 2])]
    caches = [FeatureCache(tmp_path, made.runner) for made in networks]
    assert caches[0].layers == [0, 2, 3]
    assert caches[0].image_entry("a", "cpu") == caches[1].image_entry("a", "cpu")
    assert caches[0].words_entry([2, 3], "cpu") != caches[1].words_entry([2, 3], "cpu")


def test_settings_that_cannot_be(tmp_path):
    inside = tiny_segmenter(Frozen(), FiLM)
    with pytest.raises(S4ecaError, match=r"placement=inside it changes.*set model\.segmenter\.placement=side or"):
        open_features(tmp_path, inside.runner)
    assert open_features(None, inside.runner) is None
    for folder in (tmp_path, None):
        with pytest.raises(S4ecaError, match=r"model\.feature_dtype=fp16 is none of bf16, fp32"):
            open_features(folder, network().runner, "fp16")


def test_a_damaged_entry_is_made_again(tmp_path):
    made, batch = network(), tiny_batch(1)
    cache = FeatureCache(tmp_path, made.runner, "fp32")
    before = cache.encode(batch)
    whole = files(tmp_path)
    path = next((tmp_path / "stages").rglob("*.cached"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        after = cache.encode(batch)
    assert all(torch.equal(a, b) for a, b in zip(before.stages, after.stages, strict=True))
    assert files(tmp_path) == whole


def test_a_disk_that_fills_up_later_only_warns(tmp_path, monkeypatch):
    made, batch = network(), tiny_batch()
    (tmp_path / "cache").write_text("no folder")
    cache = FeatureCache(tmp_path / "cache", made.runner, "fp32")
    with pytest.warns(UserWarning, match=r"cannot be written.*model\.feature_cache"):
        encoded = cache.encode(batch)
    wanted = alone(made, batch)
    assert all(torch.equal(a, b) for a, b in zip(encoded.stages, wanted.stages, strict=True))


def test_two_runs_share_a_folder(tmp_path):
    made, batch = network(), tiny_batch()
    wanted = FeatureCache(tmp_path, made.runner).encode(batch)
    other = network()
    seen = counted(other.vision)
    found = FeatureCache(tmp_path, other.runner).encode(batch)
    assert seen["samples"] == 0
    assert all(torch.equal(a, b) for a, b in zip(found.stages, wanted.stages, strict=True))
