import numpy as np
import pytest

from s4eca.dgl_rsis.parts import View
from s4eca.dgl_rsis.proposals.oracle import Oracle
from s4eca.dgl_rsis.proposals.precomputed import Precomputed
from s4eca.errors import S4ecaError


def test_truth_first_then_distractors(tmp_path):
    image = np.zeros((20, 20, 3), np.uint8)
    truth = np.zeros((20, 20), bool)
    truth[3:9, 3:9] = True
    np.savez(tmp_path / "P.npz", masks=truth[None].T.transpose(2, 0, 1)[:, ::-1])
    proposer = Oracle(Precomputed(str(tmp_path)))
    found = proposer.propose(View(image, "key", "P", truth))
    np.testing.assert_array_equal(found.masks(), np.stack([truth, truth.T[::-1]]))
    assert found.sources == ("oracle", "precomputed")
    assert proposer.propose(View(image, "key", "P", np.zeros_like(truth))).sources == ("precomputed",)
    assert len(Oracle().propose(View(image, "key", "P", np.zeros_like(truth)))) == 0
    with pytest.raises(S4ecaError, match="without a truth"):
        proposer.propose(View(image, "key", "P"))
    with pytest.raises(S4ecaError, match="distractors"):
        Oracle(proposer)
