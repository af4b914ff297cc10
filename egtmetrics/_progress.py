"""The progress of long work: a bar on a terminal and in notebooks, lines now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from tqdm import std

with warnings.catch_warnings():  # in a notebook without ipywidgets, where the bar is text
    warnings.simplefilter("ignore", std.TqdmWarning)
    from tqdm import auto


class Lines(std.tqdm):  # type: ignore[type-arg]
    """Progress for a log: a line with the time left, first after half a minute, then at growing intervals.

    Work that ends before the first line leaves none. Every step looks at the clock, so there is no thread, and a step
    that takes long delays the line.
    """

    first_after = 30.0
    """Seconds before the first line; the pause doubles after each."""
    longest_pause = 600.0
    """Seconds."""
    monitor_interval = 0
    _instances: ClassVar[WeakSet[Any]] = WeakSet()  # not those that are cleared when something else is written

    def __init__(self, *args: Any, **options: Any) -> None:
        options |= {"delay": self.first_after, "mininterval": self.first_after, "miniters": 1, "leave": False}
        options["bar_format"] = (
            "{desc}{percentage:.0f}% ({n_fmt}/{total_fmt} {unit}s), {elapsed} elapsed, {remaining} left"
        )
        if options.get("desc"):
            options["desc"] += ": "
        super().__init__(*args, **options)

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Describe the work from here on; the next line says so."""
        super().set_description(desc, refresh=False)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line; at the end, too, where tqdm would clear a bar by an empty ``msg``."""
        if self.n > self.last_print_n:
            with contextlib.suppress(OSError):  # a log that is full or closed does not stop the work
                self.fp.write(f"{self}\n")
                self.fp.flush()
            self.mininterval = min(2.0 * self.mininterval, self.longest_pause)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def write_line(text: str) -> None:
    """Write a line to stderr, above the bars that are there, if it takes any."""
    if not _closed():
        with contextlib.suppress(OSError):
            std.tqdm.write(text, file=sys.stderr)


def _closed() -> bool:
    """Return whether there is no stderr."""
    return bool(getattr(sys.stderr, "closed", sys.stderr is None))


if TYPE_CHECKING:
    from tqdm.auto import tqdm as tqdm  # types the steps by what it is called with
else:

    class _Bar(auto.tqdm):
        """tqdm without the thread that watches its bars.

        tqdm starts that thread for a disabled bar too, and warns where it cannot be started. It redraws a bar whose
        steps have become slow; here every step looks at the clock instead.
        """

        monitor_interval = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"miniters": 1} | options)

    def tqdm(*args: Any, **options: Any) -> std.tqdm:
        """Return tqdm's bar where it can be redrawn, else one that writes lines, or nothing where stderr is closed."""
        if _closed():
            return Lines(*args, **options | {"disable": True})
        in_notebook = auto.notebook_tqdm is not std.tqdm
        return (_Bar if in_notebook or getattr(sys.stderr, "isatty", bool)() else Lines)(*args, **options)
