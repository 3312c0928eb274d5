"""`s4eca data expressions`: a referring dataset out of instance masks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # the data room imports torch, which `s4eca --help` need not wait for
    from s4eca.data.expressions.build import Report


def expressions(
    coco: Annotated[Path, typer.Argument(help="COCO file of instances, with masks")],
    images: Annotated[Path, typer.Argument(help="folder of its images")],
    out: Annotated[Path, typer.Argument(help="folder to write; it must not exist or be empty")],
    layout: Annotated[str, typer.Option(help="refer (read by data=refer) or jsonl (data=jsonl)")] = "refer",
    name: Annotated[str | None, typer.Option(help="of the dataset; default: the name of OUT")] = None,
    seed: Annotated[int, typer.Option(help="of the choice of expressions and of the splits")] = 0,
    per_kind: Annotated[int, typer.Option(help="expressions of each kind per image, at most")] = 2,
    block: Annotated[int, typer.Option(help="neighbouring files that stay in one split")] = 5,
    val: Annotated[float, typer.Option(help="share of the blocks for validation")] = 0.15,
    test: Annotated[float, typer.Option(help="share of the blocks for the test")] = 0.15,
    place: Annotated[str, typer.Option("--images", help="link: symbolic links to the images | copy")] = "link",
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="leave out images without a file")] = False,
) -> None:
    """Generate referring expressions from COCO instance masks, each true of one instance by stated margins."""
    from s4eca.data.expressions.build import build_dataset

    report = build_dataset(
        coco, images, out, layout, name, seed, per_kind, block, val, test, place, skip_missing=skip_missing
    )
    for line in told(report, out, layout):
        typer.echo(line)


def told(report: "Report", out: Path, layout: str) -> list[str]:
    """Returns a report's lines."""
    total = sum(sum(counts.values()) for counts in report.expressions.values())
    heading = (
        f"{out}: {total:,} expressions about {report.targets:,} of {report.instances:,} instances in"
        f" {sum(report.images.values()):,} images, read by data={layout}"
    )
    rows: list[tuple[str, list[int]]] = [(kind, list(counts.values())) for kind, counts in report.expressions.items()]
    rows.append(("images", list(report.images.values())))
    head = " " * 9 + "".join(f"{split:>8}" for split in report.images)
    lines = [f"{name:<9}" + "".join(f"{value:>8,}" for value in values) for name, values in rows]
    reasons = [f"left out: {line}" for line in report.left_out.lines()]
    return [heading, head, *lines, *reasons]
