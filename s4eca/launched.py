"""Who starts the processes of a run, and what they agree on before they are connected."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from s4eca.errors import S4ecaError


def check_sweep(trainer: Mapping[str, Any], launcher: str) -> None:
    """Lets a run of a multirun have several processes only where its own SLURM job has started all of them.

    Elsewhere Lightning would start them by this command line, and each would begin the sweep anew.

    Args:
        trainer: the run's trainer config.
        launcher: `_target_` of Hydra's launcher.

    Raises:
        S4ecaError: several processes, and another launcher.
    """
    many = trainer["devices"] not in (1, "1") or trainer.get("num_nodes", 1) != 1
    if many and not launcher.endswith(".SlurmLauncher"):
        raise S4ecaError(
            f"a multirun with trainer.devices={trainer['devices']} would start the sweep again in every process; set "
            "trainer.devices=1, or start one run per job with hydra/launcher=slurm."
        )


def agreed_name(name: str) -> str:
    """Returns one name for all processes that torchrun or srun has started, each of which proposes its own.

    Processes that Lightning starts need none: they get the run folder on their command line.

    Args:
        name: this process's proposal, such as the time, which differs by a second now and then.

    Returns:
        Under torchrun, what the first process proposes, through the store that torchrun keeps for its workers. Under
        srun with several tasks, `slurm_JOB_STEP`. In a process on its own, `name`.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        from torch.distributed import TCPStore

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(minutes=5))
        # the store outlives workers that torchrun starts anew
        key = f"s4eca/name/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        if os.environ["RANK"] == "0":
            store.set(key, name)
            return name
        return store.get(key).decode()
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_ID" in os.environ:
        return f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ['SLURM_STEP_ID']}"
    return name
