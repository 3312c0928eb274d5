"""A study: made by the first worker, joined by the others, and never mixed with another search."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from s4eca.errors import S4ecaError
from s4eca.identity import differing, flatten, settings
from s4eca.sweep.composing import common
from s4eca.sweep.sampling import build_pruner, build_sampler
from s4eca.sweep.space import Space

RECORD = "s4eca"
"""User attribute of a study that says what it searches: space, common config, overrides."""

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
SHOWN = 3


def join_study(
    name: str, storage: RDBStorage, space: Space, config: Mapping[str, Any], overrides: Sequence[str]
) -> optuna.Study:
    """Makes a study, or joins the one of that name.

    Args:
        name: of the study.
        storage: where it is.
        space: what it tries.
        config: what its trials have in common, as `check_space` returns it.
        overrides: what the command line gave beside the space.

    Raises:
        S4ecaError: it is there and searches something else.
    """
    sampler, pruner = build_sampler(space), build_pruner(space)
    direction = StudyDirection[space.direction.upper()]
    study = optuna.create_study(
        study_name=name, storage=storage, sampler=sampler, pruner=pruner, direction=direction, load_if_exists=True
    )
    mine: dict[str, Any] = {"search": space.plain(), "config": common(config), "overrides": list(overrides)}
    if RECORD not in study.user_attrs:
        if study.get_trials(deepcopy=False):
            raise S4ecaError(f"study={name} was not made by s4eca sweep; choose another study=NAME.")
        study.set_user_attr(RECORD, mine)  # workers that start together write the same
    theirs = study.user_attrs[RECORD]
    differing = [
        *_differences(flatten(theirs["search"]), flatten(mine["search"]), "the search space's "),
        # of a study that an earlier version began, without what makes no run another
        *_differences(settings(theirs["config"]), mine["config"], ""),
    ]
    if differing or study.direction != direction:
        shown = "; ".join(differing[:SHOWN]) + (f"; {len(differing) - SHOWN} more" if len(differing) > SHOWN else "")
        raise S4ecaError(
            f"study={name} was begun with other settings, and its trials would not compare: {shown or 'direction'}."
            " Give the same sweep= and overrides, or choose another study=NAME."
        )
    return study


def load_study(name: str, storage: RDBStorage) -> optuna.Study:
    """Returns a study that is there.

    Raises:
        S4ecaError: there is none of that name.
    """
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        there = ", ".join(sorted(optuna.get_all_study_names(storage))) or "none at all"
        raise S4ecaError(f"there is no study={name} in this storage; it has {there}.") from None


def count(trials: Sequence[FrozenTrial]) -> Counter[TrialState]:
    """Counts trials by state."""
    return Counter(trial.state for trial in trials)


def is_one_too_many(study: optuna.Study, number: int, n_trials: int) -> bool:
    """Whether a trial that has just begun is more than was asked for, as others began in the same moment."""
    trials = study.get_trials(deepcopy=False)
    earlier = [trial for trial in trials if trial.number < number and trial.state in (*DONE, TrialState.RUNNING)]
    return len(earlier) >= n_trials


def _differences(theirs: Mapping[str, Any], mine: Mapping[str, Any], of: str) -> list[str]:
    keys = differing(theirs, mine)
    return [f"{of}{key} was {theirs.get(key, 'nothing')} and is {mine.get(key, 'nothing')} now" for key in keys]
