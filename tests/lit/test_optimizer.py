import pytest
import torch
from transformers import Trainer

from s4eca.errors import S4ecaError
from s4eca.fusion.pwam import PWAM
from s4eca.lit.optimizer import parameter_groups
from s4eca.tuning import FullFineTuning
from tiny import tiny_segmenter
from toy import RandomState, every_step, fit, toy_data, toy_module, toy_trainer
from tuning.methods import METHODS

CLIPPED = {"gradient_clip_val": 1.0, "limit_val_batches": 0}


def learned(module):
    return {name: value.clone() for name, value in module.segmenter.learned_state().items()}


def test_norms_biases_and_queries_do_not_decay():
    network = toy_module().segmenter
    decays, stays = parameter_groups(network, 0.05)
    assert (decays["weight_decay"], stays["weight_decay"]) == (0.05, 0.0)
    ids = {id(p) for p in decays["params"]}
    names = {name: id(p) in ids for name, p in network.named_parameters() if p.requires_grad}
    assert len(decays["params"]) + len(stays["params"]) == len(names)
    assert names["method.visual_adapters.8.down.weight"]
    for name in ("method.text_adapters.1.queries", "norms.0.weight", "method.visual_adapters.8.down.bias"):
        assert not names[name], name


def undecayed(network) -> set[str]:
    """Names of the tower weights that do not decay, vectors aside."""
    _, stays = parameter_groups(network, 0.05)
    ids = {id(parameter) for parameter in stays["params"]}
    learned = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert all(id(p) in ids for p in learned.values() if p.ndim <= 1), "norms and biases"
    towers = ("vision.model.", "text.model.")
    return {name for name, p in learned.items() if id(p) in ids and p.ndim > 1 and name.startswith(towers)}


BLOCKS = [f"layers.{stage}.blocks.{block}" for stage, depth in enumerate((2, 2, 3, 2)) for block in range(depth)]
# by timm's sources; ConvNeXt has no such method
EXCLUDED = {
    "vit": ["pos_embed", "cls_token", "reg_token"],
    "dinov3": ["cls_token", "reg_token"],
    "swin": [f"{block}.attn.relative_position_bias_table" for block in BLOCKS],
    "swinv2": [
        f"{block}.attn.{name}" for block in BLOCKS for name in ("logit_scale", "cpb_mlp.0.weight", "cpb_mlp.2.weight")
    ],
    "convnext": [],
}


@pytest.mark.parametrize("family", EXCLUDED)
def test_full_fine_tuning_decays_what_timm_decays(family):
    network = tiny_segmenter(FullFineTuning(), PWAM, family)
    assert undecayed(network) == {f"vision.model.{name}" for name in EXCLUDED[family]}
    # frozen stages are not optimised at all
    late = tiny_segmenter(FullFineTuning(), PWAM, family, start_stage=4)
    assert undecayed(late) == {f"vision.model.{name}" for name in EXCLUDED[family] if name.startswith("layers.3.")}


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "clip"])
def test_full_fine_tuning_decays_what_transformers_decays(family):
    network = tiny_segmenter(FullFineTuning(), PWAM, text=family)
    model = network.text.model
    decays = {id(p) for p in parameter_groups(network, 0.05)[0]["params"]}
    found = {name for name, parameter in model.named_parameters() if id(parameter) in decays}
    assert found == set(Trainer.get_decay_parameter_names(None, model))
    assert any("position" in name for name in found), "embeddings decay"


@pytest.mark.parametrize("name", ["full_lavt", "bitfit", "norm", "lora_all", "prompt", "cola"])
@pytest.mark.parametrize("family", ["vit", "swinv2"])
def test_no_method_decays_what_timm_does_not(name, family):
    case = METHODS[name]
    network = tiny_segmenter((case.others or {}).get(family, case.method)(), case.fusion, family)
    decays = {id(p) for p in parameter_groups(network, 0.05)[0]["params"]}
    listed = network.vision.model.no_weight_decay()
    names = [item for item, parameter in network.vision.model.named_parameters() if id(parameter) in decays]
    assert not [item for item in names if item in listed or item.endswith(".bias")]


def test_a_checkpoint_whose_optimiser_decays_other_weights_is_refused(tmp_path):
    module = toy_module()
    trainer = toy_trainer(tmp_path, max_steps=1)
    fit(module, toy_data(tmp_path / "data"), trainer)
    trainer.save_checkpoint(tmp_path / "old.ckpt")
    stored = torch.load(tmp_path / "old.ckpt", weights_only=True)
    decays, stays = stored["optimizer_states"][0]["param_groups"]
    decays["params"].append(stays["params"].pop())
    torch.save(stored, tmp_path / "old.ckpt")
    again = toy_trainer(tmp_path / "again", max_steps=2)
    with pytest.raises(S4ecaError, match=r"tensors decay and here .*init_from=CKPT"):
        fit(toy_module(), toy_data(tmp_path / "data"), again, tmp_path / "old.ckpt")


def test_a_fused_optimiser_is_a_plain_one_to_rounding(tmp_path):
    """Twenty steps with clipping: apart by less than 1e-4 of the way that all weights together went (1e-5 seen)."""
    found = {}
    for fused in (False, True):
        module = toy_module(fused_optimizer=fused)
        start = learned(module)
        trainer = toy_trainer(tmp_path / str(fused), max_steps=20, max_epochs=-1, **CLIPPED)
        fit(module, toy_data(tmp_path / "data"), trainer)
        assert all(bool(group["fused"]) == fused for group in trainer.optimizers[0].param_groups)
        found[fused] = learned(module)
    moved = torch.cat([(found[False][name] - start[name]).flatten() for name in start])
    apart = torch.cat([(found[True][name] - found[False][name]).flatten() for name in start])
    assert moved.norm() > 1
    assert 0 < apart.norm() < 1e-4 * moved.norm()
    assert apart.abs().max() < 1e-4


def test_only_what_is_learned_is_optimised(tmp_path):
    module = toy_module()
    trainer = toy_trainer(tmp_path, max_steps=1)
    fit(module, toy_data(tmp_path / "data"), trainer)
    held = {id(parameter) for parameter in trainer.optimizers[0].state}
    assert held == {id(parameter) for parameter in module.segmenter.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_is_lightnings(tmp_path, fused, algorithm):
    """Against torch's own functions on a copy of the gradients; Lightning refuses a fused optimiser with bf16-mixed."""
    module = toy_module(fused_optimizer=fused)
    original, seen = module.configure_gradient_clipping, []

    def compare(optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        parameters = [p for p in module.segmenter.parameters() if p.grad is not None]
        copies = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
        for copy, parameter in zip(copies, parameters, strict=True):
            copy.grad = parameter.grad.clone()
        before = torch.cat([copy.grad.flatten() for copy in copies])
        if algorithm == "norm":
            torch.nn.utils.clip_grad_norm_(copies, 1e-3)
        else:
            torch.nn.utils.clip_grad_value_(copies, 1e-3)
        original(optimizer, gradient_clip_val, gradient_clip_algorithm)
        seen.append(not torch.equal(before, torch.cat([copy.grad.flatten() for copy in copies])))
        for copy, parameter in zip(copies, parameters, strict=True):
            torch.testing.assert_close(parameter.grad, copy.grad, rtol=1e-5, atol=0)

    module.configure_gradient_clipping = compare
    trainer = toy_trainer(
        tmp_path, max_steps=1, precision="bf16-mixed", gradient_clip_val=1e-3, gradient_clip_algorithm=algorithm
    )
    fit(module, toy_data(tmp_path / "data"), trainer)
    assert seen == [True]


@pytest.mark.parametrize("fused", [True, False])
def test_a_resumed_run_takes_the_kernel_of_its_config(tmp_path, fused):
    data = toy_data(tmp_path / "data")
    fit(toy_module(fused_optimizer=not fused), data, toy_trainer(tmp_path, every_step(tmp_path), max_steps=2))
    module = toy_module(fused_optimizer=fused)
    trainer = toy_trainer(tmp_path / "resumed", RandomState(), max_steps=3)
    fit(module, data, trainer, tmp_path / "checkpoints" / "step=2.ckpt")
    assert [bool(group["fused"]) for group in trainer.optimizers[0].param_groups] == [fused, fused]
    assert {float(state["step"]) for state in trainer.optimizers[0].state.values()} == {3.0}


def test_a_resumed_run_takes_the_rate_and_the_decay_of_its_config(tmp_path):
    data = toy_data(tmp_path / "data")
    fit(toy_module(lr=4e-3), data, toy_trainer(tmp_path, every_step(tmp_path), max_steps=2))
    found = []
    for lr in (4e-3, 1e-3):
        trainer = toy_trainer(tmp_path / str(lr), RandomState(), max_steps=3)
        fit(toy_module(lr=lr, weight_decay=0.5), data, trainer, tmp_path / "checkpoints" / "step=2.ckpt")
        groups = trainer.optimizers[0].param_groups
        assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
        found.append(groups[0]["lr"])
    assert found[1] == pytest.approx(found[0] / 4, rel=1e-9)


def test_16_mixed_wants_a_plain_optimiser(tmp_path):
    from lightning import Trainer
    from lightning.pytorch.plugins.precision import MixedPrecision

    plugin = MixedPrecision("16-mixed", "cpu")
    trainer = Trainer(accelerator="cpu", max_steps=1, plugins=[plugin], logger=False, default_root_dir=tmp_path)
    with pytest.raises(S4ecaError, match=r"16-mixed scales gradients.*set model\.fused_optimizer=false"):
        fit(toy_module(), toy_data(tmp_path / "data"), trainer)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("lr", 0.0), ("lr", -1e-4), ("lr", float("nan")), ("lr", "fast"), ("weight_decay", -0.1)),
        *(("warmup_steps", -1), ("warmup_steps", 2.5), ("warmup_steps", True), ("poly_power", -1.0)),
        *(("max_skipped_steps", -1), ("max_skipped_steps", 1.5), ("max_skipped_steps", None)),
    ],
)
def test_bad_settings_are_named(setting, value):
    with pytest.raises(S4ecaError, match=rf"model\.{setting}={value} is no"):
        toy_module(**{setting: value})
