"""Merge the streams of several processes."""

from __future__ import annotations

import copy
from typing import Any

from egtmetrics.streaming.stream import GenerativeMetricStream


def merge_ranks(stream: GenerativeMetricStream) -> None:
    """Give the stream of every rank all the rows that any rank has seen.

    Call it on all ranks, after ``torch.distributed.init_process_group``. Every rank then holds all rows (with
    ``max_samples``, one sample of them) and computes the same frame. Real samples that several ranks have seen count
    several times.

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
