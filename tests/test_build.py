import pytest

from s4eca.build import build_callbacks, build_loggers, instantiate
from s4eca.errors import S4ecaError
from s4eca.losses import BCEDice


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "torch.load"},
        {"_target_": "s4ecax.losses.BCEDice"},
        {"_target_": "s4eca.checkpoint.torch.load", "f": "evil.pt", "weights_only": False},
        {"_target_": "s4eca.data.readers.rrsis_d.Path.write_text", "data": "x"},
        {"_target_": "s4eca.data.readers.rrsis_d.Path"},
        {"_target_": "s4eca.losses.Missing"},
        {"_target_": "s4eca.losses.BCEDice", "bce_weight": {"_target_": "subprocess.run"}},
        {"_target_": "s4eca.losses.CEDice", "weight": [{"_target_": "builtins.eval"}]},
    ],
)
def test_only_parts_of_s4eca_can_be_built(node):
    with pytest.raises(S4ecaError, match="only parts of s4eca may be built"):
        instantiate(node, "loss")


def test_builds_and_names_what_does_not_fit():
    loss = instantiate({"_target_": "s4eca.losses.BCEDice", "bce_weight": 2.0}, "loss")
    assert isinstance(loss, BCEDice)
    with pytest.raises(S4ecaError, match=r"config under loss does not fit s4eca\.losses\.BCEDice: .*surprise"):
        instantiate({"_target_": "s4eca.losses.BCEDice", "surprise": 1}, "loss")


def test_the_sentence_of_a_part_comes_through():
    nested = {
        "_target_": "s4eca.tuning.S4ECA",
        "visual": {"_target_": "s4eca.tuning.s4eca.VisualSettings", "kernels": [2, 4]},
    }
    with pytest.raises(S4ecaError, match=r"^tuning\.visual\.kernels=\[2, 4\] must be odd"):
        instantiate(nested, "tuning")


def test_selecting_on_test_is_an_error(tmp_path):
    node = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "monitor": "test/mIoU"}
    with pytest.raises(S4ecaError, match=r"callbacks\.best\.monitor=test/mIoU selects on the test split"):
        build_callbacks({"callbacks": {"best": node}}, tmp_path)


def test_checkpoints_go_to_the_run_folder_and_null_leaves_a_callback_out(tmp_path):
    node = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint"}
    (callback,) = build_callbacks({"callbacks": {"last": node, "ema": None}}, tmp_path)
    assert callback.dirpath == str(tmp_path / "checkpoints")


def test_a_config_without_loggers_builds_none(tmp_path):
    assert build_loggers({"logger": {}}, tmp_path) == []


def test_a_missing_wandb_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(S4ecaError, match=r"logger=wandb needs a package that is missing; pip install 's4eca\[wandb\]'"):
        build_loggers({"logger": {"wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger"}}}, tmp_path)
