"""The progress bar of long work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tqdm import auto

if TYPE_CHECKING:
    from tqdm.auto import tqdm as tqdm  # types the steps by what it is called with
else:

    class tqdm(auto.tqdm):  # noqa: N801 - the name of what it is
        """tqdm without the thread that watches its bars.

        tqdm starts that thread for a disabled bar too, and warns where it cannot be started. It redraws a bar whose
        steps have become slow; here every step looks at the clock instead.
        """

        monitor_interval = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"miniters": 1} | options)
