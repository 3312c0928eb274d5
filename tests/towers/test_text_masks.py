import pytest
import torch
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask

from tiny_text import TEXT, tiny_text
from towers.text_checks import words


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", TEXT)
def test_masks_have_the_librarys_values(family, attention):
    tower = tiny_text(family)
    tower.model.config._attn_implementation = attention
    ids, mask = words(padded=True)  # the library leaves no mask out where words are padded
    state = tower.begin(ids, mask)
    shape = {"config": tower.model.config, "inputs_embeds": state.hidden, "attention_mask": mask}
    if family == "clip":
        expected = create_causal_mask(**shape, past_key_values=None)
    else:
        expected = create_bidirectional_mask(**shape)
    assert state.mask.dtype == expected.dtype
    assert torch.equal(state.mask, expected)
    whole = tower.begin(*words(padded=False)).mask
    alone = tower.attention_mask(state.hidden, torch.ones_like(mask))
    assert torch.equal(whole, alone)
    seen = whole if attention == "sdpa" else whole == 0
    length = ids.shape[1]
    before = torch.ones(length, length, dtype=torch.bool)
    assert torch.equal(seen, (before.tril() if family == "clip" else before).expand(3, 1, -1, -1))
