"""What the README shows works as it stands there."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir
from typer.main import get_command

from runs import ROOT, run
from s4eca.cli.main import app
from s4eca.cli.score import compose as compose_score
from s4eca.cli.training_free import resolve

pytestmark = pytest.mark.system
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    ((?:python |make |s4eca |pip ).*?)(?:\s{2,}#.*)?$", README, flags=re.M)


def test_the_python_example_runs_and_has_fifteen_lines(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len([line for line in code.splitlines() if line.strip()]) == 15
    # two steps instead of hundreds and fewer scenes, everything else as printed
    short = code
    for printed, fewer in (
        ("max_steps=600", "max_steps=2, limit_val_batches=1, val_check_interval=2"),
        ("batch_size=16", "batch_size=4, train=8, val=4, test=1"),
    ):
        assert short.count(printed) == 1
        short = short.replace(printed, fewer)
    (tmp_path / "example.py").write_text(
        short
        + "\nimport sys\nprint('step', trainer.global_step)\nprint(trainer.callback_metrics)\n"
        + "print('albumentations imported:', 'albumentations' in sys.modules)\n"
    )
    printed = run("example.py", cwd=tmp_path)
    assert "step 2" in printed
    assert "val/mIoU" in printed
    assert "albumentations imported: False" in printed, "it costs seconds, and nothing here augments"


def overrides(command: str) -> list[str]:
    words = [word for word in shlex.split(command)[2:] if word != "-m"]
    # a sweep's list is one value per job
    return [re.sub(r"^(seed=)(\d+),.*", r"\1\2", word) for word in words]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python train.py")])
def test_training_commands_compose(command):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=overrides(command))
    assert config.tuning


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python eval.py")])
def test_evaluation_commands_compose(command):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("eval", overrides=overrides(command))
    if config.ckpt is None:
        assert resolve(config)["decoupler"], "the training-free method has no checkpoint"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("s4eca ")])
def test_commands_of_the_package_parse(command):
    """Every option and argument is known; nothing is run."""
    words, parser = shlex.split(command)[1:], get_command(app)
    while hasattr(parser, "commands"):
        parser = parser.commands[words.pop(0)]
    context = parser.make_context(parser.name, words)
    own = {"profile": ("steps", "out"), "doctor": (), "sweep": ("status", "study", "storage", "n_trials", "sweep")}
    if parser.name in own:
        words = [word for word in context.args if word.partition("=")[0] not in own[parser.name]]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            assert compose("train", overrides=words).tuning
        return
    if parser.name != "score":
        assert not context.args
        return
    config, split, _ = compose_score(context.args)
    assert (config["data"]["root"], split) == ("/data/rrsis_d", "test")


def test_all_kinds_of_commands_were_found():
    kinds = {" ".join(command.split()[:2]) for command in COMMANDS}
    assert {"make demo", "make test", "python train.py", "python eval.py", "s4eca share", "pip install"} <= kinds
    assert {"s4eca score", "s4eca compare", "s4eca table", "s4eca data", "s4eca sweep", "s4eca profile"} <= kinds


def test_make_targets_exist_and_ci_calls_them():
    targets = re.findall(r"^(\w+): \$\(READY\)", (ROOT / "Makefile").read_text(), flags=re.M)
    assert {"demo", "test", "lint", "format", "lock"} <= set(targets)
    script = (ROOT / ".ci" / "run").read_text()
    for command in ("make lint", "make demo", "make test"):
        assert command in script


def test_experiments_and_options_in_the_tables_exist():
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", README, flags=re.M)
    experiments = [name for first, _ in rows for name in re.findall(r"`(\w+)`", first)]
    assert {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")} <= set(experiments)
    checked = 0
    for first, second in rows:
        groups, options = re.findall(r"`(\w+)`", first), second.split("; ")
        if len(groups) == len(options) and all((ROOT / "conf" / group).is_dir() for group in groups):
            for group, listed in zip(groups, options, strict=True):
                for option in re.findall(r"`(\w+)`", listed):
                    assert (ROOT / "conf" / group / f"{option}.yaml").is_file(), (group, option)
                    checked += 1
    assert checked >= 12


def test_lock_holds_names_and_versions_only():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.+!]+", line) for line in lines[1:])
    assert {"torch==2.14.1", "torchvision==0.29.1"} <= set(lines)
