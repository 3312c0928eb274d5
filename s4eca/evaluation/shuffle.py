"""Are the words used? Give every image the expression of another sample and see what is left of the score."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from s4eca.data.references import Reference
from s4eca.errors import S4ecaError


def shuffle_expressions(references: Sequence[Reference], seed: int = 0) -> list[Reference]:
    """Returns the references with expressions dealt anew, none staying with its own sample.

    Where samples share an expression word for word, a sample may still get an equal one from another.

    Raises:
        S4ecaError: fewer than two references.
    """
    if len(references) < 2:
        raise S4ecaError("expressions can be shuffled between two samples or more; this split has fewer.")
    order = np.random.default_rng(seed).permutation(len(references))
    # along one random cycle through all samples nobody keeps an expression
    giver = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    return [
        dataclasses.replace(
            reference, expression=references[giver[place]].expression, kind=references[giver[place]].kind
        )
        for place, reference in enumerate(references)
    ]
