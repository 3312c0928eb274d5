"""Splits, categories and expressions: what can be said without opening an image or a mask."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from s4eca.data.audit.findings import Finding, Severity, on_names, on_records
from s4eca.data.audit.records import Record
from s4eca.data.dataset import Tokenizer
from s4eca.data.readers.checks import SPLITS


def split_facts(records: Sequence[Record], published: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Returns references, images and the published number of references of each split; None where unpublished."""
    facts = {}
    for split in [*SPLITS, *sorted({record.split for record in records} - set(SPLITS))]:
        inside = [record for record in records if record.split == split]
        images = {record.image for record in inside if record.image is not None}
        facts[split] = {"references": len(inside), "images": len(images), "published": published.get(split)}
    return facts


def category_facts(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Returns the number of references per split of each category, `(none)` for those without."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        counts.setdefault(record.category or "(none)", Counter())[record.split] += 1
    in_order = sorted(counts, key=lambda name: (len(name) if name.startswith("id ") else 0, name))  # id 2 before id 10
    return {name: dict(counts[name]) for name in in_order}


def expression_facts(records: Sequence[Record]) -> dict[str, Any]:
    """Returns lengths in words, vocabulary and how many expressions are also in the train split, word for word.

    Words are separated by white space; the vocabulary is counted in lower case.
    """
    words = [record.expression.split() for record in records]
    train = {record.expression for record in records if record.split == "train"}
    seen = Counter(record.split for record in records if record.split != "train" and record.expression in train)
    return {
        "distinct": len({record.expression for record in records}),
        "vocabulary": len({word.lower() for row in words for word in row}),
        "words": _lengths([len(row) for row in words]),
        "seen_in_train": {split: seen[split] for split in SPLITS[1:]} if train else None,
    }


def token_facts(
    records: Sequence[Record], tokenizer: Tokenizer, name: str, max_tokens: int
) -> tuple[dict[str, Any], list[Finding]]:
    """Counts tokens, special ones included, and what is cut off beyond `max_tokens`.

    Args:
        records: what to count.
        tokenizer: called like a transformers tokenizer.
        name: of the tokenizer, for the report.
        max_tokens: length of a row in training and evaluation.
    """
    expressions = list(dict.fromkeys(record.expression for record in records))
    rows = tokenizer(expressions)["input_ids"] if expressions else []
    row_of = dict(zip(expressions, rows, strict=True))
    unknown_id = getattr(tokenizer, "unk_token_id", None)
    truncated = [i for i, record in enumerate(records) if len(row_of[record.expression]) > max_tokens]
    unknown = [i for i, record in enumerate(records) if unknown_id in row_of[record.expression]]
    facts = {
        "tokenizer": name,
        "max_tokens": max_tokens,
        "tokens": _lengths([len(row_of[record.expression]) for record in records]),
        "truncated": dict(Counter(records[i].split for i in truncated)),
        "unknown": dict(Counter(records[i].split for i in unknown)),
    }
    longest = max((len(row) for row in rows), default=0)
    findings = on_records(
        Severity.WARNING,
        "truncated",
        f"expressions longer than {max_tokens} tokens, which lose their last words; {longest} would hold all",
        records,
        truncated,
    )
    findings += on_records(
        Severity.NOTE, "unknown-word", "expressions with words that the tokenizer does not know", records, unknown
    )
    return facts, findings


def check_splits(records: Sequence[Record], facts: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Compares split sizes with the published ones and names splits that no reader asks for."""
    differing = [
        f"{split}: {row['references']:,} instead of {row['published']:,}"
        for split, row in facts.items()
        if row["published"] not in (None, row["references"])
    ]
    findings = on_names(
        Severity.WARNING,
        "split-size",
        "splits of another size than published, so that results will not compare",
        differing,
    )
    strange = [i for i, record in enumerate(records) if record.split not in SPLITS]
    names = ", ".join(sorted({repr(records[i].split) for i in strange}))
    text = f"entries of the splits {names}, which nothing reads (split names are {', '.join(SPLITS)})"
    return findings + on_records(Severity.WARNING, "unknown-split", text, records, strange)


def check_expressions(records: Sequence[Record]) -> list[Finding]:
    """Finds entries without words, and counts what the training split gives away."""
    empty = [i for i, record in enumerate(records) if not record.expression]
    findings = on_records(Severity.ERROR, "empty-expression", "entries without an expression", records, empty)
    train = {record.expression for record in records if record.split == "train"}
    seen = [i for i, record in enumerate(records) if record.split in SPLITS[1:] and record.expression in train]
    text = "val and test expressions that occur word for word in train"
    return findings + on_records(Severity.NOTE, "seen-in-train", text, records, seen)


def _lengths(lengths: Sequence[int]) -> dict[str, Any]:
    """Returns mean, minimum, maximum and the histogram {length: count}."""
    if not lengths:
        return {"mean": None, "min": None, "max": None, "histogram": {}}
    histogram = {str(length): count for length, count in sorted(Counter(lengths).items())}
    return {"mean": fmean(lengths), "min": min(lengths), "max": max(lengths), "histogram": histogram}
