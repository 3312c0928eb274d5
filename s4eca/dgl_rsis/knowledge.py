"""What is known of a dataset's classes: how they are called, how they look from above, and what is told to CLIP.

The words are data: files in `knowledge_files`, or a user's own. That names, synonyms and a description of the overhead
view enrich the prompts is our reading of the "knowledge-guided prompt engineering" of DGL-RSIS (arXiv:2509.00598); its
lists were not available, so the words are ours (reconstruction). Averaging over templates follows CLIP (Radford et al.,
ICML 2021).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from s4eca.errors import S4ecaError
from s4eca.folders import is_hidden
from s4eca.text import read_text

LEVELS = ("P0", "P1", "P2", "P3")
_FILES = files("s4eca.dgl_rsis") / "knowledge_files"
_SEPARATORS = re.compile(r"[\s_-]+")
_KEYS = ("natural", "templates", "background", "classes")
_CLASS_KEYS = ("name", "spoken", "synonyms", "description")


@dataclass(frozen=True)
class Entry:
    """One class.

    Attributes:
        name: as the dataset writes it: `baseballfield`.
        spoken: as it is said: `baseball field`.
        synonyms: other ways to say it.
        description: how it looks from above; empty where there is none.
    """

    name: str
    spoken: str
    synonyms: tuple[str, ...] = ()
    description: str = ""

    def forms(self) -> list[str]:
        """Returns all that the class is called, with plurals."""
        said = [self.spoken, *self.synonyms]
        return list(dict.fromkeys([self.name, *said, *(plural(words) for words in said)]))


@dataclass(frozen=True)
class Knowledge:
    """The classes of a dataset in words.

    Attributes:
        natural: the template for photos, `{}` standing for the class.
        templates: those for remote sensing images.
        background: names of what an image shows beside the classes.
        classes: in the dataset's order.

    Raises:
        S4ecaError: no class, a text that is empty, a template without one `{}`, or two classes with the same words.
    """

    natural: str
    templates: tuple[str, ...]
    background: tuple[str, ...]
    classes: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if not self.templates:
            raise S4ecaError("the knowledge has no templates; give at least one under `templates`.")
        if not self.classes:
            raise S4ecaError("the knowledge has no classes; give at least one under `classes`.")
        for template in (self.natural, *self.templates):
            if template.count("{}") != 1:
                key = "natural" if template == self.natural else "templates"
                raise S4ecaError(
                    f"the template {template!r} under `{key}` of the knowledge does not hold {{}} once; write {{}}"
                    " where the class goes."
                )
        owners: dict[str, str] = {}
        for entry in self.classes:
            if [other.name for other in self.classes].count(entry.name) > 1:
                raise S4ecaError(f"the class {entry.name!r} stands twice under `classes` of the knowledge; remove one.")
            for words in entry.forms():
                _claim(owners, words, f"the class {entry.name!r}")
        for words in self.background:
            for form in (words, plural(words)):
                _claim(owners, form, f"the background {words!r}")

    @classmethod
    def load(cls, source: str | Path) -> "Knowledge":
        """Reads one of the package's files by its name, or a user's by its path.

        Args:
            source: `rrsis_d`, `refsegrs`, `isaid`, or the path of a YAML file in the form of theirs.

        Raises:
            S4ecaError: there is no such name or file, or a key of it is missing, unknown or of the wrong kind.
        """
        path = Path(source)
        if path.suffix.lower() in (".yaml", ".yml") or len(path.parts) > 1:
            try:
                text = read_text(path)
            except OSError as error:
                raise S4ecaError(f"the knowledge {path} cannot be read ({error}); give knowledge=PATH.") from error
        elif str(source) in available():
            text = (_FILES / f"{source}.yaml").read_text(encoding="utf-8")
        else:
            raise S4ecaError(
                f"knowledge={source} is none of {', '.join(available())}; take one of them, or give the path of a YAML"
                " file."
            )
        try:
            content = OmegaConf.to_container(OmegaConf.create(text))
        except Exception as error:  # the parser's own errors, and those for what is no mapping or list
            reason = " ".join(str(error).split())
            raise S4ecaError(f"the knowledge {source} is no YAML ({reason}); correct it.") from error
        return _parse(content, str(source))

    def prompts(self, level: str) -> dict[str, tuple[str, ...]]:
        """Returns, for each class by its name, the texts whose features are averaged.

        Args:
            level: `P0` the spoken name in the template for photos, `P1` in those for remote sensing images, `P2` the
                synonyms there too, `P3` the description as well.

        Raises:
            S4ecaError: an unknown level.
        """
        return {entry.name: self._fill(level, entry) for entry in self.classes}

    def background_prompts(self, level: str) -> dict[str, tuple[str, ...]]:
        """Returns the same for the background; it has neither synonyms nor descriptions.

        Raises:
            S4ecaError: an unknown level.
        """
        return {name: self._fill(level, Entry(name, name)) for name in self.background}

    def vocabulary(self) -> dict[str, str]:
        """Returns each way to say a class, plurals included, with the class's name."""
        return {words: entry.name for entry in self.classes for words in entry.forms()}

    def find(self, words: str) -> str | None:
        """Returns the class that is called so, None where there is none; capitals, blanks and hyphens do not count."""
        return {_key(form): name for form, name in self.vocabulary().items()}.get(_key(words))

    def identity(self) -> dict[str, Any]:
        """Returns all of it as plain values."""
        plain = asdict(self)
        entries = [{**entry, "synonyms": list(entry["synonyms"])} for entry in plain["classes"]]
        return {
            "natural": self.natural,
            "templates": list(self.templates),
            "background": list(self.background),
            "classes": entries,
        }

    def _fill(self, level: str, entry: Entry) -> tuple[str, ...]:
        if level not in LEVELS:
            raise S4ecaError(f"prompts={level} is no level of knowledge; take one of {', '.join(LEVELS)}.")
        rank = LEVELS.index(level)
        names = [entry.spoken]
        names += entry.synonyms if rank >= 2 else ()
        names += [entry.description] if rank >= 3 and entry.description else []
        templates = self.templates if rank else (self.natural,)
        return tuple(dict.fromkeys(template.replace("{}", name) for name in names for template in templates))


def available() -> list[str]:
    """Returns the names of the package's knowledge files."""
    return sorted(
        item.name.removesuffix(".yaml")
        for item in _FILES.iterdir()
        if item.name.endswith(".yaml") and not is_hidden(item.name)
    )


def plural(words: str) -> str:
    """Returns the regular plural of a noun phrase; that of nouns such as aircraft is found under the singular."""
    if re.search(r"(?:s|x|z|ch|sh)$", words, re.IGNORECASE):
        return f"{words}es"
    if re.search(r"[^aeiou]y$", words, re.IGNORECASE):
        return f"{words[:-1]}ies"
    return f"{words}s"


def _key(words: str) -> str:
    return _SEPARATORS.sub("", words).casefold()


def _claim(owners: dict[str, str], words: str, owner: str) -> None:
    if not re.search(r"[^\W\d_]", words):
        raise S4ecaError(f"{owner} of the knowledge is called {words!r}, which holds no letter; write a word.")
    first = owners.setdefault(_key(words), owner)
    if first != owner:
        raise S4ecaError(f"{first} and {owner} of the knowledge are both called {words!r}; take it from one of them.")


def _parse(content: Any, source: str) -> Knowledge:
    """Checks what a file holds, key by key."""
    top = _mapping(content, _KEYS, source, "")
    entries = []
    raw = top.get("classes")
    if not isinstance(raw, list):
        raise S4ecaError(f"`classes` of the knowledge {source} is no list; list the classes there.")
    for place, item in enumerate(raw):
        where = f"classes[{place}]."
        fields = _mapping(item, _CLASS_KEYS, source, where)
        name = _text(fields, "name", source, where)
        entries.append(
            Entry(
                name=name,
                spoken=_text(fields, "spoken", source, where, name),
                synonyms=_texts(fields, "synonyms", source, where, ()),
                description=_text(fields, "description", source, where, ""),
            )
        )
    try:
        return Knowledge(
            natural=_text(top, "natural", source, ""),
            templates=_texts(top, "templates", source, ""),
            background=_texts(top, "background", source, "", ()),
            classes=tuple(entries),
        )
    except S4ecaError as error:
        raise S4ecaError(f"in {source}: {error}") from error


def _mapping(value: Any, known: Sequence[str], source: str, where: str) -> Mapping[str, Any]:
    what = f"`{where.rstrip('.')}` of the knowledge {source}" if where else f"the knowledge {source}"
    if not isinstance(value, dict):
        raise S4ecaError(f"{what} is no mapping; give it the keys {', '.join(known)}.")
    for key in value:
        if key not in known:
            raise S4ecaError(f"{what} has the unknown key `{key}`; its keys are {', '.join(known)}.")
    return value


def _text(fields: Mapping[str, Any], key: str, source: str, where: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    # a default of "" means that there need be none
    if not isinstance(value, str) or (not value.strip() and value != default):
        raise S4ecaError(f"`{where}{key}` of the knowledge {source} is {value!r}; write a text there, in quotes.")
    return value.strip()


def _texts(
    fields: Mapping[str, Any], key: str, source: str, where: str, default: Sequence[str] | None = None
) -> tuple[str, ...]:
    values = fields.get(key, default)
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise S4ecaError(f"`{where}{key}` of the knowledge {source} is {values!r}; write a list of texts there.")
    numbered = {str(place): value for place, value in enumerate(values)}
    return tuple(_text(numbered, str(place), source, f"{where}{key}.") for place in range(len(values)))
