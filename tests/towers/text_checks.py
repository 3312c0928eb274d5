"""What the tests of all text towers share; expected values come from transformers' own modules."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from s4eca.towers.base import TextTower, no_tap
from tiny import tiny_inputs

SITES = [("in", False), ("attn", True), ("mid", False), ("mlp", True), ("out", False), ("stage_out", False)]


def walk(tower: TextTower, ids: Tensor, mask: Tensor, tap=no_tap) -> Tensor:
    state = tower.begin(ids, mask)
    for step in tower.steps:
        state = tower.step(step.index, state, tap)
    return tower.end(state)


def words(padded: bool, length: int = 8) -> tuple[Tensor, Tensor]:
    _, ids, mask = tiny_inputs(batch=3, length=length)
    return (ids, mask) if padded else (ids.where(ids > 0, 9), torch.ones_like(mask))


def check_sites(tower: TextTower, norm_first: bool) -> None:
    """Every site is visited in order, obeyed, and given what the contract says."""
    assert [(step.index, step.stage, step.ends_stage) for step in tower.steps] == [
        (0, 0, False), (1, 0, False), (2, 0, False), (3, 0, True),
    ]  # fmt: skip
    state = tower.begin(*words(padded=True))
    seen: dict[str, tuple[Tensor, Tensor | None]] = {}

    def note(site, x, branch_in=None):
        seen[site] = (x, branch_in)
        return x

    with torch.no_grad():
        plain = tower.step(3, state, note).hidden
        assert [(site, branch_in is not None) for site, (_, branch_in) in seen.items()] == SITES
        assert [site for site, x in seen.items() if x[0].shape != state.hidden.shape] == []
        # a branch reads the residual stream, normed first or not, and joins it
        assert torch.equal(seen["in"][0], state.hidden)
        for branch, before, after in (("attn", "in", "mid"), ("mlp", "mid", "out")):
            out, read = seen[branch]
            stream = seen[before][0]
            joined = out + stream
            if norm_first:
                assert not torch.equal(read, stream)
                torch.testing.assert_close(seen[after][0], joined)
            else:
                assert torch.equal(read, stream)
                normed = nn.functional.layer_norm(joined, joined.shape[-1:], eps=1e-12)
                torch.testing.assert_close(seen[after][0], normed)
        push = torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))
        for wanted, _ in SITES:
            changed = tower.step(3, state, lambda site, x, branch_in=None, w=wanted: x + push if site == w else x)
            assert not torch.equal(changed.hidden, plain), wanted
        early = tower.step(0, state, lambda site, x, branch_in=None: x + 1 if site == "stage_out" else x)
        assert torch.equal(early.hidden, tower.step(0, state, no_tap).hidden)


def check_linear_layers(tower: TextTower) -> None:
    """The named layers are all linear layers of a block."""
    for step in tower.steps:
        block = tower.block(step.index)
        linear = {name for name, module in block.named_modules() if isinstance(module, nn.Linear)}
        assert linear == {*tower.attention_layers, *tower.mlp_layers}
    assert len(tower.attention_layers) == 4
    assert len(tower.mlp_layers) == 2


def prompting(prompts: Tensor) -> Callable[..., Tensor]:
    """A tap that puts (N, D) prompts in front of every layer's words and takes them away after it."""

    def tap(site, x, branch_in=None):
        if site == "in":
            return torch.cat([prompts.expand(x.shape[0], -1, -1), x], dim=1)
        return x[:, len(prompts) :] if site == "out" else x

    return tap


def check_added_tokens(tower: TextTower, attention: str, padded: bool, causal: bool) -> None:
    """Added tokens act as in the library's own layer under a mask that is written down by hand."""
    ids, mask = words(padded)
    prompts = torch.randn(2, 32, generator=torch.Generator().manual_seed(5))
    state = tower.begin(ids, mask)
    length = ids.shape[1]
    may_see = torch.zeros(3, 1, 2 + length, 2 + length, dtype=torch.bool)
    for sample in range(3):
        for query in range(2 + length):
            for key in range(2 + length):
                added = key < 2
                behind = causal and query >= 2 and key > query
                may_see[sample, 0, query, key] = added or (bool(mask[sample, key - 2]) and not behind)
    given = may_see if attention == "sdpa" else torch.where(may_see, 0.0, torch.finfo(torch.float32).min)
    with torch.no_grad():
        longer = torch.cat([prompts.expand(3, -1, -1), state.hidden], dim=1)
        expected = tower.block(1)(longer, given)
        before_removal = []

        def tap(site, x, branch_in=None):
            if site == "out":
                before_removal.append(x)
            return prompting(prompts)(site, x)

        got = tower.step(1, state, tap).hidden
        assert got.shape == state.hidden.shape
        torch.testing.assert_close(before_removal[0], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got, expected[:, 2:], rtol=1e-5, atol=1e-6)
        assert (got - tower.step(1, state, no_tap).hidden).abs().max() > 1e-3
        if not padded:
            return
        # what stands in the padding reaches no word, through prompts neither
        real = mask.bool()
        one = walk(tower, ids, mask, prompting(prompts))
        other = walk(tower, torch.where(real, ids, 99), mask, prompting(prompts))
        assert torch.equal(one[real], other[real])
        assert not torch.equal(one, other)
