"""The stages that need a model, each kept on disk under a key of all that its result depends on."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from s4eca.cache import DiskCache, digest
from s4eca.dgl_rsis.base import Grounding, Proposer, RegionEncoder
from s4eca.dgl_rsis.parts import Maps, Phrase, Proposals, View
from s4eca.errors import S4ecaError

STAGES = ("proposals", "regions", "texts", "maps")
"""In the order in which they run; what follows them, the selection, needs no model."""

_CONTENT_VERSION = 1  # raise it when a stage gives other values for the same settings

T = TypeVar("T")


def name_pixels(image: np.ndarray) -> str:
    """Returns the `View.key` of an image (H, W, 3) uint8: equal pixels have equal keys, whatever file they are from."""
    content = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
    return f"{image.shape[0]}x{image.shape[1]}-{content.hexdigest()}"


class Stages:
    """Runs a stage, or reads what it gave before.

    Every result has a key of its own, made of the stage's settings, the hash of its weights and the content of its
    inputs: what another config made is never served, a damaged entry is made again with a warning, and any number of
    processes can fill one folder. Killed and started again it goes on where it was.

    Args:
        proposer: of the masks.
        regions: encoder of masks and texts; None where only proposals are asked for.
        grounding: of the words, alike.
        cache: folder that keeps the results; None keeps those of the last image in memory only.

    Attributes:
        seconds: by stage, how long each result took that was made and not read.
        reused: by stage, how many were read from the folder.
    """

    def __init__(
        self,
        proposer: Proposer,
        regions: RegionEncoder | None = None,
        grounding: Grounding | None = None,
        cache: str | Path | None = None,
    ) -> None:
        self.proposer, self._regions, self._grounding = proposer, regions, grounding
        self._disks = None if cache is None else {name: DiskCache(cache, name, "model.cache") for name in STAGES}
        identities = {"proposals": proposer.identity()}
        if regions is not None:
            identities |= {"regions": regions.identity(), "texts": regions.text_identity()}
        if grounding is not None:
            identities["maps"] = grounding.identity()
        self._identities = {
            stage: digest(version=_CONTENT_VERSION, made_by=identity) for stage, identity in identities.items()
        }
        self._last: dict[str, tuple[str, object]] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.reused: dict[str, int] = dict.fromkeys(STAGES, 0)

    @property
    def encoder(self) -> RegionEncoder:
        """The encoder of masks and texts."""
        assert self._regions is not None
        return self._regions

    @property
    def grounding(self) -> Grounding:
        """The grounding model."""
        assert self._grounding is not None
        return self._grounding

    def proposals(self, view: View) -> Proposals:
        """Returns the masks of an image."""

        def make() -> Proposals:
            return self.proposer.propose(view)

        return self._result("proposals", self._proposals_key(view), make, Proposals.pack, Proposals.unpack)

    def regions(self, view: View) -> np.ndarray:
        """Returns the features (K, D) float32 of the proposals of an image."""

        def make() -> np.ndarray:
            return self.encoder.encode_regions(view, self.proposals(view))

        key = digest(stage=self._identities["regions"], proposals=self._proposals_key(view))
        return self._result("regions", key, make, _pack_array, _unpack_array)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the features (T, D) float32 of texts, at least one; those not there yet are encoded together."""
        keys = [digest(stage=self._identities["texts"], text=text) for text in texts]

        def make(missing: list[str]) -> list[dict[str, np.ndarray]]:
            return [_pack_array(row) for row in self.encoder.encode_texts(missing)]

        return np.stack([_unpack_array(entry) for entry in self._results("texts", keys, texts, make)])

    def maps(self, view: View, phrases: Sequence[Phrase]) -> list[Maps]:
        """Returns the maps of phrases in one image; those that are not there yet are made together."""
        keys = [
            digest(
                stage=self._identities["maps"],
                image=view.key,
                text=phrase.text,
                local=phrase.spans(phrase.local),
                context=phrase.spans(phrase.context),
            )
            for phrase in phrases
        ]

        def make(missing: list[Phrase]) -> list[dict[str, np.ndarray]]:
            return [maps.pack() for maps in self.grounding.maps(view, missing)]

        return [Maps.unpack(entry) for entry in self._results("maps", keys, phrases, make)]

    def _proposals_key(self, view: View) -> str:
        truth = None
        if self.proposer.needs_truth:
            if view.truth is None:
                raise S4ecaError("this proposer looks at the truth, and these samples have none; choose another one.")
            truth = hashlib.blake2b(np.packbits(view.truth).data, digest_size=16).hexdigest()
        inputs = dict(self.proposer.inputs(view))
        return digest(stage=self._identities["proposals"], image=view.key, truth=truth, inputs=inputs)

    def _result(
        self,
        stage: str,
        key: str,
        make: Callable[[], T],
        pack: Callable[[T], Mapping[str, np.ndarray]],
        unpack: Callable[[Mapping[str, np.ndarray]], T],
    ) -> T:
        """Returns what a stage gives for an image; that of the last one is at hand, since expressions share images."""
        last_key, last = self._last.get(stage, ("", None))
        if last_key == key:
            return last  # type: ignore[return-value]
        entry = self._read(stage, key)
        if entry is not None:
            result = unpack(entry)
        else:
            with self._timed(stage):
                result = make()
            self._write(stage, key, pack(result))
        self._last[stage] = (key, result)
        return result

    def _results(
        self,
        stage: str,
        keys: Sequence[str],
        items: Sequence[T],
        make: Callable[[list[T]], Sequence[Mapping[str, np.ndarray]]],
    ) -> list[Mapping[str, np.ndarray]]:
        """Returns what a stage gives for each of some items; those that are not there yet are made together."""
        found = {key: entry for key in dict.fromkeys(keys) if (entry := self._read(stage, key)) is not None}
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in found}
        if missing:
            with self._timed(stage, len(missing)):
                made = make(list(missing.values()))
            for key, entry in zip(missing, made, strict=True):
                found[key] = entry
                self._write(stage, key, entry)
        return [found[key] for key in keys]

    def _read(self, stage: str, key: str) -> Mapping[str, np.ndarray] | None:
        entry = None if self._disks is None else self._disks[stage].get(key)
        self.reused[stage] += entry is not None
        return entry

    def _write(self, stage: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        if self._disks is not None:
            self._disks[stage].put(key, arrays)

    @contextmanager
    def _timed(self, stage: str, count: int = 1) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] += [(time.perf_counter() - start) / count] * count


def _pack_array(array: np.ndarray) -> dict[str, np.ndarray]:
    return {"array": array}


def _unpack_array(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return arrays["array"]
