"""Text of users, such as names of groups and files, shown in one line; words for what is missing, and for durations."""

from __future__ import annotations

import re

_BREAKS = re.compile(r"\s*[\t-\r\x1c-\x1f\x85\u2028\u2029]\s*")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

MISSING_WORDS = frozenset(
    ["NA", "<NA>", "#NA", "N/A", "#N/A", "n/a", "nan", "NaN", "-nan", "-NaN", "NaT", "null", "NULL", "None"]
)
"""What R, pandas, NumPy, databases and spreadsheets write where a value is missing."""


def shown(text: str) -> str:
    """Return text in one line, with escapes for what acts instead of being seen.

    A line break or tab becomes a space, or nothing at an end. Control characters, which move the cursor of a terminal
    and are not allowed in SVG, become ``\\x1b``; so do marks that turn the direction of what follows, and halves of
    surrogate pairs, which names of files hold that are not UTF-8.

    Examples
    --------
    >>> print(shown("not\\nbold: \\x1b[1mname"))
    not bold: \\x1b[1mname
    """
    return _UNSEEN.sub(_escape, _BREAKS.sub(" ", text).strip())


def duration_text(seconds: float) -> str:
    """``"7 min"``, or ``"4.0 h"`` for long work."""
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600.0:.1f} h"


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("ascii", "backslashreplace").decode() if ord(match[0]) > 0x7F else f"\\x{ord(match[0]):02x}"
