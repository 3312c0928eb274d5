from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import TCPStore

from s4eca.errors import S4ecaError
from s4eca.launched import agreed_name, check_sweep

PLUGIN = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@pytest.mark.parametrize("launcher", [BASIC, f"{PLUGIN}.LocalLauncher"])
@pytest.mark.parametrize("trainer", [{"devices": 2}, {"devices": "auto"}, {"devices": 1, "num_nodes": 2}])
def test_only_a_slurm_job_of_a_sweep_has_several_processes(launcher, trainer):
    with pytest.raises(S4ecaError, match=r"trainer\.devices=1, or start one run per job with hydra/launcher=slurm"):
        check_sweep(trainer, launcher)
    check_sweep(trainer, f"{PLUGIN}.SlurmLauncher")


@pytest.mark.parametrize("launcher", [BASIC, f"{PLUGIN}.LocalLauncher", f"{PLUGIN}.SlurmLauncher"])
def test_one_process_may_be_swept_by_any_launcher(launcher):
    check_sweep({"devices": 1, "num_nodes": 1}, launcher)
    check_sweep({"devices": "1", "strategy": "ddp"}, launcher)


def test_alone_nothing_changes(monkeypatch):
    for name in ("TORCHELASTIC_USE_AGENT_STORE", "SLURM_NTASKS", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert agreed_name("2026-01-01") == "2026-01-01"
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert agreed_name("2026-01-01") == "2026-01-01"


def test_tasks_of_one_srun_share_a_name(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    for name, value in (("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "17"), ("SLURM_STEP_ID", "2")):
        monkeypatch.setenv(name, value)
    assert {agreed_name("10-00-00"), agreed_name("10-00-01")} == {"slurm_17_2"}


def test_workers_of_one_torchrun_take_the_first_ones_name(monkeypatch):
    store = TCPStore("127.0.0.1", 0, is_master=True)
    environment = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def ask(rank: str, proposal: str) -> str:
        monkeypatch.setenv("RANK", rank)
        return agreed_name(proposal)

    assert ask("0", "10-00-00") == "10-00-00"
    assert ask("1", "10-00-01") == "10-00-00"
    # workers that are started anew make a new run, and wait for the first of them to name it
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setenv("RANK", "1")
        waiting = pool.submit(agreed_name, "10-05-01")
        store.set("s4eca/name/1", "10-05-00")
        assert waiting.result(timeout=30) == "10-05-00"
