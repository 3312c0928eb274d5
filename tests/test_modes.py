"""A mode that is set for a while."""

import pytest
from torch import nn

from s4eca.modes import in_mode


@pytest.mark.parametrize("training", [True, False])
def test_every_part_gets_its_own_mode_back(training):
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(2), nn.Dropout()), nn.Linear(2, 2))
    network[1].eval()
    network[1][1].train()
    modes = [module.training for module in network.modules()]
    assert modes == [True, True, False, False, True, True]
    with pytest.raises(ValueError, match="inside"), in_mode(network, training):
        assert [module.training for module in network.modules()] == [training] * 6
        raise ValueError("inside")
    assert [module.training for module in network.modules()] == modes
