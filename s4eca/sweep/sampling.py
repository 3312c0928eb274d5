"""How a study chooses the next values, and which trials it ends early."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from s4eca.errors import S4ecaError
from s4eca.sweep.space import Space

SAMPLERS: dict[str, Any] = {"tpe": TPESampler, "random": RandomSampler}
PRUNERS: dict[str, Any] = {"none": NopPruner, "median": MedianPruner, "hyperband": HyperbandPruner}


class SeededByTrial(BaseSampler):
    """A sampler whose random numbers depend on a seed and the trial's number, and on nothing else.

    With one seed for all workers, each of them would begin with the same values; with one per worker, a study could
    not be repeated. One worker's study is the same every time; with several, the order in which trials end matters.

    Args:
        kind: a name in `SAMPLERS`.
        seed: of the study.
        settings: arguments of Optuna's sampler.
    """

    def __init__(self, kind: str, seed: int, settings: Mapping[str, Any]) -> None:
        self._make, self._seed, self._settings = SAMPLERS[kind], seed, dict(settings)
        self._of_trial(0)

    def _of_trial(self, number: int) -> None:
        # a prime apart, so that studies with neighbouring seeds share nothing
        self._sampler: BaseSampler = self._make(seed=(self._seed * 1_000_003 + number) % 2**32, **self._settings)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Starts the trial's own random numbers."""
        self._of_trial(trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the keys that are drawn together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws them."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draws one key by itself."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Passes on what a trial gave."""
        self._sampler.after_trial(study, trial, state, values)


def build_sampler(space: Space) -> BaseSampler:
    """Builds a space's sampler.

    Raises:
        S4ecaError: no such sampler, or a setting that it does not have.
    """
    settings = dict(space.sampler)
    kind, seed = settings.pop("name"), settings.pop("seed", None)
    if kind not in SAMPLERS:
        raise S4ecaError(f"sweep={space.name} has sampler: {kind}, and knows {', '.join(SAMPLERS)}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise S4ecaError(f"sweep={space.name} has sampler.seed: {seed}, where a number is needed.")
    try:
        return SeededByTrial(kind, seed, settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise S4ecaError(f"sweep={space.name}: sampler {kind} cannot be had with {settings}: {error}.") from error


def build_pruner(space: Space) -> BasePruner:
    """Builds a space's pruner, whose steps and resources are validations of a run.

    Raises:
        S4ecaError: no such pruner, or a setting that it does not have.
    """
    settings = dict(space.pruner)
    kind = settings.pop("name")
    if kind not in PRUNERS:
        raise S4ecaError(f"sweep={space.name} has pruner: {kind}, and knows {', '.join(PRUNERS)}.")
    try:
        return PRUNERS[kind](**settings)
    except (TypeError, ValueError, AssertionError) as error:
        raise S4ecaError(f"sweep={space.name}: pruner {kind} cannot be had with {settings}: {error}.") from error
