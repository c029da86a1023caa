"""Tracebacks for logs, without the texts of exceptions and local variables: both may be what agents say."""

import traceback


def where_raised(error: BaseException) -> str:
    """The lines of code that an exception came through, the kind of it, and the same of what it was raised from.

    >>> try:
    ...     int("secret")
    ... except ValueError as error:
    ...     where_raised(error).splitlines()[-1]
    'ValueError'
    """
    told = ["".join(traceback.format_tb(error.__traceback__)) + type(error).__name__]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and cause is not error:
        told.insert(0, where_raised(cause))
    return "\nand then\n".join(told)
