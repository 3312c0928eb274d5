"""Foundation models as towers of blocks; one file per family."""

from s4eca.towers.base import State, Step, Tap, Tower
from s4eca.towers.bert import BertTower
from s4eca.towers.swin import SwinTower

__all__ = ["BertTower", "State", "Step", "SwinTower", "Tap", "Tower"]
