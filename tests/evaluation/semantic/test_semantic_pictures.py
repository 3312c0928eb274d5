import numpy as np
from PIL import Image

from fake_isaid import COLOURS
from s4eca.data.semantic.palette import ISAID_COLOURS, ISAID_LABELS
from s4eca.evaluation.semantic.pictures import (
    IGNORED_COLOUR,
    Gallery,
    SemanticPicture,
    draw_labels,
    draw_semantic,
    occurring,
    save_pictures,
)


def shown(index: int, ids, prediction=None) -> SemanticPicture:
    ids = np.asarray(ids, np.uint8)
    prediction = np.zeros_like(ids) if prediction is None else np.asarray(prediction, np.uint8)
    return SemanticPicture(index, f"P{index:04}", np.full((*ids.shape, 3), 90, np.uint8), ids, prediction)


def test_the_gallery_keeps_what_shows_most_by_the_truth():
    maps = {
        0: [[0, 0, 0, 0]],
        1: [[1, 1, 1, 0]],  # one class, three pixels
        2: [[3, 0, 0, 9]],  # two classes
        3: [[1, 0, 0, 255]],
        4: [[0, 2, 2, 2]],  # as much as 1, but later
    }
    kept = {}
    for count in range(4):
        gallery = Gallery(count)
        for index in (4, 2, 0, 3, 1):
            gallery.offer(shown(index, maps[index], [[1, 2, 3, 4]]))
        kept[count] = [picture.index for picture in gallery.pictures]
    assert kept == {0: [], 1: [2], 2: [1, 2], 3: [1, 2, 4]}


def test_the_gallery_goes_by_the_prediction_where_there_is_no_truth():
    gallery = Gallery(1)
    for index, prediction in enumerate(([[0, 0]], [[1, 2]], [[1, 1]])):
        image = np.zeros((1, 2, 3), np.uint8)
        gallery.offer(SemanticPicture(index, "", image, None, np.array(prediction, np.uint8)))
    assert [picture.index for picture in gallery.pictures] == [1]


def test_labels_are_drawn_in_their_colours_with_a_white_outline_outside():
    ids = np.zeros((7, 9), np.uint8)
    ids[2:4, 2:5] = 14
    ids[6, :] = 255
    ids[2:4, 8] = 1
    drawn = np.asarray(draw_labels(ids, COLOURS, (9, 7)).convert("RGB"))
    for row in range(7):
        for column in range(9):
            around = ids[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            id = int(ids[row, column])
            if id in (1, 14):
                wanted = COLOURS[id]
            elif np.isin(around, (1, 14)).any():
                wanted = (255, 255, 255)
            else:
                wanted = IGNORED_COLOUR if id == 255 else COLOURS[0]
            assert tuple(drawn[row, column].tolist()) == wanted, (row, column)


def test_tiles_have_one_size_and_only_what_there_is():
    picture = shown(0, np.zeros((30, 60)))
    tiles = draw_semantic(picture, COLOURS, 20)
    assert [(name, tile.size) for name, tile in tiles.items()] == [
        ("image", (20, 10)),
        ("truth", (20, 10)),
        ("prediction", (20, 10)),
    ]
    assert {tile.size for tile in draw_semantic(picture, COLOURS, 130).values()} == {(120, 60)}
    without = SemanticPicture(0, "", picture.image, None, picture.prediction)
    assert list(draw_semantic(without, COLOURS, 20)) == ["image", "prediction"]


def test_a_legend_names_what_occurs():
    assert occurring([shown(0, [[0, 255]], [[9, 9]]), shown(1, [[3, 3]])], ISAID_LABELS) == [0, 3, 9]
    assert occurring([], ISAID_LABELS) == []


def test_saved_pictures_replace_those_of_an_earlier_evaluation(tmp_path):
    save_pictures(tmp_path, [shown(3, np.zeros((8, 8)))], ISAID_COLOURS, side=8)
    (tmp_path / "mine.png").write_bytes(b"")
    paths = save_pictures(tmp_path, [shown(5, np.full((8, 8), 14)), shown(7, np.zeros((8, 8)))], ISAID_COLOURS, side=8)
    assert [path.name for path in paths] == ["000005_P0005.png", "000007_P0007.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000005_P0005.png", "000007_P0007.png", "mine.png"]
    pixels = np.asarray(Image.open(paths[0]))
    assert pixels.shape == (8, 3 * 8 + 2 * 8, 3)
    assert pixels[4, 4].tolist() == [90, 90, 90]
    assert tuple(pixels[4, 20].tolist()) == COLOURS[14]
    assert tuple(pixels[4, 36].tolist()) == COLOURS[0]
