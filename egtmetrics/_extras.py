"""Import optional packages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from egtmetrics._errors import first_line


@contextlib.contextmanager
def extra(name: str, needed: str, *, otherwise: str = "") -> Iterator[None]:
    """Import optional packages in this block; where one is missing, the ImportError names the extra to install.

    ``needed`` says what needs which package; ``otherwise``, where there is one, how to do without.

    Examples
    --------
    >>> with extra("files", "reading .abc files needs abc_reader"):
    ...     import abc_reader
    Traceback (most recent call last):
    ImportError: reading .abc files needs abc_reader (No module named 'abc_reader'); pip install 'egtmetrics[files]'
    """
    try:
        yield
    except ImportError as error:
        remedy = f"pip install 'egtmetrics[{name}]'" + (f", or {otherwise}" if otherwise else "")
        raise ImportError(f"{needed} ({first_line(error)}); {remedy}") from error
