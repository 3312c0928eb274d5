"""What readers refuse and the audit lists: one set of checks for both."""

from collections.abc import Iterable

from s4eca.errors import S4ecaError


class DefectError(S4ecaError):
    """Something in annotation files that leaves a truth unreadable or in doubt; its message is the reader's sentence.

    A check yields or raises it. A reader raises the first one, the audit goes on and lists all of them.

    Attributes:
        code: what the audit calls its kind, such as `other-image`.
        name: of the reference, entry, line or row that it is about.
    """

    def __init__(self, message: str, code: str = "", name: str = "") -> None:
        super().__init__(message)  # alone, as unpickling and PyTorch's workers make it anew
        self.code = code
        self.name = name


def raise_first(defects: Iterable[DefectError]) -> None:
    """Raises the first of some defects, if there is one."""
    for defect in defects:
        raise defect
