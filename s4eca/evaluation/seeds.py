"""Mean and deviation of the same evaluation over several runs, which differ in their seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from s4eca.errors import S4ecaError

COUNTS = ("n", "n_empty", "n_no_target")
"""What `metrics.json` counts; the rest of a protocol's values are scores."""


def over_seeds(summaries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float, int]]]:
    """Returns for each protocol and score its mean over runs, its deviation, and the number of runs.

    Args:
        summaries: what `summarise_evaluation` returns or `metrics.json` holds, one per run.

    Returns:
        Protocol to score to (mean, deviation, runs), fractions. The deviation is the sample standard deviation
        (divided by runs - 1), NaN for one run. A run without a value, which is NaN or null, is not counted in `runs`;
        without any run that has one, mean and deviation are NaN.

    Raises:
        S4ecaError: the runs were not evaluated on the same data: dataset, split or number of samples differ.
    """
    for key in ("dataset", "split"):
        _all_equal(key, [summary.get("about", {}).get(key) for summary in summaries])
    protocols = dict.fromkeys(protocol for summary in summaries for protocol in summary["protocols"])
    result: dict[str, dict[str, tuple[float, float, int]]] = {}
    for protocol in protocols:
        runs = [summary["protocols"][protocol] for summary in summaries if protocol in summary["protocols"]]
        for key in COUNTS:
            _all_equal(f"{key} under {protocol}", [run.get(key) for run in runs])
        names = dict.fromkeys(name for run in runs for name in run if name.removeprefix("nonempty/") not in COUNTS)
        result[protocol] = {name: _spread([run.get(name) for run in runs]) for name in names}
    return result


def _spread(values: Sequence[float | None]) -> tuple[float, float, int]:
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return math.nan, math.nan, 0
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else math.nan, len(known)


def _all_equal(what: str, values: Sequence[Any]) -> None:
    different = list(dict.fromkeys(values))
    if len(different) > 1:
        listed = ", ".join(str(value) for value in different)
        raise S4ecaError(f"Runs over seeds must share their data, and {what} differs ({listed}): leave the others out.")
