"""One stream out of those of several processes."""

from __future__ import annotations

import copy
from typing import Any

from egtmetrics.streaming.stream import GenerativeMetricStream


def merge_ranks(stream: GenerativeMetricStream) -> None:
    """Make the stream of every rank hold what the streams of all ranks have seen.

    All ranks have to call this, with ``torch.distributed`` started. Every rank then holds all rows (or, with
    ``max_samples``, one sample of them) and computes the same frame. Real samples that every rank has seen count once
    for each.

    Raises
    ------
    ValueError
        On all ranks, if the streams cannot be merged: make them with the same settings and an integer
        ``random_state``.
    """
    import torch.distributed

    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, stream.state_dict())
    merged, part = copy.copy(stream), copy.copy(stream)
    merged.load_state_dict(states[0])
    for state in states[1:]:
        part.load_state_dict(state)
        merged.merge(part)
    stream.load_state_dict(merged.state_dict())
