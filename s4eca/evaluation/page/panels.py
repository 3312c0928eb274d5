"""Which samples a report shows: the best, the median and the worst, with what is needed to draw them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from s4eca.data.images import read_image
from s4eca.data.references import Reference
from s4eca.data.resize import resize_mask
from s4eca.errors import S4ecaError
from s4eca.evaluation.metrics import AREA, INTERSECTION, NO_TARGET, UNION
from s4eca.evaluation.pictures import PNG_LEVEL, lay_out, panel
from s4eca.evaluation.protocols import PROTOCOLS
from s4eca.evaluation.results import Evaluation, SampleInfo

GROUPS = ("best", "median", "worst")


@dataclass(frozen=True)
class Choice:
    """A sample that is to be shown.

    Attributes:
        group: `best`, `median` or `worst`.
        position: of the sample in the evaluation.
        sample: what it is.
        protocol: under which it was chosen.
        iou: fraction, under that protocol.
    """

    group: str
    position: int
    sample: SampleInfo
    protocol: str
    iou: float


@dataclass(frozen=True, eq=False)
class Panel:
    """A chosen sample with its pixels, at the image's own size.

    Attributes:
        choice: the sample and its score.
        image: (H, W, 3) uint8, RGB.
        truth: (H, W) bool.
        prediction: (H, W) bool.
        steps: pictures of how the mask was found, by name; all of one size, none for a trained network.
    """

    choice: Choice
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    steps: Mapping[str, Image.Image] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("truth", "prediction"):
            shape = getattr(self, name).shape
            if shape != self.image.shape[:2]:
                raise S4ecaError(
                    f"The {name} of sample {self.choice.sample.id} has {shape} pixels and its image"
                    f" {self.image.shape[:2]} (height, width): a panel needs both at the image's size."
                )

    @classmethod
    def read(
        cls,
        choice: Choice,
        reference: Reference,
        prediction: np.ndarray,
        steps: Mapping[str, Image.Image] | None = None,
        depth: int = 8,
    ) -> "Panel":
        """Reads image and truth of a chosen sample from the dataset.

        A truth of another size than its image is resized to it, as in `ReferenceDataset`.

        Args:
            choice: the sample.
            reference: the same sample in the dataset.
            prediction: (H, W) bool at the image's size.
            steps: see above.
            depth: see `open_image`.

        Raises:
            S4ecaError: a file cannot be decoded, or the prediction is of another size.
        """
        image = read_image(reference.image, reference.id, depth)
        truth = reference.mask.decode()
        size = (image.shape[0], image.shape[1])
        return cls(choice, image, truth if truth.shape == size else resize_mask(truth, size), prediction, steps or {})


def choose_panels(evaluation: Evaluation, protocol: str, count: int) -> list[Choice]:
    """Chooses the samples of the highest, middle and lowest IoU.

    Samples without a truth, be it meant or a defect, are left out: their IoU is 0 whatever is predicted. Ties are
    broken by id. No sample is in two groups: where there are fewer than three times `count` samples, the groups share
    them evenly, the best first, then the worst.

    Args:
        evaluation: all samples.
        protocol: whose IoU decides.
        count: of samples per group.

    Returns:
        The best with falling IoU, the median ones with rising IoU, the worst with rising IoU.

    Raises:
        S4ecaError: the evaluation has no such protocol.
    """
    if protocol not in evaluation.rows:
        raise S4ecaError(
            f"The evaluation has no protocol '{protocol}' to choose panels by: use one of {', '.join(evaluation.rows)}."
        )
    rows, samples = evaluation.rows[protocol], evaluation.samples
    iou = PROTOCOLS[protocol].iou(rows[:, INTERSECTION], rows[:, UNION])
    shown = np.flatnonzero((rows[:, AREA] > 0) & (rows[:, NO_TARGET] != 1)).tolist()
    n_best, n_worst, n_median = (min(count, (len(shown) + extra) // 3) for extra in (2, 1, 0))

    best = sorted(shown, key=lambda place: (-iou[place], samples[place].id))[:n_best]
    rising = sorted(shown, key=lambda place: (iou[place], samples[place].id))
    worst = [place for place in rising if place not in best][:n_worst]
    between = [place for place in rising if place not in best and place not in worst]
    start = (len(between) - n_median) // 2
    groups = dict(zip(GROUPS, (best, between[start : start + n_median], worst), strict=True))
    return [
        Choice(group, place, samples[place], protocol, float(iou[place]))
        for group, places in groups.items()
        for place in places
    ]


def save_panels(folder: Path, panels: Sequence[Panel]) -> list[Path]:
    """Writes each panel as `GROUP_NUMBER_POSITION.png`, numbered from 1 within its group, and returns the paths.

    Where a panel has steps, they are beside it in `GROUP_NUMBER_POSITION_steps.png`.
    """
    for group in GROUPS:  # those of an earlier evaluation would pass for this one's
        for old in folder.glob(f"{group}_*.png"):
            old.unlink()
    if panels:
        folder.mkdir(parents=True, exist_ok=True)
    numbers = dict.fromkeys(GROUPS, 0)
    paths = []
    for item in panels:
        choice = item.choice
        numbers[choice.group] += 1
        image = np.moveaxis(item.image, -1, 0)
        picture = panel(image, choice.sample.expression, item.truth, item.prediction, choice.iou, choice.protocol)
        path = folder / f"{choice.group}_{numbers[choice.group]}_{choice.position:06d}.png"
        picture.save(path, compress_level=PNG_LEVEL)
        paths.append(path)
        if item.steps:
            path = path.with_name(f"{path.stem}_steps.png")
            lay_out(item.steps, [choice.sample.expression]).save(path, compress_level=PNG_LEVEL)
            paths.append(path)
    return paths
