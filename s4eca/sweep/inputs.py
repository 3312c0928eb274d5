"""What a config only names: data and frozen weights, compared by hash between the trials of a study."""

import hashlib
import json
from typing import Any

import optuna
from lightning import Callback, LightningModule, Trainer

from s4eca.errors import S4ecaError
from s4eca.identity import describe_training, training


class SameInputs(Callback):
    """Stops a trial whose data or backbones are others than those of the study's trials with the same config.

    Where they lie is left to each machine. The first trial notes their hashes in the study.

    Args:
        trial: of the study; where the space tries backbones or data, those that try the same ones are compared.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares, before the first step.

        Raises:
            S4ecaError: something else is here under the same config.
        """
        module: Any = pl_module
        made_by = describe_training(module.describe(trainer.datamodule))  # type: ignore[attr-defined]
        found = {"data": made_by["training_data"], **made_by["backbones"]}
        for what, content in found.items():
            tried = {key: value for key, value in self._trial.params.items() if key.partition(".")[0] == what}
            named = {key: value for key, value in training(module.config).items() if key.startswith(f"{what}.")}
            entry = f"{what} {_hash([tried, named])}"
            hashes = {key: value for key, value in content.items() if key in ("sha256", "tokenizer", "train", "val")}
            mine = _hash(hashes)
            study = self._trial.study
            if study.user_attrs.get(entry) is None:
                study.set_user_attr(entry, mine)
            if study.user_attrs[entry] != mine:
                place = "data.root" if what == "data" else f"{what}.weights"
                raise S4ecaError(
                    f"study={study.study_name} was begun with other content of {what} than {place} gives here, and its"
                    f" trials would not compare: give the same with {place}=PATH, or choose another study=NAME."
                )


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
