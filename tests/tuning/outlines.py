"""Towers of any size that have steps and no weights: enough for a method to be attached and counted."""

from s4eca.towers.base import Step, TextTower, VisionTower


def text_outline(width: int, depth: int) -> TextTower:
    tower = TextTower()
    tower.family, tower.widths = "outline", [width]
    tower.steps = [Step("text", index, 0, width, index == depth - 1) for index in range(depth)]
    return tower


def vision_outline(widths: list[int], depths: list[int], sides: list[int], prefix: int = 0) -> VisionTower:
    tower = VisionTower()
    tower.family, tower.widths, tower.steps = "outline", widths, []
    for stage, (width, depth, side) in enumerate(zip(widths, depths, sides, strict=True)):
        for block in range(depth):
            index = len(tower.steps)
            tower.steps.append(
                Step("vision", index, stage, width, block == depth - 1, grid=(side, side), prefix=prefix)
            )
    return tower
