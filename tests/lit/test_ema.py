import pytest
import torch

from s4eca.checkpoint import load_learned, read_checkpoint
from s4eca.errors import S4ecaError
from s4eca.lit import EMA
from toy import RandomState, every_step, fit, toy_data, toy_module, toy_trainer

DECAY = 0.8


def test_averages_what_is_learned_and_validates_with_it(tmp_path):
    data = toy_data(tmp_path / "data")
    module, ema = toy_module(), EMA(DECAY)
    name = next(key for key in module.segmenter.learned_state() if key.startswith("decoder."))
    history = [module.segmenter.state_dict()[name].clone()]
    module.on_train_batch_end = lambda *_: history.append(module.segmenter.state_dict()[name].clone())
    validated = []
    module.on_validation_epoch_start = lambda: validated.append(module.segmenter.state_dict()[name].clone())
    fit(module, data, toy_trainer(tmp_path, ema, every_step(tmp_path, 6)))
    average = history[0]
    averages = []
    for raw in history[1:]:
        average = DECAY * average + (1 - DECAY) * raw
        averages.append(average)
    torch.testing.assert_close(validated[0], averages[5])
    torch.testing.assert_close(validated[1], averages[11])
    torch.testing.assert_close(module.segmenter.state_dict()[name], averages[11])
    assert set(ema.shadow) == set(module.segmenter.learned_state())
    stored = torch.load(tmp_path / "checkpoints" / "step=6.ckpt", weights_only=True)
    torch.testing.assert_close(stored["state_dict"]["segmenter." + name], averages[5])
    assert torch.equal(stored["raw_state_dict"]["segmenter." + name], history[6])
    other = toy_module(seed=4)
    load_learned(other.segmenter, read_checkpoint(tmp_path / "checkpoints" / "step=6.ckpt"))
    torch.testing.assert_close(other.segmenter.state_dict()[name], averages[5])


def test_resumes_exactly(tmp_path):
    data = toy_data(tmp_path / "data")
    module = toy_module()
    fit(module, data, toy_trainer(tmp_path, EMA(DECAY), every_step(tmp_path), RandomState()))
    wanted = module.segmenter.state_dict()
    for step in (3, 6, 8):
        again = toy_module(seed=7)
        trainer = toy_trainer(tmp_path / f"again_{step}", EMA(DECAY), RandomState())
        fit(again, toy_data(tmp_path / "data"), trainer, resume=tmp_path / "checkpoints" / f"step={step}.ckpt")
        got = again.segmenter.state_dict()
        assert [name for name in wanted if not torch.equal(got[name], wanted[name])] == [], step


def test_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(S4ecaError, match=r"callbacks\.ema\.decay=1\.0"):
        EMA(1.0)
    data = toy_data(tmp_path / "data")
    fit(toy_module(), data, toy_trainer(tmp_path, every_step(tmp_path, 6)))
    with pytest.raises(S4ecaError, match="written without EMA"):
        fit(toy_module(), data, toy_trainer(tmp_path, EMA()), resume=tmp_path / "checkpoints" / "step=6.ckpt")
