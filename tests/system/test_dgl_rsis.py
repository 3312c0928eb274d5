"""The training-free method on small real aerial data, end to end with tiny random models: everything but the scores."""

import json

import numpy as np
import pytest
from PIL import Image

from runs import SAMPLES, evaluate_here
from s4eca.cli.main import app

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"the sample data in {SAMPLES} is not here"),
]

# masks of a quarter of the resolution, for time
QUICK = ["model=dgl_rsis_tiny", "proposer=felzenszwalb", "proposer.max_side=200", "proposer.limit=20"]
QUICK += ["data.num_workers=0", "trainer.accelerator=cpu", "bootstrap=50"]


def test_expressions_of_rrsis_d(tmp_path):
    evaluate_here(
        *QUICK,
        "data=rrsis_d",
        f"data.root={SAMPLES / 'rrsisd_mini'}",
        "image_size=400",
        f"out={tmp_path}",
        "pictures=1",
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["protocols"]["lavt"]["n"] == 9
    assert metrics["protocols"]["lavt"]["n_empty"] == 1
    about = metrics["about"]
    assert about["proposals_per_image"] == 20
    # every noun of the expressions is a class of the knowledge
    assert about["fallbacks"] == "none" or "no known noun" not in about["fallbacks"]
    scores = metrics["protocols"]["lavt"]
    assert scores["mIoU"] * 9 <= about["proposal_recall"]["mean_best_IoU"] * 8 + 1e-6, (
        "the ceiling, over those with a truth"
    )
    steps = sorted((tmp_path / "pictures").glob("*_steps.png"))
    assert len(steps) == 3
    tiles = np.asarray(Image.open(steps[0]))
    assert tiles.shape[1] == 3 * (400 + 8) + 8
    assert tiles[100:300, 100:300].std() > 10, "a photograph lies under the proposals"
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_several_instances_of_refsegrs(tmp_path):
    given = ["data=refsegrs", f"data.root={SAMPLES / 'refsegrs_mini'}", "image_size=256", "selector.mode=union"]
    evaluate_here(*QUICK, *given, f"out={tmp_path}", "pictures=0", "selector.union_ratio=0.3")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["protocols"]["original"]["n"] == 3


def test_classes_of_isaid(tmp_path):
    from typer.testing import CliRunner

    patches = tmp_path / "patches"
    done = CliRunner().invoke(app, ["data", "patches", str(SAMPLES / "isaid_mini"), str(patches), "--split", "val"])
    assert done.exit_code == 0, done.output
    given = ["data=isaid", f"data.root={patches}", "split=val", "data.limit=2", f"out={tmp_path / 'out'}"]
    with pytest.warns(UserWarning, match="11,644"):
        evaluate_here(*QUICK, *given, "pictures=2")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["scores"]["images"] == 2
    assert metrics["about"]["subset"] == {"images": 2, "of": 4, "seed": 0}
    assert {"mIoU16", "mIoU15"} <= set(metrics["scores"])
    assert metrics["about"]["proposals_per_image"] == 20
    assert (tmp_path / "out" / "report.html").is_file()
