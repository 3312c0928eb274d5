import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from s4eca.cli import messages
from s4eca.cli.config import conf_dir
from s4eca.errors import S4ecaError


def refuse() -> None:
    raise S4ecaError("there is no such thing; make one.")


@pytest.fixture
def _in_a_sweep(request, monkeypatch):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", overrides=[f"hydra/launcher={request.param}"], return_hydra_config=True)
    config.hydra.mode = "MULTIRUN"
    config.hydra.job.num = 3
    config.hydra.job.override_dirname = "seed=4"
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    monkeypatch.setattr(messages, "_refused", [])


def test_an_error_is_a_sentence_and_a_status(capsys):
    with pytest.raises(SystemExit) as ended:
        messages.guarded(refuse)()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: there is no such thing; make one.\n"


@pytest.mark.usefixtures("_in_a_sweep")
@pytest.mark.parametrize("_in_a_sweep", ["basic"], indirect=True)
def test_a_refused_job_of_a_sweep_is_named_at_its_end(capsys):
    assert messages.guarded(refuse)() is None
    assert messages.guarded(refuse)() is None  # first a resolver, then the task that needs its value
    with pytest.raises(SystemExit) as ended:
        messages.end_sweep()
    assert ended.value.code == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first == "error: there is no such thing; make one."
    assert last == "error: 1 job did not run through: job 3 (seed=4)."


@pytest.mark.usefixtures("_in_a_sweep")
@pytest.mark.parametrize("_in_a_sweep", ["slurm", "submitit_local"], indirect=True)
def test_a_submitted_job_fails_for_its_cluster_too():
    with pytest.raises(SystemExit) as ended:
        messages.guarded(refuse)()
    assert ended.value.code == 2
