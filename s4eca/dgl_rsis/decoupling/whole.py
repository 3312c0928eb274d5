"""No decoupling: the baseline of the ablation."""

from s4eca.dgl_rsis.decoupling.grammar import find_words
from s4eca.dgl_rsis.knowledge import Knowledge
from s4eca.dgl_rsis.parts import Phrase


class WholeDecoupler:
    """Takes all words as local ones and none as context: the expression as it is.

    Args:
        knowledge: what every decoupler is given; without a head noun there is nothing to name by it.
    """

    def __init__(self, knowledge: Knowledge | None = None) -> None:
        pass

    def __call__(self, expression: str) -> Phrase:
        """Returns the expression's words, all of them local; nobody has looked for a head, so none is missed."""
        words = find_words(expression)
        return Phrase(text=expression, words=words, local=tuple(range(len(words))))
