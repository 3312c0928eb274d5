"""The frozen baseline: nothing in the towers is learned, only fusion and decoder."""

from s4eca.tuning.base import Capabilities, TuningMethod


class Frozen(TuningMethod):
    """Leaves both towers as they are; what a method adds is measured against this."""

    name = "frozen"
    capabilities = Capabilities(language=False)
