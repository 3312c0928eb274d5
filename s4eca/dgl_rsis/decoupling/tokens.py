"""From words to sub-tokens, by the characters that both cover.

Words are never tokenised again and counted: pieces of one word differ with what stands around it, and the count drifts.
"""

from collections.abc import Sequence

from s4eca.dgl_rsis.parts import Span


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
