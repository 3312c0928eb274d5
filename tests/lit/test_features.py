"""Training on features kept on disk: planned before it, towers at rest after the first epoch, the same bits again."""

import re
import shutil
from collections import Counter, namedtuple
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from s4eca.cache import readable
from s4eca.data import dataset as dataset_module
from s4eca.data.augmentation.transforms import Augmentation
from s4eca.decoders.fpn import FPNDecoder
from s4eca.errors import S4ecaError
from s4eca.features import plan_features
from s4eca.fusion.film import FiLM
from s4eca.lit import ReferringModule
from s4eca.losses import BCEDice
from s4eca.segmenter import ReferringSegmenter
from s4eca.tuning import Frozen
from tiny import tiny_text, tiny_vision
from toy import RandomState, every_step, fit, toy_data, toy_trainer

Usage = namedtuple("Usage", "total used free")


def side_module(cache=None, seed=0, placement="side", **options) -> ReferringModule:
    torch.manual_seed(seed)
    decoder = partial(FPNDecoder, width=8)
    network = ReferringSegmenter(tiny_text(), tiny_vision(), Frozen(), decoder, FiLM, placement=placement)
    return ReferringModule(network, BCEDice(), lr=3e-3, warmup_steps=2, feature_cache=cache, **options)


def train(module, data, trainer, resume=None) -> None:
    plan_features(module.features, data, trainer)
    fit(module, data, trainer, resume)


def contents(data, *splits) -> tuple[set, set]:
    rows = [row for split in splits for row in data.references(split)]
    return {row.image.read_bytes() for row in rows}, {row.expression for row in rows}


def entries(folder, kind) -> list:
    return sorted((folder / kind).rglob("*.cached"))


def state(module) -> dict:
    return {name: value.clone() for name, value in module.segmenter.learned_state().items()}


def differing(one, other) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_from_the_second_epoch_on_the_towers_are_not_run(tmp_path):
    data, module = toy_data(tmp_path / "data"), side_module(tmp_path / "cache")
    steps = Counter()
    epochs = []
    for tower in (module.segmenter.text, module.segmenter.vision):

        def spy(index, state, tap, tower=tower, original=tower.step):
            steps[tower.kind] += len(state.hidden)
            return original(index, state, tap)

        tower.step = spy
    module.on_train_epoch_start = lambda: epochs.append(Counter(steps))
    train(module, data, toy_trainer(tmp_path, max_epochs=3))
    images, expressions = contents(data, "train", "val")
    # 24 training samples in whole batches of 4, so that an epoch has seen all of them and the validation split
    assert epochs[1] == {"vision": 9 * len(images), "text": 4 * len(expressions)}
    assert epochs[2] == epochs[1] == steps
    assert len(entries(tmp_path / "cache", "stages")) == len(images)
    assert len(entries(tmp_path / "cache", "words")) == len(expressions)


def test_what_is_planned_is_what_is_written(tmp_path, capsys):
    data, module = toy_data(tmp_path / "data"), side_module(tmp_path / "cache")
    images, expressions = contents(data, "train", "val")
    tokens = {len(data.tokenizer(text).input_ids) for text in expressions}
    plan_features(module.features, data, toy_trainer(tmp_path))
    before = capsys.readouterr().out
    # stages of 16, 8, 4 and 2 places a side with 16 to 128 channels; 32 channels a word; two bytes each
    image = 2 * (256 * 16 + 64 * 32 + 16 * 64 + 4 * 128)
    words = sum(2 * 32 * len(data.tokenizer(text).input_ids) for text in expressions)
    found = re.fullmatch(
        rf"feature cache {tmp_path / 'cache'}: {len(images)} images, {readable(len(images) * image)}, 0 there already; "
        rf"{len(expressions)} expressions of up to {max(tokens)} tokens, {readable(words)}, 0 there already; "
        r"the others will take (.*), .* are free\n",
        before,
    )
    assert found, before
    fit(module, data, toy_trainer(tmp_path, max_epochs=1))
    files = [path for kind in ("stages", "words") for path in entries(tmp_path / "cache", kind)]
    blocks = sum(-(-path.stat().st_size // 4096) * 4096 for path in files)
    assert found[1] == readable(blocks)
    capsys.readouterr()
    plan_features(module.features, data, toy_trainer(tmp_path))
    after = capsys.readouterr().out
    assert f"{readable(len(images) * image)}, {len(images)} there already" in after
    assert after.endswith(f"{len(expressions)} there already\n")
    data.keyed = ()
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    plan_features(module.features, data, SimpleNamespace(precision="32-true", global_rank=1, strategy=strategy))
    assert capsys.readouterr().out == "", "one process speaks"
    assert data.keyed == ("train", "val")


def test_in_fp32_training_ends_with_the_same_bits_whatever_was_there(tmp_path):
    """Cold, warm, filled by a run with other batches, and resumed in the middle with a cold or a warm cache."""
    learned, few = [], partial(toy_data, tmp_path / "data", train=12, val=3)
    for cache, size in (("one", 4), ("one", 4), ("two", 3), ("two", 4)):
        module = side_module(tmp_path / cache, feature_dtype="fp32")
        data = few(batch_size=size)
        folder = tmp_path / f"run{len(learned)}"
        train(module, data, toy_trainer(folder, every_step(folder, 4), RandomState()))
        learned.append(state(module))
    assert differing(learned[0], learned[2])
    assert differing(learned[0], learned[1]) == differing(learned[0], learned[3]) == []
    for cache in ("one", "three"):
        again = side_module(tmp_path / cache, seed=9, feature_dtype="fp32")
        trainer = toy_trainer(tmp_path / f"again_{cache}", RandomState())
        train(again, few(), trainer, tmp_path / "run0" / "checkpoints" / "step=4.ckpt")
        assert differing(learned[0], state(again)) == []


@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_training_with_a_cache_is_training_without_one(tmp_path, dtype, bound):
    losses: list[list[float]] = []
    for cache in (None, tmp_path / "cache"):
        module, data = side_module(cache, feature_dtype=dtype), toy_data(tmp_path / "data", train=12)
        seen: list[float] = []
        original = module.training_step
        module.training_step = lambda *batch, o=original, s=seen: s.append(float(loss := o(*batch))) or loss
        train(module, data, toy_trainer(tmp_path / str(cache is None)))
        losses.append(seen)
    assert len(losses[0]) == 6
    assert abs(losses[0][0] / losses[0][3] - 1) > bound, "it learns more than the bound"
    assert losses[1] == pytest.approx(losses[0], rel=bound)
    if dtype == "bf16":
        assert losses[1] != losses[0]


def test_under_autocast_the_cache_holds_the_same(tmp_path):
    found = []
    for precision in ("32-true", "bf16-mixed"):
        module, data = side_module(tmp_path / precision, feature_dtype="fp32"), toy_data(tmp_path / "data", train=4)
        train(module, data, toy_trainer(tmp_path, max_epochs=1, precision=precision))
        files = [path for kind in ("stages", "words") for path in entries(tmp_path / precision, kind)]
        found.append({path.name: path.read_bytes() for path in files})
    assert len(found[0]) == sum(map(len, contents(data, "train", "val")))
    assert found[0] == found[1]


def test_evaluation_takes_the_towers(tmp_path):
    """Its samples carry no keys, whatever the checkpoint's config says."""
    data, module = toy_data(tmp_path / "data"), side_module(tmp_path / "cache")
    toy_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert not (tmp_path / "cache").exists()
    plan_features(module.features, data, toy_trainer(tmp_path))
    toy_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert not list((tmp_path / "cache").rglob("*.cached")), "the test split is not cached after a training either"


def test_turned_features_are_kept_once_per_image_and_every_wording_is_planned(tmp_path):
    data = toy_data(tmp_path / "data", augmentation=Augmentation(horizontal_flip=0.5, turn_features=True))
    module = side_module(tmp_path / "cache")
    images, _ = contents(data, "train", "val")
    wordings = {row.expression for row in data.references("val")}
    for row in data.references("train"):
        wordings |= {row.expression, row.expression.replace("left", "RIGHT").replace("right", "left").lower()}
    train(module, data, toy_trainer(tmp_path, max_epochs=6))
    assert len(entries(tmp_path / "cache", "stages")) == len(images)
    kept = len(entries(tmp_path / "cache", "words"))
    assert len(contents(data, "train", "val")[1]) < kept <= len(wordings)


def test_without_a_cache_no_file_is_hashed(tmp_path, monkeypatch):
    data, module = toy_data(tmp_path / "data"), side_module()
    monkeypatch.setattr(dataset_module, "content_hash", None)
    train(module, data, toy_trainer(tmp_path, max_epochs=1))
    assert data.keyed == ()


def test_what_does_not_go_together_is_refused_before_training(tmp_path):
    with pytest.raises(S4ecaError, match=r"model\.feature_cache keeps what frozen towers give, and .*placement=inside"):
        side_module(tmp_path / "cache", placement="inside")
    with pytest.raises(S4ecaError, match=r"model\.feature_dtype=half is none of bf16, fp32"):
        side_module(feature_dtype="half")
    features, trainer = side_module(tmp_path / "cache").features, toy_trainer(tmp_path)
    data = toy_data(tmp_path / "data", augmentation=Augmentation(noise=0.1))
    with pytest.raises(S4ecaError, match=r"one set of features per image.*augmentation=none or model\.feature_cache=n"):
        plan_features(features, data, trainer)
    turning = Augmentation(horizontal_flip=0.5, turn_features=True)
    data.augmentation = turning
    with pytest.raises(S4ecaError, match=r"turn_features=true turns kept features; name a folder with"):
        plan_features(None, data, trainer)
    data.augmentation = Augmentation()  # nothing of it is on
    plan_features(features, data, trainer)
    with pytest.raises(S4ecaError, match=r"towers in fp32, and trainer\.precision=bf16-true casts them"):
        plan_features(features, data, toy_trainer(tmp_path, precision="bf16-true"))
    data.tokenizer.padding_side = "left"
    with pytest.raises(S4ecaError, match=r"this tokenizer pads in front of them"):
        plan_features(features, data, trainer)
    assert not list((tmp_path / "cache").rglob("*.cached"))


@pytest.mark.parametrize(("share", "message"), [(0.5, r"30 more entries"), (0.95, r"The feature cache in .* needs")])
def test_a_disk_that_is_too_small_is_an_error_before_training(tmp_path, monkeypatch, capsys, share, message):
    """Also where images alone and expressions alone would fit."""
    data, features = toy_data(tmp_path / "data"), side_module(tmp_path / "cache").features
    images, expressions = (len(found) for found in contents(data, "train", "val"))
    assert images == 30
    # 15 KiB of stages and a header are four blocks, an expression is one
    needed = (4 * images + expressions) * 4096
    assert 0.95 * needed > 4 * images * 4096 - 4096
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, int(share * needed)))
    with pytest.raises(S4ecaError, match=message + r".*model\.feature_cache=null"):
        plan_features(features, data, toy_trainer(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, needed))
    plan_features(features, data, toy_trainer(tmp_path))
    assert "30 images" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_later_costs_time_not_the_run(tmp_path):
    data, module = toy_data(tmp_path / "data"), side_module(tmp_path / "cache")
    trainer = toy_trainer(tmp_path, max_epochs=1)
    plan_features(module.features, data, trainer)
    for kind in ("stages", "words"):
        shutil.rmtree(tmp_path / "cache" / kind, ignore_errors=True)
        (tmp_path / "cache" / kind).write_text("in the way")
    with pytest.warns(UserWarning, match=r"cannot be written.*model\.feature_cache"):
        fit(module, data, trainer)
    assert trainer.global_step == 6
