"""Flips and rotations by 90°: the eight symmetries of the square, for pixels, positions and directions alike."""

from enum import Enum

from torch import Tensor

Vector = tuple[int, int]


class Turn(Enum):
    """A symmetry of the square as (xx, xy, yx, yy): x' = xx·x + xy·y, y' = yx·x + yy·y.

    Coordinates are taken from the image's centre, y points down. Rotations are counter-clockwise, as in `torch.rot90`.
    """

    IDENTITY = (1, 0, 0, 1)
    HORIZONTAL_FLIP = (-1, 0, 0, 1)
    VERTICAL_FLIP = (1, 0, 0, -1)
    ROTATE_180 = (-1, 0, 0, -1)
    ROTATE_90 = (0, 1, -1, 0)
    ROTATE_270 = (0, -1, 1, 0)
    TRANSPOSE = (0, 1, 1, 0)
    ANTITRANSPOSE = (0, -1, -1, 0)

    @property
    def swaps_axes(self) -> bool:
        """Whether rows become columns."""
        return self.value[0] == 0

    @property
    def mirrors(self) -> bool:
        """Whether what was clockwise is counter-clockwise afterwards."""
        xx, xy, yx, yy = self.value
        return xx * yy - xy * yx < 0

    def vector(self, direction: Vector) -> Vector:
        """Turns a direction; (0, -1) is up."""
        (xx, xy, yx, yy), (x, y) = self.value, direction
        return xx * x + xy * y, yx * x + yy * y

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Turns a position given in shares of the image side, y downwards."""
        xx, xy, yx, yy = self.value
        return xx * (x - 0.5) + xy * (y - 0.5) + 0.5, yx * (x - 0.5) + yy * (y - 0.5) + 0.5

    def pixels(self, image: Tensor) -> Tensor:
        """Turns the last two dimensions (…, S, S) of an image or a mask; returns a contiguous tensor."""
        xx, xy, yx, yy = self.value
        if self.swaps_axes:
            image = image.transpose(-2, -1)
        backwards = [dimension for dimension, sign in ((-1, xx + xy), (-2, yx + yy)) if sign < 0]
        return image.flip(backwards).contiguous() if backwards else image.contiguous()

    @property
    def inverse(self) -> "Turn":
        """The turn that undoes this one: the transposed matrix."""
        xx, xy, yx, yy = self.value
        return Turn((xx, yx, xy, yy))

    def then(self, other: "Turn") -> "Turn":
        """Returns the one turn that equals this one followed by another."""
        (xx, yx), (xy, yy) = (other.vector(self.vector(unit)) for unit in ((1, 0), (0, 1)))
        return Turn((xx, xy, yx, yy))
