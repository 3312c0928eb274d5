"""A comparison's learning rates from the search to the table, as a user would."""

import json

import pytest
from omegaconf import OmegaConf

from runs import TINY, s4eca, train

pytestmark = pytest.mark.system
SMALL = [
    *(item for item in TINY[1:] if not item.startswith("tuning.")),
    *("budget=null", "data.train=8", "data.val=3", "data.test=3", "data.scene_size=64", "data.batch_size=4"),
    *("trainer.max_steps=2", "trainer.val_check_interval=2", "data.cache=null", "comparison=lora"),
]


def test_rates_are_tried_chosen_used_and_shown(tmp_path):
    rates = ["1.0e-9", "0.01", "1.0"]
    search = ["-m", "experiment=pet_rates_demo", f"model.lr={','.join(rates)}", "hydra.sweep.dir=search"]
    train(*search, *SMALL, cwd=tmp_path)
    assert not list(tmp_path.glob("search/*/eval")), "nothing is evaluated on test"
    ended = [next(tmp_path.glob(f"search/lora_{float(rate)}_0_*/ended.json")) for rate in rates]
    scores = [json.loads(file.read_text())["best"] for file in ended]
    assert "rates.yaml" in s4eca("rates", "search", "--out", "rates.yaml", cwd=tmp_path)
    chosen = OmegaConf.load(tmp_path / "rates.yaml").lora
    assert chosen.lr == float(rates[scores.index(max(scores))])
    assert list(chosen.val.values()) == [round(score, 4) for score in scores]
    compare = ["-m", "experiment=pet_comparison_demo", "seed=1", "lr_from=rates.yaml", "hydra.sweep.dir=compared"]
    train(*compare, *SMALL, cwd=tmp_path)
    config = OmegaConf.load(next(tmp_path.glob("compared/lora_1_*/config.yaml")))
    assert config.model.lr == config.lr_choice.lr == chosen.lr
    table = s4eca("table", "compared", "--published", "none", cwd=tmp_path)
    assert "Learning rate (lr) chosen from 1e-09, 0.01, 1 by val/mIoU, 2 steps, seed 0: lora." in table
    assert f"{chosen.lr:g}" in next(line for line in table.splitlines() if "**lora**" in line)
