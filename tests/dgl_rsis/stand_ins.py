"""Parts of the pipeline that count what they are asked for and give what can be worked out by hand."""

import numpy as np

from s4eca.dgl_rsis.base import Grounding, Proposer, RegionEncoder
from s4eca.dgl_rsis.parts import Maps, Proposals, View


def view(seed: int = 0, truth: np.ndarray | None = None, size: tuple[int, int] = (12, 16)) -> View:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return View(image, f"image-{seed}", f"name{seed}", truth)


class CountingProposer(Proposer):
    """The left and the right half of the image, or nothing."""

    def __init__(self, version: str = "halves", count: int = 2) -> None:
        super().__init__()
        self.version, self.count, self.calls = version, count, 0

    def identity(self) -> dict:
        return {"proposer": self.version}

    def propose(self, view: View) -> Proposals:
        self.calls += 1
        masks = np.zeros((2, *view.size), bool)
        masks[0, :, : view.size[1] // 2] = True
        masks[1, :, view.size[1] // 2 :] = True
        return Proposals.from_masks(masks[: self.count], sources="halves")


class TruthProposer(CountingProposer):
    needs_truth = True

    def propose(self, view: View) -> Proposals:
        self.calls += 1
        return Proposals.from_masks(view.truth[None])


class CountingRegions(RegionEncoder):
    """A region's feature is (1, 0, 0) or (0, 1, 0) by its place, a text's depends on its length."""

    def __init__(self, version: str = "places") -> None:
        super().__init__()
        self.version, self.calls, self.texts = version, 0, []

    def identity(self) -> dict:
        return {"encoder": self.version}

    def encode_regions(self, view: View, proposals: Proposals) -> np.ndarray:
        self.calls += 1
        return np.eye(3, dtype=np.float32)[: len(proposals)]

    def encode_texts(self, texts) -> np.ndarray:
        self.texts += texts
        angles = np.array([len(text) for text in texts], np.float32)
        return np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)


class CountingGrounding(Grounding):
    """The map of a phrase is constant, its number of local words."""

    def __init__(self, version: str = "constant") -> None:
        super().__init__()
        self.version, self.asked = version, []

    def identity(self) -> dict:
        return {"grounding": self.version}

    def maps(self, view: View, phrases) -> list[Maps]:
        self.asked += [phrase.text for phrase in phrases]
        full = [np.full((2, 3), len(phrase.local), np.float32) for phrase in phrases]
        return [Maps(one, one, one, one, float(len(one))) for one in full]
