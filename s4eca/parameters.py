"""Counting parameters as the field counts them: the method over the two towers, the head aside."""

from dataclasses import dataclass

from rich.table import Table

from s4eca.segmenter import ReferringSegmenter, group_of


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of one place: all of them, and those that are learned."""

    total: int = 0
    learned: int = 0


def count_parameters(segmenter: ReferringSegmenter) -> dict[str, ParameterCount]:
    """Counts per place: `text tower`, `vision tower`, `method`, `norms`, `fusion`, `decoder`.

    Tower weights that a method trains (LoRA's updates, full fine-tuning) are counted as learned by the method; what a
    method adds inside a tower (LoRA) is no part of the tower's total.
    """
    total: dict[str, int] = dict.fromkeys(("text tower", "vision tower", "method", "norms", "fusion", "decoder"), 0)
    learned = dict(total)
    for name, parameter in segmenter.named_parameters():
        total[group_of(name)] += parameter.numel()
        if parameter.requires_grad:
            learned[group_of(name)] += parameter.numel()
    for tower in (segmenter.text, segmenter.vision):
        total[f"{tower.kind} tower"] = tower.size
        total["method"] -= tower.size
    return {place: ParameterCount(total[place], learned[place]) for place in total}


def method_share(segmenter: ReferringSegmenter) -> float:
    """Returns the method's learned parameters over the towers' parameters (DETRIS' accounting; head left out)."""
    counts = count_parameters(segmenter)
    return counts["method"].learned / (counts["text tower"].total + counts["vision tower"].total)


def parameter_table(segmenter: ReferringSegmenter, effective_batch: int | None = None) -> Table:
    """Returns the table that a run prints at its start."""
    counts = count_parameters(segmenter)
    towers = counts["text tower"].total + counts["vision tower"].total
    table = Table(title=f"parameters, tuning: {segmenter.method.name}", title_justify="left")
    for column in ("place", "total", "learned"):
        table.add_column(column, justify="left" if column == "place" else "right")
    for place, count in counts.items():
        table.add_row(place, f"{count.total:,}", f"{count.learned:,}")
    table.add_section()
    everything = sum(count.total for count in counts.values())
    table.add_row("all", f"{everything:,}", f"{sum(count.learned for count in counts.values()):,}")
    share = counts["method"].learned / towers
    table.add_row("method / towers", f"{towers / 1e6:.2f} M", f"{100 * share:.2f} %")
    if effective_batch is not None:
        table.add_row("effective batch", "", str(effective_batch))
    return table
