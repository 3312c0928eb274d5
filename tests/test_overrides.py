"""KEY=VALUE that is printed can be pasted, and KEY=VALUE that cannot be read is explained with the form that can."""

import shlex
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from s4eca.errors import S4ecaError
from s4eca.overrides import PLACES, check_overrides, plain_text, shell_word

AWKWARD = st.text(st.sampled_from("ab1/.=,()[]{}'\"#&$~:;!?*|<>`^%@+- \\\t图é\u3000\u00a0"), max_size=12)
ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=8)
WORDLIKE = st.from_regex(r"(null|true|nan|inf|NaN|[0-9a-z_./:+-]{1,6})", fullmatch=True)
PATHS = (AWKWARD | ANY | WORDLIKE).filter(lambda path: path.strip() and "${" not in path and path != "???")

NAMED = [
    "/数据/图",
    "/a ",
    "/a b (1)",
    "/a=b",
    "[0]",
    "/it's",
    "/a#b&c",
    "lr=0.1,seed=1",
    "{a}",
    "/a$b",
    "a\\",
    "1",
    "~x",
]


def read(word: str) -> object:
    parsed = OverridesParser.create().parse_override(word)
    assert not parsed.is_sweep_override()
    return parsed.value()


@given(PATHS)
@settings(max_examples=150, deadline=None)
def test_hydra_reads_the_printed_word_back(path):
    (word,) = shlex.split(shell_word("data.root", path))
    assert read(word) == path
    check_overrides([word])
    assert plain_text(word.partition("=")[2]) == path, "a command's own keys take the same form"


@given(PATHS.filter(lambda path: path[0] not in "'\"" and "\\" not in path))
@settings(max_examples=150, deadline=None)
def test_a_path_is_read_as_it_stands_or_explained(path):
    """A value in quotes or with backslashes is in Hydra's grammar on purpose."""
    given = f"data.root={path}"
    try:
        check_overrides([given])
    except S4ecaError as error:
        (word,) = shlex.split(str(error).rpartition("write ")[2].removesuffix(" in a shell."))
        assert read(word) == (str(Path(path).expanduser()) if path.partition("/")[0] == "~" else path)
    else:
        assert read(given) == path or (path.lower() == "null" and read(given) is None)


def test_a_shell_gives_the_printed_words_back():
    words = " ".join(shell_word("ckpt", path) for path in NAMED)
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True).stdout
    assert [read(word) for word in printed.decode().split("\0")[:-1]] == NAMED


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["data.root=/a\nb"], "line break"),
        (["data.root="], "data.root=PATH"),
        (['data.root=""'], "data.root=PATH"),
        (["data.root=???"], "data.root=PATH"),
        (["data.root=/a${b"], "holds ${ itself"),
        (['data.root="/a${b"'], "holds ${ itself"),
        (["hydra.run.dir=1"], "'hydra.run.dir=\"1\"'"),
        (["+callbacks.best.dirpath=[1]"], "'+callbacks.best.dirpath=\"[1]\"'"),
        (["data.root=/my", "folder"], "'data.root=\"/my folder\"'"),
        (["folder"], "folder is no KEY=VALUE"),
        (["a b=c"], "a b is no name of a key"),
        (["seed=1,2"], "several values"),
        (["vision.options.num_heads=[1,2"], "num_heads=[1,2 has characters"),
    ],
)
def test_what_cannot_be_meant_is_named(given, named):
    with pytest.raises(S4ecaError) as error:
        check_overrides(given)
    assert named in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        *("seed=1", "vision.options.num_heads=[1,2]", "~callbacks.ema", "+a={b:1}", "++a=null", "hydra/launcher=slurm"),
        *(
            "data.root=${oc.env:DATA}/x",
            "ckpt=null",
            "data.root=/a\\,b",
            "data.root='a'",
            "hydra.run.dir=a b",
            "name=1",
        ),
    ],
)
def test_what_hydra_reads_as_it_is_meant_passes(given):
    check_overrides([given])


def test_only_a_multirun_has_several_values():
    check_overrides(["seed=1,2", "data.root=/a,/b", "model.lr=interval(0,1)"], several=True)


def test_keys_of_paths_hold_no_numbers_or_lists():
    """What is refused as a path would have no other meaning in any config."""
    leaves = []

    def walk(node):
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value)
            elif key in PLACES:
                leaves.append(value)

    for file in (Path(__file__).parents[1] / "conf").rglob("*.yaml"):
        walk(OmegaConf.to_container(OmegaConf.load(file)))
    assert len(leaves) > 20
    assert {type(value) for value in leaves} <= {str, type(None)}
