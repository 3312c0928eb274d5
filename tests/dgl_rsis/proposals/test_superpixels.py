import numpy as np
import pytest
from omegaconf import OmegaConf

from runs import ROOT, SAMPLES
from s4eca.build import instantiate
from s4eca.data import RRSISDDataModule
from s4eca.dgl_rsis.parts import View
from s4eca.dgl_rsis.proposals.merging import complete, merge_tree, objectness, window_of
from s4eca.dgl_rsis.proposals.recall import best_iou
from s4eca.dgl_rsis.proposals.superpixels import Felzenszwalb, Slic
from s4eca.dgl_rsis.proposals.union import Union
from s4eca.errors import S4ecaError


def scene():
    image = np.full((90, 120, 3), 90, np.uint8)
    image[20:50, 30:50] = (250, 200, 30)
    image[60:80, 80:104] = (240, 240, 240)
    truths = np.zeros((2, 90, 120), bool)
    truths[0, 20:50, 30:50] = truths[1, 60:80, 80:104] = True
    return image, truths


def test_tree_by_hand():
    labels = np.array([[0, 1, 2]])
    colour = np.array([[[0, 0, 0], [1, 0, 0], [9, 0, 0]]], np.float32)
    tree = merge_tree(labels, colour)
    wanted = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]]
    np.testing.assert_array_equal([tree.mask(region)[0] for region in range(5)], wanted)


@pytest.mark.parametrize(
    "proposer", [Felzenszwalb(), Slic(segments=200), Union([Felzenszwalb(max_side=100), Slic(200, weight=0.1)])]
)
def test_finds_plain_objects(proposer):
    image, truths = scene()
    found = proposer.propose(View(image, "key"))
    assert 2 <= len(found) <= 100
    # plain edges are sharp, and a pixel is added to them: 600 of 704 and 480 of 572
    assert min(best_iou(found, truth) for truth in truths) > 0.8
    again = proposer.propose(View(image, "key"))
    np.testing.assert_array_equal(found.bits, again.bits)


def test_a_hood_beyond_its_windscreen_belongs_to_the_bus():
    image = np.full((90, 120, 3), 90, np.uint8)
    image[40:60, 30:86] = (250, 200, 30)
    image[40:60, 70:76] = 20  # the windscreen
    truth = np.zeros((90, 120), bool)
    truth[40:60, 30:86] = True
    # 20 x 56 pixels; the hull of body and hood is a pixel larger all around
    assert best_iou(Felzenszwalb().propose(View(image, "key")), truth) == pytest.approx(1120 / (22 * 58), abs=0.02)
    # six pixels are too far, and without the hood 47 x 20 pixels of 48 x 22 are right
    assert best_iou(Felzenszwalb(gap=0.1).propose(View(image, "key")), truth) < 0.8


def test_a_plain_image_has_no_proposal():
    assert len(Felzenszwalb().propose(View(np.full((40, 50, 3), 7, np.uint8), "key"))) == 0


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (Felzenszwalb, {"scales": []}, "scales"),
        (Slic, {"segments": 1}, "segments"),
        (Slic, {"max_side": 3}, "max_side"),
        (Slic, {"extent": 1.5}, "extent"),
        (Slic, {"box_iou": -0.1}, "box_iou"),
        (Slic, {"gap": -0.1}, "gap"),
        (Slic, {"weight": 0}, "weight"),
        (Felzenszwalb, {"limit": 0}, "limit"),
        (Felzenszwalb, {"min_area": 0}, "min_area"),
        (Union, {"proposers": []}, "proposers"),
    ],
)
def test_bad_settings_are_named(kind, options, name):
    with pytest.raises(S4ecaError, match=f"proposer.{name}"):
        kind(**options)


def test_a_region_becomes_the_object_that_it_is_likely_to_be():
    notched = np.zeros((12, 14), bool)
    notched[2:8, 3:11] = True
    notched[2:4, 6] = False  # a notch
    notched[5, 5] = False  # a window
    whole = np.zeros((12, 14), bool)
    whole[1:9, 2:12] = True  # filled, and a pixel larger all around
    np.testing.assert_array_equal(complete(notched), whole)
    bent = np.zeros((40, 40), bool)
    bent[4:36, 4:8] = bent[32:36, 4:36] = True
    grown = np.zeros((40, 40), bool)
    grown[3:37, 3:9] = grown[31:37, 3:37] = True
    np.testing.assert_array_equal(complete(bent), grown, err_msg="far from convex: only its edge is added")


def objectness_of(mask, image):
    colour = image.astype(np.float32)
    return objectness(mask, int(mask.sum()), colour, 100 * mask.size)


def test_objectness_by_hand():
    image = np.zeros((30, 30, 3))
    image[10:18, 8:24, 0] = 20
    mask = image[..., 0] > 0
    # contrast 20, solid, 8 x 16 pixels, even colour, sides 15 and 7 between the pixels' centres
    assert objectness_of(mask, image) == pytest.approx(20 * 128**0.75 / np.sqrt(3 * 16 / 8), rel=1e-5)
    half = mask.copy()
    half[:, 16:] = False
    assert objectness_of(half, image) < objectness_of(mask, image), "a part looks less like one than the whole"
    around = mask.copy()
    around[8:20, 6:26] = True
    assert objectness_of(around, image) < objectness_of(mask, image), "so does the object with its surroundings"
    capped = objectness(mask, 128, image.astype(np.float32), 128)
    # an object that is the whole image: to the power of 0.75 up to 0.5 %, then of 0.1
    assert capped == pytest.approx(objectness_of(mask, image) * (0.005 * 128) ** 0.75 * 200**0.1 / 128**0.75, rel=1e-5)


def test_windows_show_a_region_and_its_surroundings():
    rows, columns = window_of(np.array([20, 10, 40, 15]))
    assert (rows.start, rows.stop, columns.start, columns.stop) == (5, 20, 15, 45)
    assert (rows.step, columns.step) == (1, 1)
    assert window_of(np.array([2, 3, 400, 15]))[1].step == 4


def test_overlapping_boxes_give_one_proposal():
    image, _ = scene()
    found = Felzenszwalb(box_iou=0.0).propose(View(image, "key"))
    # the proposals are completed afterwards, by one pixel
    boxes = found.boxes.astype(int) + np.array([1, 1, -1, -1])
    for one in range(len(boxes)):
        for other in range(one):
            (x0, y0), (x1, y1) = (
                np.maximum(boxes[one][:2], boxes[other][:2]),
                np.minimum(boxes[one][2:], boxes[other][2:]),
            )
            assert x1 <= x0 or y1 <= y0


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample data is not here")
def test_recall_on_real_images():
    config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "proposer" / "superpixels.yaml"))
    proposer = instantiate(config, "proposer")
    data = RRSISDDataModule(root=SAMPLES / "rrsisd_mini", image_size=800, num_workers=0)
    with pytest.warns(UserWarning, match="references"):
        samples = [sample for split in ("val", "test") for sample in data.dataset(split, train=False)]
    ious = []
    for sample in samples:
        found = proposer.propose(View(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()), "key"))
        assert len(found) <= 100
        if sample.mask.any():
            ious.append(best_iou(found, sample.mask.numpy()))
    assert len(ious) == 16
    assert np.mean(ious[:8]) >= 0.60
    assert np.mean(ious[8:]) >= 0.60


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample data is not here")
def test_buses_in_a_real_image_are_found():
    data = RRSISDDataModule(root=SAMPLES / "rrsisd_mini", image_size=800, num_workers=0)
    with pytest.warns(UserWarning, match="references"):
        sample = data.dataset("train", train=False)[0]
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
    assert best_iou(Felzenszwalb().propose(View(image, "key")), sample.mask.numpy()) > 0.75
