"""The comparison between places against its formulas, written out cell by cell, and on the question that it is for."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from s4eca.tuning.s4eca.comparison import FEATURES, Comparison, positions
from tiny import shake


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def plain(block, x, gate, cells):
    """One image; every cell's rows and columns by floor and ceiling, every head by itself."""
    rows, columns, width = x.shape
    place = torch.zeros(rows, columns, width)
    for row in range(rows):
        for column in range(columns):
            at = [2 * column / (columns - 1) - 1, 2 * row / (rows - 1) - 1]
            waves = [
                wave(math.pi * 2**octave * value)
                for octave in range(3)
                for wave in (math.sin, math.cos)
                for value in at
            ]
            place[row, column] = block.place.weight @ torch.tensor([*at, *waves])
    normed = F.layer_norm(x, (width,), block.norm.weight, block.norm.bias)
    keys, values = [], []
    for i in range(cells):
        for j in range(cells):
            top, bottom = i * rows // cells, -(-(i + 1) * rows // cells)
            left, right = j * columns // cells, -(-(j + 1) * columns // cells)
            part = (slice(top, bottom), slice(left, right))
            weights = gate[part][..., None]
            keys.append((normed[part] * weights).sum((0, 1)) / weights.sum() + place[part].mean((0, 1)))
            values.append((normed[part] * weights).mean((0, 1)))
    queries = (normed + place).flatten(0, 1)
    weight, bias = block.attention.in_proj_weight.chunk(3), block.attention.in_proj_bias.chunk(3)
    q, k, v = (
        item @ w.T + b
        for item, w, b in zip((queries, torch.stack(keys), torch.stack(values)), weight, bias, strict=True)
    )
    heads = [
        ((a @ b.T) / a.shape[1] ** 0.5).softmax(-1) @ c
        for a, b, c in zip(q.chunk(4, 1), k.chunk(4, 1), v.chunk(4, 1), strict=True)
    ]
    x = x + block.attention.out_proj(torch.cat(heads, 1)).view(rows, columns, width)
    return x + block.feed(F.layer_norm(x, (width,), block.norm_feed.weight, block.norm_feed.bias))


@pytest.mark.parametrize(("rows", "columns", "cells"), [(4, 4, 4), (8, 8, 4), (7, 5, 3)])
def test_equal_to_the_plain_formulas(rows, columns, cells):
    block = Comparison(8, cells=cells)
    shake(block)
    x, gate = torch.randn(2, rows, columns, 8), torch.rand(2, rows, columns)
    got = block(x, gate)
    for one, grid, weights in zip(got, x, gate, strict=True):
        torch.testing.assert_close(one, plain(block, grid, weights, cells), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block(x, None), block(x, torch.ones_like(gate)))


def test_a_closed_gate_hides_a_place_from_all_others():
    block = Comparison(8)
    shake(block)
    x, gate = torch.randn(1, 6, 6, 8), torch.ones(1, 6, 6)
    gate[0, 2, 3] = 0
    other = x.clone()
    other[0, 2, 3] = torch.randn(8)
    seen = torch.ones(6, 6, dtype=torch.bool)
    seen[2, 3] = False
    torch.testing.assert_close(block(x, gate)[0, seen], block(other, gate)[0, seen])
    assert not torch.allclose(block(x, None)[0, seen], block(other, None)[0, seen], atol=1e-4)


def test_positions_tell_every_place_apart():
    grid = positions(24, 36, torch.zeros(1, dtype=torch.float64))
    assert grid.shape == (24, 36, FEATURES)
    assert grid.dtype == torch.float64
    torch.testing.assert_close(grid[0, 0, :2], torch.tensor([-1.0, -1.0], dtype=torch.float64))
    torch.testing.assert_close(grid[23, 0, :2], torch.tensor([-1.0, 1.0], dtype=torch.float64))
    flat = grid.flatten(0, 1)
    assert (torch.cdist(flat, flat) + torch.eye(len(flat))).min() > 0.05


@pytest.mark.parametrize(("looks", "low", "high"), [(True, 0.9, 1.0), (False, 0.0, 0.75)])
def test_it_learns_which_is_the_second_from_the_left(looks, low, high):
    """Of three points on a line of 24. A place by itself can only say how far left it is, which is not enough."""
    generator = torch.Generator().manual_seed(1)
    net = nn.ModuleDict({"into": nn.Linear(4, 16), "block": Comparison(16, cells=24), "out": nn.Linear(16, 1)})
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

    def scores(points):
        gate = torch.full(points.shape[:3], float(looks))
        return net["out"](net["block"](net["into"](points), gate))[:, 0, :, 0].masked_fill(
            points[:, 0, :, 0] == 0, -1e4
        )

    def draw(count):
        places = torch.stack([torch.randperm(24, generator=generator)[:3] for _ in range(count)])
        points = torch.zeros(count, 1, 24, 4)
        points.scatter_(2, places[:, None, :, None].expand(-1, -1, -1, 4), 1.0)
        return points, places.median(1).values

    for _ in range(250):
        points, second = draw(64)
        loss = F.cross_entropy(scores(points), second)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    points, second = draw(512)
    assert low <= (scores(points).argmax(1) == second).float().mean() <= high
