"""From words to sub-tokens, by the characters that both cover.

Words are never tokenised again and counted: pieces of one word differ with what stands around it, and the count drifts.
"""

from collections.abc import Sequence

from s4eca.dgl_rsis.parts import Phrase, Span
from s4eca.errors import S4ecaError


def prompted(template: str, phrase: Phrase) -> tuple[str, int]:
    """Puts an expression into a prompt.

    Args:
        template: with `{}` once, for example "there is a {}".
        phrase: the expression.

    Returns:
        The prompt, and by how many characters the expression's spans have to be shifted to hold in it.

    Raises:
        S4ecaError: the template does not hold `{}` once.
    """
    if template.count("{}") != 1:
        raise S4ecaError(f"the prompt {template!r} does not hold {{}} once; write {{}} where the expression goes.")
    start = template.index("{}")
    return template[:start] + phrase.text + template[start + 2 :], start


def subtokens(offsets: Sequence[Span], spans: Sequence[Span], shift: int = 0) -> list[int]:
    """Returns the positions of the sub-tokens that share a character with one of some spans.

    Args:
        offsets: characters of each sub-token in the prompt, the `offset_mapping` of a fast tokenizer; those of special
            tokens and of padding are empty and are never returned.
        spans: characters in the expression.
        shift: from the expression to the prompt.
    """
    return [
        position
        for position, (start, end) in enumerate(offsets)
        if any(max(start, first + shift) < min(end, last + shift) for first, last in spans)
    ]
