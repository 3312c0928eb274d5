import pytest

from s4eca.errors import S4ecaError
from toy import fit, toy_data, toy_module, toy_trainer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_check_interval": 7}, r"val_check_interval=7 is more than the 6 batches of an epoch: set .*=null"),
        ({"val_check_interval": 3, "limit_train_batches": 2}, "more than the 2 batches"),
        ({"val_check_interval": 3, "limit_train_batches": 0.4}, "more than the 2 batches"),
        ({"val_check_interval": 0}, "val_check_interval=0 is no interval"),
        ({"val_check_interval": 1.0, "check_val_every_n_epoch": None}, "`val_check_interval` should be an integer"),
        ({"log_every_n_steps": -1}, "log_every_n_steps=-1 is no interval"),
    ],
)
def test_bad_intervals_are_named_before_a_step(tmp_path, options, message):
    with pytest.raises(S4ecaError, match=message):
        fit(toy_module(), toy_data(tmp_path / "data"), toy_trainer(tmp_path, **options))


def test_validation_over_epochs_may_have_any_interval(tmp_path):
    options = {"val_check_interval": 7, "check_val_every_n_epoch": None, "max_epochs": -1, "max_steps": 7}
    module = toy_module()
    trainer = toy_trainer(tmp_path, **options, log_every_n_steps=0)
    fit(module, toy_data(tmp_path / "data"), trainer)
    assert module.scores["lavt"]["n"] == 6
