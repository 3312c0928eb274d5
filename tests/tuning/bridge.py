"""A small method that joins both towers in mid-walk; it exists to show that the schedule carries such methods."""

import dataclasses

import torch
from torch import Tensor, nn

from s4eca.towers.base import State, TextTower, VisionTower
from s4eca.tuning.base import Capabilities, Carry, Context, Join, Schedule, TuningMethod, Walk


class Bridge(TuningMethod):
    """Exchanges means between words and pixels twice, remembering the first exchange in the carry."""

    name = "bridge"
    capabilities = Capabilities(language=True)

    def attach(self, text: TextTower, vision: VisionTower) -> None:
        super().attach(text, vision)
        self.places = {"middle": (1, 3), "late": (2, 6)}  # after which text layer and which vision block
        self.to_vision, self.to_text = nn.ModuleDict(), nn.ModuleDict()
        for name, (layer, block) in self.places.items():
            words, pixels = text.steps[layer].width, vision.steps[block].width
            self.to_vision[name] = nn.Linear(words + (8 if name == "late" else 0), pixels)
            self.to_text[name] = nn.Linear(pixels, words)
            for linear in (self.to_vision[name], self.to_text[name]):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
        self.memory = nn.Linear(text.widths[-1], 8)

    def schedule(self, text: TextTower, vision: VisionTower) -> Schedule:
        events: Schedule = []
        layer = block = 0
        ends = [*self.places.items(), ("", (len(text.steps) - 1, len(vision.steps) - 1))]
        for name, (last_layer, last_block) in ends:
            events += [Walk("text", index) for index in range(layer, last_layer + 1)]
            events += [Walk("vision", index) for index in range(block, last_block + 1)]
            layer, block = last_layer + 1, last_block + 1
            if name:
                events.append(Join(name))
        return events

    def join(self, name: str, text: State, vision: State, context: Context, carry: Carry) -> tuple[State, State, Carry]:
        weights = context.word_mask[..., None].to(text.hidden.dtype)
        words = (text.hidden * weights).sum(1) / weights.sum(1)
        pixels = vision.hidden.mean(dim=(1, 2))
        if name == "middle":
            carry = {**carry, "memory": self.memory(words)}
            seen: Tensor = words
        else:
            seen = torch.cat([words, carry["memory"]], dim=1)
        vision = dataclasses.replace(vision, hidden=vision.hidden + self.to_vision[name](seen)[:, None, None])
        text = dataclasses.replace(text, hidden=text.hidden + self.to_text[name](pixels)[:, None])
        return text, vision, carry
