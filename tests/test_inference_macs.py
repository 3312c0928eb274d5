"""What a whole network multiplies for one image at full size, counted on shapes alone."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch

from s4eca.cost import macs
from s4eca.decoders.fpn import FPNDecoder
from s4eca.decoders.lavt import LAVTDecoder
from s4eca.segmenter import ReferringSegmenter
from s4eca.towers import BertTower, SwinTower
from s4eca.tuning import S4ECA

SWIN_B, SIDES = (128, 256, 512, 1024), (120, 60, 30, 15)


@pytest.fixture
def _on_shapes(monkeypatch):
    # tensors without values have none to hash, and no autocast, which is off here anyway
    monkeypatch.setattr("s4eca.towers.swin.hash_weights", lambda state: "none")
    monkeypatch.setattr("s4eca.towers.transformers_text.hash_weights", lambda state: "none")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


@pytest.mark.usefixtures("_on_shapes")
def test_fpn_takes_at_most_55_percent_of_the_lavt_decoders_macs():
    with torch.device("meta"):
        text, vision = BertTower(weights="random"), SwinTower(weights="random", image_size=480)
        image = torch.zeros(1, 3, 480, 480, dtype=torch.uint8)
        ids = torch.zeros(1, 20, dtype=torch.long)
        network = ReferringSegmenter(text, vision, S4ECA(), FPNDecoder, head_logits=2).eval()
        whole = macs(partial(network, image, ids, torch.ones_like(ids)))
        pyramid = [torch.zeros(1, side, side, width) for side, width in zip(SIDES, vision.widths, strict=True)]
        # the networks differ in their decoders alone
        fpn, lavt = (macs(partial(decoder, pyramid)) for decoder in (network.decoder, LAVTDecoder(vision.widths, 2)))
    by_hand = sum(side**2 * (width * 224 + 9 * 224**2) for side, width in zip(SIDES, SWIN_B, strict=True))
    assert fpn == by_hand + 120**2 * (9 * 224**2 + 2 * 224)
    levels = ((30, 1024 + 512), (60, 512 + 256), (120, 512 + 128))
    assert lavt == sum(side**2 * 9 * 512 * (first + 512) for side, first in levels) + 120**2 * 2 * 512
    assert whole <= 0.55 * (whole - fpn + lavt)
