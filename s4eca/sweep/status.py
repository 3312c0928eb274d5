"""What became of a study's trials."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.markup import escape
from rich.table import Table

from s4eca.sweep.storage import retried_from
from s4eca.sweep.study import RECORD, count

FEWEST = 10
"""Complete trials that importances are worked out from."""

TOP = 0.25
"""Share of the complete trials that counts as good; Optuna's own tenth would be one trial of ten."""

STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL)


@dataclass(frozen=True)
class Importance:
    """How much each key has to do with being among the best trials; shares of 1, the largest first.

    Attributes:
        shares: by key.
        trials: complete ones that it comes from.
    """

    shares: dict[str, float]
    trials: int


def tabulate(study: optuna.Study) -> Table:
    """Returns a row per trial."""
    trials = study.get_trials(deepcopy=False)
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    table = Table(box=box.SIMPLE)
    table.add_column("trial", justify="right")
    table.add_column("state")
    table.add_column(escape(_metric(study)), justify="right")
    for name in short_names(keys):
        table.add_column(escape(name), justify="right", overflow="fold")
    for name in ("worker", "folder", "retry of"):
        table.add_column(name, overflow="fold")
    for trial in trials:
        earlier = retried_from(trial)
        table.add_row(
            str(trial.number),
            trial.state.name.lower(),
            "" if trial.value is None else f"{trial.value:.4f}",
            *(_cell(trial, key) for key in keys),
            escape(str(trial.user_attrs.get("worker", ""))),
            escape(str(trial.user_attrs.get("folder", ""))),
            "" if earlier is None else str(earlier),
        )
    return table


def sentences(study: optuna.Study) -> list[str]:
    """Returns counts by state, why trials failed, and the best trial with the command that repeats it."""
    trials = study.get_trials(deepcopy=False)
    states = count(trials)
    lines = [f"{len(trials)} trials: " + ", ".join(f"{states[state]} {state.name.lower()}" for state in STATES)]
    for trial in trials:
        if trial.state == TrialState.FAIL:
            reason = trial.user_attrs.get("error", "its worker gave no sign of life")
            again = [other.number for other in trials if retried_from(other) == trial.number]
            lines.append(
                f"trial {trial.number} failed: {reason}" + (f" (repeated as trial {again[0]})" if again else "")
            )
    if states[TrialState.COMPLETE]:
        best = study.best_trial
        lines.append(f"best: trial {best.number}, {_metric(study)} {best.value:.4f}")
        lines.append(f"repeat it with: {reproduce(study, best)}")
    return lines


def reproduce(study: optuna.Study, trial: FrozenTrial) -> str:
    """Returns the command that trains a trial's config again, as a shell reads it."""
    given = [*study.user_attrs[RECORD]["overrides"], *trial.user_attrs["overrides"]]
    return shlex.join(["python", "train.py", *given])


def importance(study: optuna.Study) -> Importance | str:
    """Returns the keys' importance (PED-ANOVA, Watanabe et al. 2023), or why there is none."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEWEST:
        return f"no picture of importances: they need {FEWEST} complete trials, and there are {len(complete)}"
    if len({trial.value for trial in complete}) == 1:
        return f"no picture of importances: all {len(complete)} complete trials have the same value"
    shares = optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=TOP))
    return Importance(dict(shares), len(complete))


def short_names(keys: Sequence[str]) -> list[str]:
    """Returns the shortest endings of dotted keys that tell them apart."""
    parts = [key.split(".") for key in keys]
    names = []
    for own in parts:
        length = 1
        while length < len(own) and sum(other[-length:] == own[-length:] for other in parts) > 1:
            length += 1
        names.append(".".join(own[-length:]))
    return names


def _metric(study: optuna.Study) -> str:
    record: Mapping[str, Any] = study.user_attrs.get(RECORD, {"search": {"metric": "value"}})
    return record["search"]["metric"]


def _cell(trial: FrozenTrial, key: str) -> str:
    value = trial.params.get(key, "")
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
