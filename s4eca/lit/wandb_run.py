"""One W&B run per run folder, however often the run is interrupted."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from s4eca.files import write_text

NAME = "wandb.json"


def keep_wandb_run(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Gives the W&B loggers of a config the id that `RUN/wandb.json` keeps, and makes that where there is none yet.

    Lightning's logger resumes a run of that id, or starts it; offline, every start writes a folder of its own under the
    same id. A `wandb agent` names the id, by which its sweep knows the run.

    Args:
        config: resolved config; it is not changed. An id that it states stays.
        folder: run folder.
    """
    loggers = {
        name: node
        for name, node in config["logger"].items()
        if str((node or {}).get("_target_")).endswith(".WandbLogger") and not (node.get("id") or node.get("version"))
    }
    if not loggers:
        return config
    path = folder / NAME
    if path.is_file():
        run = json.loads(path.read_text(encoding="utf-8"))["id"]
    else:
        run = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            write_text(path, json.dumps({"id": run}) + "\n")
    return {**config, "logger": {**config["logger"], **{name: {**node, "id": run} for name, node in loggers.items()}}}
