import shlex
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4eca.errors import S4ecaError
from s4eca.text import MARK, byte_lines, decode, guess_encoding, read_json, read_text, unmark_values

CHINESE = "12 左边的红色屋顶\n13 港口里的白色船只\n"
FRENCH = "5 la maison près de l'église\n6 la forêt à côté\n"


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        (CHINESE, "gbk", "GBK"),
        (CHINESE, "utf-16", "UTF-16"),
        (CHINESE, "utf-16-le", "UTF-16LE"),
        (CHINESE, "utf-16-be", "UTF-16BE"),
        (CHINESE, "utf-32", "UTF-32"),
        ("5 the red roof\n", "utf-16-le", "UTF-16LE"),
        ("5 左邊的紅色屋頂\n6 港口裡的白色船隻\n", "big5", "BIG5"),
        ("5 左の赤い屋根\n6 港の白い船\n", "shift_jis", "SHIFT_JIS"),
        (FRENCH, "latin-1", "WINDOWS-1252"),
        ("5 die größere Straße rechts\n", "cp1252", "WINDOWS-1252"),
        ("5 the ship\u2019s deck\n", "cp1252", "WINDOWS-1252"),
    ],
)
def test_other_encodings_are_named_and_the_printed_command_converts_them(tmp_path, text, codec, name):
    path = tmp_path / "my phrases (1).txt"
    path.write_bytes(text.encode(codec))
    with pytest.raises(S4ecaError, match=rf"my phrases \(1\)\.txt .*not UTF-8 but probably {name} ") as error:
        read_text(path)
    command = str(error.value).split("`")[1]
    assert shlex.split(command)[:5] == ["iconv", "-f", name, "-t", "UTF-8"]
    if shutil.which("iconv"):
        subprocess.run(command, shell=True, check=True)
        assert read_text(tmp_path / "my phrases (1).txt.utf8") == text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CHINESE.encode()[:-3] + b"\n", r"line 2 is not UTF-8 text but has the byte 0xe5"),
        (b"1 a\r\n2 b\r3 \xff\xfe\xff\n", r"line 3 .* 0xff"),
        (b"1 car\n\0\0\0\0", r"line 2 .* 0x00"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "HTML page"),
        (b"PK\x03\x04 and more", "ZIP"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "macOS"),
    ],
)
def test_what_is_no_text_is_not_taken_for_another_encoding(tmp_path, content, words):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(S4ecaError, match=rf"a\.txt cannot be read as text.*{words}") as error:
        read_text(path)
    assert "iconv" not in str(error.value)


def test_marks_are_left_out_wherever_they_stand(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + '{"a\ufeff": "\ufeffx", "b": ["\\ufeffy"]}'.encode())
    assert read_json(path) == {"a": "x", "b": ["\ufeffy"]}
    assert unmark_values({"a": "\ufeffx\ufeff", "b": 3}) == {"a": "x", "b": 3}
    assert guess_encoding(b"\xef\xbb\xbf") is None
    assert guess_encoding(b'{"207": {"size": [24, 32], "counts": "abcd"}}\0') is None  # one zero is damage


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_any_utf8_is_read_as_it_is(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    for mark in (b"", MARK.encode()):
        content = mark + text.encode()
        assert decode(content, path) == content.decode()


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",))), st.integers(0, 2))
    )
)
def test_lines_are_numbered_and_placed(lines):
    content = b"".join(text.encode() + (b"\n", b"\r\n", b"\r")[end] for text, end in lines)
    # an old Mac's end before an empty Linux line is a Windows end: one line less, and none of ours is lost
    found = list(byte_lines([content]))
    wanted = [text.encode().removeprefix(MARK.encode()) for text, _ in lines]
    assert [line.rstrip(b"\r\n") for _, _, line in found] == [line for line in wanted if line.strip()]
    for number, offset, line in found:
        assert content[offset : offset + len(line)] == line
        before = content[:offset].decode().replace("\r\n", "\n").replace("\r", "\n")
        assert number == before.count("\n") + 1
