"""Which switch exists for the part that takes the most time; what it brings is for the next profile to say."""

from s4eca.build import Config
from s4eca.profiling.report import Report
from s4eca.switches import TIME, offered


def advice(report: Report, config: Config) -> str:
    """Returns one sentence: the largest part, and the switches that act on it and that this config can have.

    Args:
        report: of the profile.
        config: resolved config of the run.
    """
    part = report.largest
    found = advised(part, config, report.gpu_peak is not None)
    first = f"The largest part is the {part}, {100 * report.share(part):.0f} % of the step"
    if not found:
        return f"{first}; no switch of this config acts on it that is not on already."
    return f"{first}; what acts on it and is off: {', '.join(found)}. Profile again with it to see what it brings."


def advised(part: str, config: Config, gpu: bool) -> list[str]:
    """Returns the settings that act on a part of the step, are off, and can be built, on a GPU or a CPU."""
    acting = [switch for switch in TIME if part in switch.parts and (gpu or not switch.gpu)]
    return [offer.setting for offer in offered(config, acting)]
