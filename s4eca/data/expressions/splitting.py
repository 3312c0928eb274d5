"""Splits by image, in which neighbouring files stay together."""

import random
import re
from collections.abc import Sequence

from s4eca.errors import S4ecaError


def split_names(names: Sequence[str], seed: int, block: int, val: float, test: float) -> dict[str, str]:
    """Returns the split of every file name.

    Names in natural order (`2.jpg` before `10.jpg`) are cut into blocks of neighbours, which often show one place. The
    seed shuffles the blocks; the first of them are `test`, the next `val`, the rest `train`.

    Args:
        names: all different.
        seed: of the shuffle.
        block: names per block; the last one may be shorter.
        val: share of the blocks, rounded and at least one.
        test: see `val`.

    Raises:
        S4ecaError: a setting is out of range, or there are too few blocks for three splits.
    """
    if block < 1 or not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise S4ecaError(
            f"block={block}, val={val} and test={test} make no three splits: give blocks of 1 or more images and two"
            " shares above 0 that leave some for training."
        )
    order = sorted(names, key=lambda name: (natural(name), name))
    blocks = [order[start : start + block] for start in range(0, len(order), block)]
    counts = {"test": max(1, round(test * len(blocks))), "val": max(1, round(val * len(blocks)))}
    if sum(counts.values()) >= len(blocks):
        raise S4ecaError(
            f"{len(names)} images in blocks of {block} make {len(blocks)} blocks, too few for three splits: take"
            " smaller blocks or more images."
        )
    random.Random(seed).shuffle(blocks)
    splits = [split for split, count in counts.items() for _ in range(count)]
    splits += ["train"] * (len(blocks) - len(splits))
    return {name: split for members, split in zip(blocks, splits, strict=True) for name in members}


def natural(name: str) -> list[str | int]:
    """Returns what to sort a name by so that numbers in it count as numbers; texts and numbers take turns."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]
