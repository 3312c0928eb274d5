"""Foundation models as towers of blocks; one file per family."""

from s4eca.towers.base import State, Step, Tap, Tower
from s4eca.towers.bert import BertTower, RobertaTower
from s4eca.towers.clip_text import ClipTextTower
from s4eca.towers.convnext import ConvNextTower
from s4eca.towers.distilbert import DistilBertTower
from s4eca.towers.swin import SwinTower
from s4eca.towers.vit import ViTTower

__all__ = [
    "BertTower",
    "ClipTextTower",
    "ConvNextTower",
    "DistilBertTower",
    "RobertaTower",
    "State",
    "Step",
    "SwinTower",
    "Tap",
    "Tower",
    "ViTTower",
]
