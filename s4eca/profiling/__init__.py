"""Where the time and the memory of a training step go, measured in the real trainer."""

from s4eca.profiling.measuring import Profiling

__all__ = ["Profiling"]
