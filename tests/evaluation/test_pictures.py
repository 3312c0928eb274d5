import numpy as np
import pytest
import torch
from PIL import Image

from s4eca.evaluation.pictures import draw_tiles, panel, save_panels

SHORT = "the ship"


def sample(size: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A black image; truth is the upper half, the prediction the left half."""
    truth = torch.zeros(size, size, dtype=torch.bool)
    prediction = truth.clone()
    truth[: size // 2], prediction[:, : size // 2] = True, True
    return torch.zeros(3, size, size, dtype=torch.uint8), truth, prediction


def tile(picture: Image.Image, i: int, size: int) -> np.ndarray:
    left, top = 8 + i * (size + 8), 32
    return np.asarray(picture)[top : top + size, left : left + size].astype(int)


def test_tiles_show_image_truth_prediction_and_difference():
    image, truth, prediction = sample()
    image[0] = 100
    picture = panel(image, SHORT, truth, prediction)
    assert picture.width == 4 * 400 + 5 * 8
    original, with_truth, with_prediction, difference = (tile(picture, i, 400) for i in range(4))
    assert (original == [100, 0, 0]).all()
    # the centres of the quarters, away from outlines; a tint changes the green channel of a red image
    quarters = {(100, 100): "both", (100, 300): "missed", (300, 100): "false", (300, 300): "none"}
    for (row, column), name in quarters.items():
        assert (with_truth[row, column] != [100, 0, 0]).any() == (name in ("both", "missed"))
        assert (with_prediction[row, column] != [100, 0, 0]).any() == (name in ("both", "false"))
        red, _, blue = difference[row, column] - [100, 0, 0]
        assert {"missed": blue > 80, "false": red > 50, "both": red == blue == 0, "none": red == blue == 0}[name]


def test_a_target_of_one_pixel_is_outlined():
    image, truth, _ = sample()
    truth[:] = False
    truth[200, 200] = True
    marked = (tile(panel(image, SHORT, truth, truth), 1, 400) > 0).any(-1)
    assert marked.sum() == 25  # the pixel and two rings
    assert marked[198:203, 198:203].all()


@pytest.mark.parametrize(("size", "tile_size"), [(128, 384), (320, 320), (480, 480)])
def test_small_images_are_enlarged_by_whole_factors(size, tile_size):
    image, truth, prediction = sample(size)
    picture = panel(image, SHORT, truth, prediction)
    assert picture.width == 4 * tile_size + 5 * 8
    tinted = (tile(picture, 1, tile_size)[: tile_size // 2] > 0).any(-1)
    assert tinted.all()


def test_text_grows_the_picture_by_its_lines_and_stays_inside():
    image, truth, prediction = sample()
    heights = [
        panel(image, expression, truth, prediction, iou).height
        for expression, iou in ((SHORT, None), (SHORT, 0.5), ("the long gray ship " * 30, None))
    ]
    assert heights[1] - heights[0] == 28
    assert heights[2] - heights[0] >= 2 * 28
    wrapped = np.asarray(panel(image, "the long gray ship " * 30, truth, prediction))
    below = wrapped[32 + 400 :]
    assert (below < 128).any()
    assert (below[:, -8:] == 255).all()
    assert (below[-1] == 255).all()


def test_expression_and_iou_change_the_picture_below_the_tiles_only():
    image, truth, prediction = sample()
    first = np.asarray(panel(image, "the ship", truth, prediction, 0.25))
    second = np.asarray(panel(image, "the dam", truth, prediction, 0.25))
    third = np.asarray(panel(image, "the ship", truth, prediction, 0.75))
    assert (first[:432] == second[:432]).all()
    assert (first[432:] != second[432:]).any()
    assert (first[432:] != third[432:]).any()


def test_save_panels_writes_readable_files_up_to_the_limit(tmp_path, make_batch):
    _, truth, prediction = sample(64)
    batch = make_batch(torch.stack([truth] * 3), index=[41, 5, 6])
    logits = torch.where(prediction, 1.0, -1.0).expand(3, -1, -1)
    paths = save_panels(tmp_path / "pictures", batch, logits, limit=2)
    assert [path.name for path in paths] == ["000041.png", "000005.png"]
    assert sorted((tmp_path / "pictures").iterdir()) == sorted(paths)
    # half of each half agrees: I is a quarter of the image and U three quarters
    expected = panel(batch.image[0], batch.expressions[0], truth, prediction, 1 / 3)
    assert np.array_equal(np.asarray(Image.open(paths[0])), np.asarray(expected))
    assert len(save_panels(tmp_path / "all", batch, logits, limit=10)) == 3


def test_tiles_of_another_size_show_every_target():
    image, truth, prediction = (
        np.full((3, 800, 800), 100, np.uint8),
        np.zeros((800, 800), bool),
        np.zeros((800, 800), bool),
    )
    truth[401, 401] = prediction[100:200, 100:200] = True
    tiles = draw_tiles(image, truth, prediction, (80, 80))
    assert list(tiles) == ["image", "truth", "prediction", "error"]
    assert {tile.size for tile in tiles.values()} == {(80, 80)}
    changed = {name: (np.asarray(tile) != 100).any(-1) for name, tile in tiles.items()}
    assert not changed["image"].any()
    rows, columns = np.nonzero(changed["truth"])
    # the pixel lies in the tile's pixel 40; two rings are drawn around it
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (38, 42, 38, 42)
    assert changed["prediction"].sum() == 14**2
    missed = changed["truth"] | changed["prediction"]
    missed[40, 40] = changed["error"][40, 40]  # a hundredth of a tint may round to none
    assert (changed["error"] == missed).all()
    inside = np.asarray(tiles["prediction"])[15, 15].astype(int)
    assert inside.tolist() == pytest.approx([100 + 0.45 * (value - 100) for value in (255, 176, 0)], abs=1.5)


def test_a_half_covered_tile_pixel_is_tinted_by_half():
    image, truth = np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8), bool)
    truth[:, :5] = True
    tile = np.asarray(draw_tiles(image, truth, truth, (4, 4))["truth"]).astype(int)[:, :, 1]
    full, half = 220 * 0.45, 220 * 0.45 / 2
    assert tile[:, 0].tolist() == pytest.approx([full] * 4, abs=1.5)
    assert tile[:, 2].tolist() == pytest.approx([half] * 4, abs=1.5)
    assert (tile[:, 3] == 220).all()  # the outline
