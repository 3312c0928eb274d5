import numpy as np
import pytest

from s4eca.dgl_rsis.words import text_bank
from s4eca.errors import S4ecaError

VECTORS = {"ship": (1, 0, 0), "boat": (0, 1, 0), "harbor": (0, 0, 1), "grass": (-1, 0, 0), "sea": (0, 0.6, 0.8)}


class Encoder:
    """Looks texts up, and remembers what it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return np.array([VECTORS[text] for text in texts], np.float32)


def test_a_class_is_the_normed_mean_of_its_texts_and_background_comes_last():
    encode = Encoder()
    bank = text_bank(encode, {"vessel": ["ship", "boat"], "dock": ["harbor", "boat"]}, {"water": ["sea"]})
    assert bank.names == ("vessel", "dock", "water")
    assert bank.n_background == 1
    assert bank.features.dtype == np.float32
    half = 0.5**0.5
    np.testing.assert_allclose(bank.features, [[half, half, 0], [0, half, half], [0, 0.6, 0.8]], atol=1e-7)
    # every text once
    assert encode.asked == [["ship", "boat", "harbor", "sea"]]


def test_background_texts_can_be_classes_of_their_own():
    bank = text_bank(Encoder(), {"vessel": ["ship"]}, ["grass", "sea"])
    assert bank.names == ("vessel", "grass", "sea")
    assert bank.n_background == 2
    np.testing.assert_allclose(bank.features[1:], [VECTORS["grass"], VECTORS["sea"]], atol=1e-7)
    assert text_bank(Encoder(), {"vessel": ["ship"]}).n_background == 0


@pytest.mark.parametrize(
    ("prompts", "background", "message"),
    [
        ({}, ["grass"], "no class"),
        ({"vessel": []}, (), "'vessel' has no list of texts"),
        ({"vessel": "ship"}, (), "'vessel' has no list of texts"),
        ({"vessel": ["ship"]}, {"water": []}, "'water' has no list of texts"),
        ({"sea": ["ship"]}, ["sea"], "'sea' is both a class and a background class"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(prompts, background, message):
    encode = Encoder()
    with pytest.raises(S4ecaError, match=message):
        text_bank(encode, prompts, background)
    assert not encode.asked
