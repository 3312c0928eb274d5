from s4eca.evaluation.page.costs import list_costs

COST = {
    "parameters": {"towers": 195_769_216, "method": 4_698_624, "head": 9_500},
    "percent": 2.4001,
    "saved_bytes": {"towers_and_method": 1, "step": 8 * 640 * 2**20},
    "peak_bytes": 23 * 2**30,
    "step_seconds": {"median": 0.2345, "q1": 0.2301, "q3": 1.5, "steps": 200},
    "data_wait": 0.031,
    **{"batch_size": 8, "device": "NVIDIA H100", "precision": "bf16-mixed", "processes": 2},
    **{"placement": "inside", "feature_cache": True, "grad_checkpointing": "block"},
}


def test_costs_are_in_peoples_units():
    assert [(fact.label, fact.value) for fact in list_costs({"cost": COST})] == [
        ("Backbones", "195.77 M"),
        ("Learned by the method", "4.70 M, 2.40 % of the backbones"),
        ("Learned by norms, fusion and decoder", "9,500"),
        ("Kept for the backward pass", "640 MiB per sample"),
        ("Peak memory of the GPU", "23.00 GiB"),
        ("Time per step", "234 ms, half of the steps within 230 ms to 1.50 s"),
        ("Waiting for data", "3 % of the time"),
        (
            "Measured with",
            "NVIDIA H100, bf16-mixed, batch size 8, 2 processes, features of the backbones from disk, activations"
            " recomputed per block",
        ),
    ]


def test_what_was_not_measured_is_left_out():
    short = {"saved_bytes": {"step": 2**20}, "batch_size": 2, "peak_bytes": None, "step_seconds": {"median": None}}
    assert [(fact.label, fact.value) for fact in list_costs({"cost": short})] == [
        ("Kept for the backward pass", "0.5 MiB per sample"),
        ("Measured with", "batch size 2"),
    ]
    assert list_costs({}) == list_costs({"cost": None}) == []
