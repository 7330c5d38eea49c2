"""What goes wrong with a user's input, told so that the user can put it right."""


class InputError(ValueError):
    """The input cannot be used as it is.

    The message says what must hold, what was got, where (file, line, column) and what to do. The
    command line prints it and exits with status 2.

    Example:
        >>> from bayesicl.errors import InputError
        >>> issubclass(InputError, ValueError)
        True
    """


class CurveWarning(UserWarning):
    """A curve can be used, but something about it will limit what can be learnt from it.

    Example:
        >>> import warnings
        >>> from bayesicl.errors import CurveWarning
        >>> warnings.simplefilter("error", CurveWarning)  # stop at such curves instead
    """
