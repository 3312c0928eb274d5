import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4eca.data.readers.phrases import read_phrases, split_phrase
from s4eca.errors import S4ecaError

BLANKS = [" ", "  ", "\t", "\u3000", "\xa0", " \t ", "\u2003", "\x0b"]


@pytest.mark.parametrize("blank", BLANKS)
def test_a_name_ends_at_any_white_space(blank):
    assert split_phrase(f"{blank}7{blank}the red  roof{blank}") == ("7", "the red  roof")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("<7.png> the roof", ("7.png", "the roof")),
        ("<7.png>the roof", ("7.png", "the roof")),
        ("<a b.png>\tthe roof", ("a b.png", "the roof")),
        ("<7.png the roof", ("7.png", "the roof")),
        ("7", ("7", "")),
        ("<7.png>", ("7.png", "")),
        ("<> the roof", ("", "the roof")),
        ("", ("", "")),
        ("7,the roof", ("7,the", "roof")),
        ("7 a\u2028b", ("7", "a\u2028b")),
    ],
)
def test_lines(line, expected):
    assert split_phrase(line) == expected


WORD = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="<>"), min_size=1)
SPACE = st.text(st.sampled_from("".join(BLANKS)), min_size=1)


@given(WORD, SPACE, st.lists(WORD, min_size=1), st.sampled_from(["", " ", "\t", "\r", "\u3000"]))
def test_any_line_is_split_where_it_was_joined(name, space, words, around):
    expression = " ".join(words)
    assert split_phrase(f"{around}{name}{space}{expression}{around}") == (name, expression)
    assert split_phrase(f"{around}<{name}>{space}{expression}{around}") == (name, expression)


def test_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff5 a\ufeff car\r\n\u3000\r\n\n6\troof\r7 b\x0cc\x85d\r\n\n".encode())
    assert read_phrases(path) == [(1, "5", "a car"), (4, "6", "roof"), (5, "7", "b\x0cc\x85d")]
    path.write_text("5 car\n\n<> roof\n")
    with pytest.raises(S4ecaError, match=r"Line 3 of .*a\.txt has no name \('<> roof'\)"):
        read_phrases(path)
    path.write_text("5 car\r\r6\n")
    with pytest.raises(S4ecaError, match=r"Line 3 of .*a\.txt has no expression \('6'\)"):
        read_phrases(path)
