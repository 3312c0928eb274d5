# ruff: noqa: RUF001
import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from s4eca.errors import S4ecaError
from s4eca.evaluation.tables.build import build_tables
from s4eca.evaluation.tables.formats import escape_latex, escape_markdown, to_csv, to_latex, to_markdown
from s4eca.evaluation.tables.published import SCORES, PublishedResult, load_published
from s4eca.evaluation.tables.runs import Run, find_runs

MARKDOWN = MarkdownIt("commonmark").enable("table")


def make_run(miou=0.5, n=3481, path="run/metrics.json", protocols=("lavt",), n_empty=1, values=None, **about) -> Run:
    about = {"name": "mine", "dataset": "rrsis_d", "split": "test", "seed": 0, "image_size": 480, **about}
    scores = {**dict.fromkeys(SCORES, 0.25), "oIoU": 0.75, "mIoU": miou, "n": n, "n_empty": n_empty, **(values or {})}
    return Run(Path(path), about, dict.fromkeys(protocols, scores))


def make_published(method="Other", miou=60.0, **fields) -> PublishedResult:
    values = {
        "dataset": "rrsis_d",
        "split": "test",
        "scores": {**dict.fromkeys(SCORES), "Pr@0.5": 70.1, "mIoU": miou},
        "reported_in": "its paper",
        "protocol": "lavt",
        "input_size": 480,
        "selection": "val",
        "samples": 3481,
        "training": "fine-tuned",
        "remark": "",
    }
    return PublishedResult(method=method, **{**values, **fields})


def rows_of(runs, published=(), **options):
    (table,) = build_tables(runs, published, **options)
    return {row.label: row for row in table.rows}


def notes_of(runs, published=(), **options) -> str:
    (table,) = build_tables(runs, published, **options)
    return "\n".join(f"{symbol} {text}".strip() for symbol, text in table.notes)


# golden: two seeds with mIoU 0.64 and 0.66: mean 65, sample deviation sqrt(2 * 1²) = 1.41; all else without spread
GOLDEN_RUNS = [make_run(0.64, name="a_b"), make_run(0.66, name="a_b", seed=1, path="run1/metrics.json")]
GOLDEN_PUBLISHED = [
    make_published(remark="it's"),
    make_published(
        "X & Y", 70.0, protocol="unknown", reported_in="B_1", selection="test", input_size=None, samples=None
    ),
]
MARKDOWN_GOLDEN = """\
### RRSIS-D test, protocol lavt, in percent

| method    |      Pr@.5 |      Pr@.6 |      Pr@.7 |      Pr@.8 |      Pr@.9 |       oIoU |       mIoU | source  |
| :-------- | ---------: | ---------: | ---------: | ---------: | ---------: | ---------: | ---------: | :------ |
| X \\& Y †§ |      70.10 |          – |          – |          – |          – |          – |      70.00 | (1)     |
| **a_b**   | 25.00±0.00 | 25.00±0.00 | 25.00±0.00 | 25.00±0.00 | 25.00±0.00 | 75.00±0.00 | 65.00±1.41 | 2 seeds |
| Other     |      70.10 |          – |          – |          – |          – |          – |      60.00 | (2)     |

- Runs a_b: protocol lavt, n = 3,481 (1 with empty truth), input 480 px, mean ± sample deviation over seeds 0, 1.
- Backbones. a_b: backbone not stated.
- Protocol lavt: masks are compared at the network's input size, a hit is IoU ≥ t, an empty union counts as IoU 0.
- Published rows without † and ‡ follow it, by what their released code does.
- † protocol not known, so not known to be comparable.
- § checkpoint chosen on the test split.
- Remarks. Other: it's.
- Sources: (1) B_1; (2) its paper.
"""
LATEX_GOLDEN = r"""% needs \usepackage{booktabs}
\begin{table*}
\centering
\caption{RRSIS-D test, protocol lavt, in percent.}
\footnotesize
\setlength{\tabcolsep}{4pt}
\begin{tabular}{lrrrrrrrl}
\toprule
method & Pr@.5 & Pr@.6 & Pr@.7 & Pr@.8 & Pr@.9 & oIoU & mIoU & source \\
\midrule
X \& Y\textsuperscript{\dag{}\S{}} & 70.10 & -- & -- & -- & -- & -- & 70.00 & (1) \\
\textbf{a\_b} & SPREADS & 75.00{\scriptsize$\pm$0.00} & 65.00{\scriptsize$\pm$1.41} & 2 seeds \\
Other & 70.10 & -- & -- & -- & -- & -- & 60.00 & (2) \\
\bottomrule
\end{tabular}

\smallskip
\begin{minipage}{\textwidth}
\scriptsize\raggedright
Runs a\_b: protocol lavt, n = 3,481 (1 with empty truth), input 480 px, mean $\pm$ sample deviation over seeds 0, 1.\par
Backbones. a\_b: backbone not stated.\par
Protocol lavt: masks are compared at the network's input size, a hit is IoU $\ge$ t, an empty union counts as IoU 0.\par
Published rows without \dag{} and \ddag{} follow it, by what their released code does.\par
\textsuperscript{\dag{}}protocol not known, so not known to be comparable.\par
\textsuperscript{\S{}}checkpoint chosen on the test split.\par
Remarks. Other: it's.\par
Sources: (1) B\_1; (2) its paper.\par
\end{minipage}
\end{table*}
""".replace("SPREADS", " & ".join([r"25.00{\scriptsize$\pm$0.00}"] * 5))
CSV_GOLDEN = """\
dataset,split,method,kind,protocol,marks,Pr@0.5,Pr@0.5 deviation,Pr@0.6,Pr@0.6 deviation,Pr@0.7,Pr@0.7 deviation,\
Pr@0.8,Pr@0.8 deviation,Pr@0.9,Pr@0.9 deviation,oIoU,oIoU deviation,mIoU,mIoU deviation,\
n_seeds,seeds,samples,n_empty,input_size,selection,training,source,remark,backbones
rrsis_d,test,X & Y,published,unknown,unknown-protocol selected-on-test,70.10,,,,,,,,,,,,70.00,,,,,,,test,\
fine-tuned,B_1,,
rrsis_d,test,a_b,run,lavt,,25.00,0.00,25.00,0.00,25.00,0.00,25.00,0.00,25.00,0.00,75.00,0.00,65.00,1.41,\
2,0 1,3481,1,480,unknown,,run/metrics.json run1/metrics.json,,backbone not stated
rrsis_d,test,Other,published,lavt,,70.10,,,,,,,,,,,,60.00,,,,3481,,480,val,fine-tuned,its paper,it's,
"""


@pytest.mark.parametrize(
    ("render", "golden"), [(to_markdown, MARKDOWN_GOLDEN), (to_latex, LATEX_GOLDEN), (to_csv, CSV_GOLDEN)]
)
def test_golden(render, golden):
    assert render(build_tables(GOLDEN_RUNS, GOLDEN_PUBLISHED)) == golden


# ---- order and numbers


def test_rows_are_sorted_best_first_and_missing_last():
    published = [make_published("low", 10.0), make_published("none", None), make_published("high", 99.0)]
    assert list(rows_of([make_run(0.5)], published)) == ["high", "mine", "low", "none"]
    # Pr@0.5: 25 for the run, 70.1 for the others, which keep their order
    assert list(rows_of([make_run(0.5)], published, sort="Pr@0.5")) == ["low", "none", "high", "mine"]
    assert list(rows_of([make_run(0.5)], published, sort="oIoU")) == ["mine", "low", "none", "high"]


def test_a_score_without_value_is_a_dash_and_never_zero():
    (row,) = rows_of([make_run(None, values={"oIoU": math.nan})]).values()
    assert row.scores["mIoU"] is None
    assert row.scores["oIoU"] is None
    assert row.scores["Pr@0.5"] == (25.0, None)
    assert "|    – |    – | run" in to_markdown(build_tables([make_run(None, values={"oIoU": math.nan})], []))


def test_one_table_per_dataset_and_split():
    runs = [make_run(), make_run(split="val", n=1740), make_run(dataset="refsegrs", n=1817)]
    tables = build_tables(runs, [make_published(), make_published(split="val")])
    assert [(table.dataset, table.split, len(table.rows)) for table in tables] == [
        ("rrsis_d", "test", 2),
        ("rrsis_d", "val", 2),
        ("refsegrs", "test", 1),
    ]
    assert to_markdown(tables).count("### ") == 3
    assert len(to_csv(tables).splitlines()) == 6


def test_a_dataset_without_published_results_says_so():
    assert "No published results stand beside the runs." in notes_of(
        [make_run(dataset="synthetic")], [make_published()]
    )


# ---- marks


@pytest.mark.parametrize(
    ("fields", "protocol", "expected"),
    [
        ({}, "lavt", ""),
        ({}, "original", "‡"),
        ({"protocol": "unknown"}, "lavt", "†"),
        ({"protocol": "unknown"}, "original", "†"),
        ({"protocol": "original size, IoU > t"}, "original", "‡"),
        ({"selection": "test"}, "lavt", "§"),
        ({"selection": "unknown"}, "lavt", ""),
        ({"samples": 3480}, "lavt", "¶"),
        ({"samples": None}, "lavt", ""),
        ({"training": "third-party re-run"}, "lavt", "‖"),
        ({"training": "zero-shot"}, "lavt", "○"),
        ({"input_size": 1024}, "lavt", "◇"),
        ({"input_size": 1024, "protocol": "original"}, "original", ""),
        ({"protocol": "unknown", "selection": "test", "samples": 1, "input_size": 512}, "lavt", "†§¶◇"),
    ],
)
def test_published_rows_are_marked(fields, protocol, expected):
    run = make_run(protocols=("lavt", "original"))
    row = rows_of([run], [make_published(**fields)], protocol=protocol)["Other"]
    assert row.symbols == expected
    explained = [line[0] for line in notes_of([run], [make_published(**fields)], protocol=protocol).splitlines()]
    assert [symbol for symbol in explained if symbol in "†‡§¶‖○◇▽△"] == list(expected)


@pytest.mark.parametrize(
    ("fields", "protocol", "expected"),
    [
        ({}, "lavt", ""),
        ({"n": 3480}, "lavt", "¶"),
        ({"image_size": 512}, "lavt", "◇"),
        ({"image_size": 512}, "original", ""),
        ({"image_size": None}, "lavt", ""),
        ({"expressions": "shuffled with seed 0"}, "lavt", "△"),
        ({"expressions": "real"}, "lavt", ""),
        ({"trained_on": "rrsis_d"}, "lavt", ""),
        ({"trained_on": "refsegrs"}, "lavt", "▽"),
        ({"trained_on": None}, "lavt", ""),
        ({"at": "input", "notes": {"lavt": "as given"}}, "lavt", ""),
        ({"at": "original", "notes": {"lavt": "both resized", "original": "as given"}}, "lavt", "‡"),
        ({"at": "original", "notes": {"lavt": "both resized", "original": "as given"}}, "original", ""),
    ],
)
def test_runs_are_marked(fields, protocol, expected):
    (row,) = rows_of([make_run(protocols=("lavt", "original"), **fields)], protocol=protocol).values()
    assert row.symbols == expected


def test_runs_of_which_the_same_is_to_be_said_share_a_note():
    runs = [make_run(name="a"), make_run(name="b"), make_run(name="c", seed=1)]
    notes = notes_of(runs)
    assert "Runs a, b: protocol lavt, n = 3,481 (1 with empty truth), input 480 px, seed 0." in notes
    assert "Run c: protocol lavt, n = 3,481 (1 with empty truth), input 480 px, seed 1." in notes
    assert "Backbones. all runs: backbone not stated." in notes
    known = [make_run(name=name, backbones={"vision": {"name": name.upper()}}) for name in "ab"]
    assert "Backbones. a: A; b: B." in notes_of(known)


def test_notes_say_what_the_marks_mean_for_whom():
    published = [
        make_published("A", protocol="their own"),
        make_published("B", protocol="their own", samples=3480),
        make_published("C", protocol="detris", selection="unknown"),
    ]
    notes = notes_of([make_run(n=40, n_empty=0, seed=None, image_size=None)], published)
    assert "‡ another protocol. A, B: their own; C: detris." in notes
    assert "¶ scored on another number of samples than the split has (3,481). B: 3,480; mine: 40." in notes
    assert "Run mine: protocol lavt, n = 40 (0 with empty truth), input size not recorded." in notes
    assert "For 1 of the 3 published rows it is not known" in notes
    assert "follow it" not in notes
    scored = make_run(at="original", notes={"lavt": "masks and truth both resized"})
    assert "‡ another protocol. mine: masks and truth both resized." in notes_of([scored])


def test_targets_meant_to_be_empty_are_counted_in_the_notes():
    assert "n = 3,481 (7 with empty truth), 5 without target on purpose, input" in notes_of(
        [make_run(n_empty=7, values={"n_no_target": 5})]
    )


def test_the_published_file_marks_every_row_that_does_not_follow_the_protocol():
    table = build_tables([make_run()], load_published())[0]
    unmarked = {row.label for row in table.rows if not row.own and not row.symbols}
    assert unmarked == {"LAVT", "LGCE", "RMSIN", "CADFormer"}
    other = build_tables([make_run(protocols=("detris",))], load_published(), protocol="detris")[0]
    assert all({"unknown-protocol", "other-protocol"} & set(row.marks) for row in other.rows if not row.own)


# ---- seeds


def test_seeds_are_merged_into_mean_and_sample_deviation():
    runs = [make_run(value, seed=seed) for seed, value in enumerate((0.5, 0.6, 0.7))]
    (row,) = rows_of(runs).values()
    assert row.scores["mIoU"] == pytest.approx((60.0, 10.0))
    assert (row.source, row.fields["seeds"]) == ("3 seeds", "0 1 2")
    each = rows_of(runs, group=False)
    assert set(each) == {"mine (seed 0)", "mine (seed 1)", "mine (seed 2)"}
    assert each["mine (seed 2)"].scores["mIoU"] == (70.0, None)


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({"name": "other"}, {"mine", "other"}),
        ({"checkpoint": "last.ckpt"}, {"mine (best.ckpt, seed 0)", "mine (last.ckpt, seed 1)"}),
        ({"image_size": 512}, {"mine (480, seed 0)", "mine (512, seed 1)"}),
        ({"expressions": "shuffled with seed 0"}, {"mine (seed 0)", "mine (shuffled, seed 1)"}),
        ({"placement": "side"}, {"mine (inside, seed 0)", "mine (side, seed 1)"}),
        ({"placement": None}, {"mine (inside, seed 0)", "mine (seed 1)"}),
        ({"tuning": None}, {"mine (s4eca, seed 0)", "mine (seed 1)"}),
        ({"tuning": "lora"}, {"mine (s4eca, seed 0)", "mine (lora, seed 1)"}),
        ({"learned_parameters": {"method": 3}}, {"mine (seed 0)", "mine (seed 1)"}),
        ({"n": 40}, {"mine (seed 0)", "mine (seed 1)"}),
    ],
)
def test_what_differs_by_more_than_the_seed_stays_apart(fields, labels):
    common = {"checkpoint": "best.ckpt", "tuning": "s4eca", "expressions": "real", "learned_parameters": {"method": 2}}
    common["placement"] = "inside"
    runs = [make_run(**common), make_run(**{**common, "seed": 1, **fields})]
    assert set(rows_of(runs)) == labels


@pytest.mark.parametrize("seeds", [(0, 0), (0, None), (0, 1, 0)])
def test_nothing_is_merged_where_seeds_are_not_all_different(seeds):
    runs = [make_run(seed=seed, path=f"{i}/metrics.json") for i, seed in enumerate(seeds)]
    assert len(rows_of(runs)) == len(seeds)
    shown = ", ".join("none" if seed is None else str(seed) for seed in seeds)
    assert (
        f"mine: {len(seeds)} evaluations are shown each for itself, as their seeds are not all different ({shown})"
        in (notes_of(runs))
    )
    assert "deviation" not in notes_of(runs)


# ---- settings


def test_unknown_settings_are_named():
    with pytest.raises(S4ecaError, match="There is no protocol 'coco': choose one of lavt, original, detris"):
        build_tables([make_run()], [], protocol="coco")
    with pytest.raises(S4ecaError, match=r"cannot be sorted by 'IoU': choose one of Pr@0\.5"):
        build_tables([make_run()], [], sort="IoU")
    with pytest.raises(
        S4ecaError, match=re.escape("run/metrics.json has no scores of the protocol detris, only of lavt")
    ):
        build_tables([make_run()], [], protocol="detris")


# ---- files


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def content_of(run: Run) -> dict:
    return {"about": run.about, "protocols": run.protocols, "intervals": {}}


def test_files_evaluations_and_run_folders_are_found_once(tmp_path):
    best = write(tmp_path / "a" / "eval" / "best_test" / "metrics.json", content_of(make_run(seed=1)))
    last = write(tmp_path / "a" / "eval" / "last_val" / "metrics.json", content_of(make_run(split="val")))
    score = write(tmp_path / "scores.json", content_of(make_run(name=None)))
    assert [run.path for run in find_runs([tmp_path / "a"])] == [best, last]
    assert [run.path for run in find_runs([score, best.parent, tmp_path / "a", best])] == [score, best, last]
    assert find_runs([score])[0].name == "scores"
    nameless = write(tmp_path / "b" / "best_test" / "metrics.json", content_of(make_run(name="")))
    assert find_runs([nameless])[0].name == "best_test"


def test_evaluations_of_label_maps_are_left_out(tmp_path):
    of_expressions = write(tmp_path / "eval" / "rrsis_d_test" / "metrics.json", content_of(make_run()))
    labels = {"task": "semantic", "about": {"dataset": "isaid", "split": "val"}, "scores": {}}
    of_labels = write(tmp_path / "eval" / "isaid_val" / "metrics.json", json.dumps(labels))
    with pytest.warns(UserWarning, match="1 evaluations of label maps are left out"):
        assert [run.path for run in find_runs([tmp_path])] == [of_expressions]
    with pytest.warns(UserWarning, match="label maps"), pytest.raises(S4ecaError, match="no evaluation of expressions"):
        find_runs([of_labels])


def test_a_sweep_is_its_runs(tmp_path):
    files = [
        write(tmp_path / f"lora_{seed}" / "eval" / "best_test" / "metrics.json", content_of(make_run(seed=seed)))
        for seed in (1, 2)
    ]
    write(tmp_path / "multirun.yaml", "a: 1")
    (tmp_path / ".submitit").mkdir()
    for hidden in (".old/eval/best_test", "lora_1/eval/.draft", "lora_1/eval/._best_test"):
        write(tmp_path / hidden / "metrics.json", "{")
    assert [run.path for run in find_runs([tmp_path])] == files
    assert [run.path for run in find_runs(sorted(tmp_path.glob("[lm]*")))] == files
    with pytest.raises(S4ecaError, match=r"no evaluation of expressions in .*multirun\.yaml: give the run folders too"):
        find_runs([tmp_path / "multirun.yaml"])
    write(tmp_path / "mona_1" / "config.yaml", "name: mona")
    with pytest.warns(UserWarning, match="holds 1 runs without evaluation, which are left out: mona_1"):
        assert [run.path for run in find_runs([tmp_path])] == files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "damaged, it is not JSON"),
        ("[]", "not say which dataset and split it is of ('about')"),
        ({"about": None}, "not say which dataset and split it is of ('about')"),
        ({"about": {"dataset": "rrsis_d"}}, "not say which dataset and split"),
        ({"protocols": {}}, "no scores ('protocols')"),
        ({"protocols": {"lavt": 3}}, "damaged, protocol lavt is not an object"),
        ({"mIoU": 64.2}, "protocol lavt has mIoU = 64.2 instead of a fraction"),
        ({"mIoU": "0.5"}, "protocol lavt has mIoU = '0.5' instead of a fraction"),
        ({"mIoU": True}, "protocol lavt has mIoU = True instead of a fraction"),
        ({"Pr@0.7": ...}, "protocol lavt lacks Pr@0.7"),
        ({"n": ...}, "protocol lavt has n = None instead of a count"),
        ({"n_empty": -1}, "protocol lavt has n_empty = -1 instead of a count"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change, message):
    content = content_of(make_run())
    if isinstance(change, str):
        content = change
    elif change.keys() & content.keys():
        content = {**content, **change}
    else:
        scores = {**content["protocols"]["lavt"], **change}
        content["protocols"] = {"lavt": {key: value for key, value in scores.items() if value is not ...}}
    path = write(tmp_path / "metrics.json", content)
    with pytest.raises(S4ecaError, match=re.escape(str(path)) + ".* " + re.escape(message)) as caught:
        find_runs([path])
    assert str(caught.value).count("\n") == 0


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "metrics.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(S4ecaError, match=r"metrics\.json cannot be read as text"):
        find_runs([tmp_path])


def test_a_folder_without_evaluations_is_named(tmp_path):
    with pytest.raises(S4ecaError, match=re.escape(f"{tmp_path} holds neither metrics.json nor eval/*/metrics.json")):
        find_runs([tmp_path])
    with pytest.raises(S4ecaError, match=re.escape(f"There is no {tmp_path / 'nothing'}")):
        find_runs([tmp_path / "nothing"])


# ---- escaping

NASTY = st.text(alphabet="aB1 -_*`|\\<>[]()~&#$%^{}\"'!.+=:/–†é\n", min_size=1, max_size=12)
PLAIN_LATEX = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textasciigrave{}": "`",
    r"\dag{}": "†",
    r"$<$": "<",
    r"$>$": ">",
    r"$|$": "|",
    r"\{": "{",
    r"\}": "}",
    r"\&": "&",
    r"\%": "%",
    r"\$": "$",
    r"\#": "#",
    r"\_": "_",
    "''": '"',
    "-{}": "-",
    r"\textendash{}": "–",
}


def markdown_cells(text: str) -> list[str]:
    """The first column of the only table, as a reader of the rendered page sees it."""
    tokens = MARKDOWN.parse(text)
    rows = [index for index, token in enumerate(tokens) if token.type == "tr_open"][1:]
    return ["".join(child.content for child in tokens[index + 2].children or []) for index in rows]


def read_latex(text: str) -> str:
    """What LaTeX prints for an escaped text; fails at any character that would be a command."""
    result, position = "", 0
    while position < len(text):
        for sequence, plain in PLAIN_LATEX.items():
            if text.startswith(sequence, position):
                result, position = result + plain, position + len(sequence)
                break
        else:
            assert text[position] not in '\\{}&%$#_^~<>|`"', (text, position)
            result, position = result + text[position], position + 1
    return result


@settings(max_examples=200, deadline=None)
@given(NASTY)
@example("| a")
@example("1. a")
@example("- a")
@example("---")
@example("__a__")
@example("a&lt;b")
def test_markdown_shows_any_text_as_it_is(text):
    shown = " ".join(text.split())
    if not shown:
        return
    (note,) = [token for token in MARKDOWN.parse(f"- {escape_markdown(text)}") if token.type == "inline"]
    assert "".join(child.content for child in note.children or []) == shown
    tables = build_tables([make_run(name="run")], [make_published(text, 99.0)])
    first, run = markdown_cells(to_markdown(tables))
    assert (first, run) == (shown, "run")


@settings(max_examples=200, deadline=None)
@given(NASTY)
@example("a--b---c")
def test_latex_prints_any_text_as_it_is(text):
    # an apostrophe pair and a quotation mark look the same
    assert read_latex(escape_latex(text)).replace('"', "''") == " ".join(text.split()).replace('"', "''")


@settings(max_examples=100, deadline=None)
@given(NASTY)
def test_csv_gives_any_text_back(text):
    content = to_csv(build_tables([make_run()], [make_published(text, 99.0, remark=text)]))
    first = next(csv.DictReader(io.StringIO(content, newline="")))
    assert (first["method"], first["remark"]) == (text, text)


@settings(max_examples=100, deadline=None)
@given(NASTY)
def test_latex_tables_are_balanced_with_any_name(text):
    latex = to_latex(build_tables([make_run(name=text)], [make_published(text, remark=text, reported_in=text)]))
    bare = re.sub(r"\\[\\{}&%$#_]", "", re.sub(r"^%.*", "", latex))
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    body = latex.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [8, 8]


def test_a_run_whose_name_is_markup_is_still_bold():
    html = MARKDOWN.render(to_markdown(build_tables([make_run(name="a*|*_b")], [])))
    assert "<strong>a*|*_b</strong>" in html


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    tables = build_tables([make_run(name="a_b ~ # \\x{}"), make_run(split="val")], load_published())
    document = (
        "\\documentclass{article}\n\\usepackage[utf8]{inputenc}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"{to_latex(tables)}\\end{{document}}\n"
    )
    (tmp_path / "t.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
