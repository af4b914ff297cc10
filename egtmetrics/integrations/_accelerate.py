"""A watch in a loop with accelerate."""

from __future__ import annotations

from typing import Any

import accelerate

from egtmetrics.integrations._watch import GroupWatch


def watch_with_accelerate(watch: GroupWatch, accelerator: accelerate.Accelerator, model: Any, step: int) -> bool:
    """Let a :class:`~egtmetrics.integrations.GroupWatch` look at the model if it is time; return whether to stop.

    Call it after every step, on all processes: the main one looks, the others wait, and all return the same. Scalars
    go to the trackers of the accelerator as well, if it was told to log (``init_trackers``).

    Examples
    --------
    ::

        for step, batch in enumerate(loader, start=1):
            ...
            if watch_with_accelerate(watch, accelerator, model, step):
                break
        frame = watch.rescore(accelerator.unwrap_model(model))
    """
    if not watch.due(step):
        return False
    if accelerator.is_main_process:
        found = watch.look(accelerator.unwrap_model(model), step)
        accelerator.log({name: value for name, value in found.scalars.items() if value == value}, step=step)
        if found.stop:
            accelerator.set_trigger()
    else:
        watch.last_step = step
    accelerator.wait_for_everyone()
    return bool(accelerator.check_trigger())
