"""What goes wrong with a user's input, told so that the user can put it right."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """In brackets, behind a name that is none, the known one that may be meant; "" without one.

    >>> nearest("pwoer", ["hill", "power"])
    " ('power'?)"
    """
    close = get_close_matches(name, known, n=1)
    return f" ({close[0]!r}?)" if close else ""


class InputError(ValueError):
    """The input cannot be used as it is.

    The message says what must hold, what was got, where (file, line, column) and what to do. The
    command line prints it and exits with status 2.

    Example:
        >>> from bayesicl.errors import InputError
        >>> issubclass(InputError, ValueError)
        True
    """


FEW, FALL = "few cells", "fall"  # kinds of warnings


class CurveWarning(UserWarning):
    """A curve can be used, but something about it will limit what can be learnt from it.

    kind: FEW, fewer cells than parameters; FALL, a fall that the law does not allow; or "".

    Example:
        >>> import warnings
        >>> from bayesicl.errors import CurveWarning
        >>> warnings.simplefilter("error", CurveWarning)  # stop at such curves instead
    """

    def __init__(self, message: str = "", kind: str = ""):
        """Say what it is about."""
        super().__init__(message)
        self.kind = kind
