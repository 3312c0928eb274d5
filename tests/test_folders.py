import re
from pathlib import Path

import s4eca
from s4eca.folders import is_hidden, visible

PACKAGE = Path(s4eca.__file__).parent
# what is listed there is the program's own, or has to be seen whole because it would be replaced
OWN = {
    "s4eca/folders.py": "the helper itself",
    "s4eca/data/readers/listing.py": "leaves hidden files out itself, and is asked for single ones",
    "s4eca/data/readers/writing.py": "a folder that is replaced",
    "s4eca/data/synthetic/module.py": "a folder that is replaced",
    "s4eca/evaluation/predictions/png.py": "a tree that is walked, and replaced",
    "s4eca/evaluation/page/panels.py": "its own pictures",
    "s4eca/evaluation/semantic/pictures.py": "its own pictures",
    "s4eca/cache.py": "its own files, hidden while they are written",
    "s4eca/tokenizer.py": "a temporary folder",
    "s4eca/dgl_rsis/knowledge.py": "a resource of the package, which leaves hidden files out itself",
    "s4eca/cli/sweep.py": "folders that it made",
}


def test_hidden_files_and_what_is_below_hidden_folders_are_passed_over(tmp_path):
    root = tmp_path / ".hidden root"
    for name in ("b.jsonl", "a.jsonl", "._a.jsonl", ".DS_Store", "sub/c.jsonl", ".git/d.jsonl", "__MACOSX/e.jsonl"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "Thumbs.db").touch()
    assert visible(root, "*.jsonl") == [root / "a.jsonl", root / "b.jsonl"]
    assert visible(root, "**/*.jsonl") == [root / "a.jsonl", root / "b.jsonl", root / "sub/c.jsonl"]
    assert visible(root) == [root / "a.jsonl", root / "b.jsonl", root / "sub"]
    assert visible(root / "absent") == []
    assert [is_hidden(name) for name in ("desktop.ini", "a.b", "_a")] == [True, False, False]


def test_every_other_listing_of_the_package_goes_through_the_helper():
    listing = re.compile(r"\.r?glob\(|\.iterdir\(|\bos\.(listdir|scandir|walk)\(")
    found = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*.py")
        if listing.search(path.read_text(encoding="utf-8"))
    }
    assert found == set(OWN)
