"""Every published figure of the real-image comparison is recomputed from the samples that it stands for.

    python benchmarks/check_headline.py                        # fails where a page says anything else; a test runs it
    python benchmarks/check_headline.py --write                # puts the tables into the pages
    python benchmarks/check_headline.py --add ROW EVALUATION   # takes over the samples of an evaluation, as row ROW

`benchmarks/results/vhr.parquet` has a line per sample and evaluation: row, seed, split, sample, image, kind, area (of
the truth, pixels of the image), intersection and union (pixels at the model's size, protocol `lavt`). A page shows a
split's table between `<!-- vhr SPLIT -->` and `<!-- end -->`.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s4eca.data.expressions.grammar import KINDS
from s4eca.evaluation.metrics import INTERSECTION, UNION
from s4eca.evaluation.protocols import PROTOCOLS
from s4eca.evaluation.results import read_evaluation

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "vhr.parquet"
PAGES = (ROOT / "README.md", ROOT / "docs" / "vhr.md")
BLOCK = re.compile(r"(<!-- vhr (\w+) -->\n)(.*?)(<!-- end -->)", re.S)
SMALL = 1000  # pixels in the image


def table(results: pa.Table, split: str) -> str:
    """Returns a split's table in Markdown: rows by falling mIoU, means over seeds, the deviation of the mIoU."""
    results = results.filter(pa.compute.equal(results["split"], split))
    column = {name: np.array(results[name].to_pylist()) for name in results.column_names}
    iou = PROTOCOLS["lavt"].iou(column["intersection"], column["union"])
    one = (column["row"] == column["row"][0]) & (column["seed"] == column["seed"][0])
    parts = {f"{kind} ({(one & (column['kind'] == kind)).sum()})": column["kind"] == kind for kind in KINDS}
    small = column["area"] < SMALL
    parts[f"< {SMALL:,} px ({(one & small).sum()})"] = small
    lines = []
    for row in dict.fromkeys(column["row"]):
        mine = column["row"] == row
        seeds = [mine & (column["seed"] == seed) for seed in dict.fromkeys(column["seed"][mine])]
        means = [100 * iou[seed].mean() for seed in seeds]
        spread = f" ± {np.std(means, ddof=1):.1f}" if len(means) > 1 else ""
        cells = [f"{np.mean(means):.1f}{spread}", f"{len(means)}"]
        cells += [f"{100 * (iou[mine] >= bound).mean():.1f}" for bound in (0.5, 0.9)]
        cells += [f"{100 * iou[mine & part].mean():.1f}" if part.any() else "-" for part in parts.values()]
        lines.append((np.mean(means), f"| {row} | {' | '.join(cells)} |"))
    head = ["", "mIoU", "seeds", "Pr@0.5", "Pr@0.9", *parts]
    ordered = [line for _, line in sorted(lines, key=lambda item: -item[0])]
    return "\n".join([f"| {' | '.join(head)} |".replace("|  |", "| |"), "|" + "---|" * len(head), *ordered])


def add(row: str, folder: Path) -> None:
    """Takes over an evaluation; one of the same row, seed and split is replaced."""
    evaluation = read_evaluation(folder)
    counted, about, count = evaluation.rows["lavt"], evaluation.about, len(evaluation.samples)
    new = pa.table(
        {
            "row": [row] * count,
            "seed": pa.array([about["seed"]] * count, pa.int32()),
            "split": [about["split"]] * count,
            "sample": [sample.id for sample in evaluation.samples],
            "image": [sample.image for sample in evaluation.samples],
            "kind": [sample.kind for sample in evaluation.samples],
            "area": pa.array([sample.area for sample in evaluation.samples], pa.int32()),
            "intersection": pa.array(counted[:, INTERSECTION], pa.int32()),
            "union": pa.array(counted[:, UNION], pa.int32()),
        }
    )
    if RESULTS.is_file():
        old = pq.read_table(RESULTS)
        same = [
            [line["row"], line["seed"], line["split"]] == [row, about["seed"], about["split"]]
            for line in old.select(["row", "seed", "split"]).to_pylist()
        ]
        new = pa.concat_tables([old.filter(pa.array([not item for item in same])), new])
    pq.write_table(new, RESULTS, compression="zstd")


def check(write: bool = False) -> list[str]:
    """Returns the pages whose tables are not those of the results; with `write` they become so."""
    results, wrong = pq.read_table(RESULTS), []
    for page in PAGES:
        text = page.read_text()
        right, tables = BLOCK.subn(lambda block: block[1] + table(results, block[2]) + "\n" + block[4], text)
        if right != text or not tables:
            wrong.append(str(page.relative_to(ROOT)))
        if write:
            page.write_text(right)
    return wrong


def main() -> None:
    """Runs as the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    parser.add_argument("--add", nargs=2, metavar=("ROW", "EVALUATION"), help="take over an evaluation's samples")
    arguments = parser.parse_args()
    if arguments.add:
        add(arguments.add[0], Path(arguments.add[1]))
    wrong = check(arguments.write or bool(arguments.add))
    if wrong and not (arguments.write or arguments.add):
        sys.exit(f"The tables in {', '.join(wrong)} are not those of {RESULTS.name}; run it with --write.")


if __name__ == "__main__":
    main()
