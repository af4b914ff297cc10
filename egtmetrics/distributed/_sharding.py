"""Make one set of features of the rows that each rank has, and gather the labels of all rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from egtmetrics._validation import check_features
from egtmetrics.distributed._processes import DEFAULT_TIMEOUT, ProcessExchange
from egtmetrics.ops import BackendName, ShardedFeatures, reading_device


def shard_features(
    local: Any,
    name: str = "features",
    *,
    group: torch.distributed.ProcessGroup | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    backend: BackendName = "auto",
) -> ShardedFeatures:
    """Make one ``(n, d)`` set of the rows of all ranks, which metrics and frames take as ``real`` or ``fake``.

    All ranks of the group call it, in the same order. The rows of the set are in the order of the ranks.

    Parameters
    ----------
    local
        The rows of this rank ``(n_r, d)``: an array (also memory-mapped), a CPU tensor, or a CUDA tensor, which stays
        on its device. A rank without rows passes shape ``(0, d)``. If some ranks have float64, all rows become it.
    name
        Name of the features in messages.
    group
        A process group; None for all ranks. If it uses NCCL, CUDA tensors are sent by it; everything else is sent by a
        gloo group of the same ranks, made at the first call.
    timeout
        Seconds after which a rank that does not respond counts as lost. It must be longer than one rank ever computes
        while another waits for it.
    backend
        That of the metrics. ``"cpu"`` and ``"reference"`` copy CUDA tensors to the host.

    Raises
    ------
    RuntimeError
        ``torch.distributed`` is not initialised.
    ValueError
        On every rank, and naming the ranks at fault: features that are not a finite ``(n_r, d)`` array, different
        numbers of features, some on a device and some not, or no rows on any rank.
    RankError
        A rank ended, failed or did not respond.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> real = shard_features([[0.0], [1.0], [2.0], [3.0]], "real")
    >>> from egtmetrics import improved_precision_recall
    >>> improved_precision_recall(real, shard_features([[3.0], [4.0], [9.0]], "fake"), n_neighbors=1).precision
    0.6666666666666666
    >>> dist.destroy_process_group()
    """
    exchange = ProcessExchange.of(group, timeout)
    features: Any = None
    error, device = None, None
    shape = tuple(getattr(local, "shape", ()))
    try:
        device = reading_device(backend, local)
        if len(shape) == 2 and shape[0] == 0 and shape[1] > 0:
            features = np.empty(shape, np.float32) if device is None else torch.empty(shape, device=device).float()
        else:
            features = check_features(local, name, device=device)
    except (TypeError, ValueError) as raised:
        error = raised
    facts = None if features is None else (*map(int, features.shape), features.dtype.itemsize, device is not None)
    everyone = exchange.all_gather(f"shard_features({name})", (str(error) if error else None, facts))
    for rank, (message, _) in enumerate(everyone):
        if message is not None:
            raise ValueError(f"rank {rank} of {exchange.size}: {message}") from error
    widths = [width for _, (_, width, *_) in everyone]
    if len(set(widths)) > 1:
        raise ValueError(
            f"{name} has different numbers of features: {_by_rank(widths)}; every rank must use the same encoder"
        )
    if len({on_device for _, (_, _, _, on_device) in everyone}) > 1:
        raise ValueError(f"{name} is on a device on some ranks and on the host on others; move it on all or on none")
    counts = [rows for _, (rows, *_) in everyone]
    if not sum(counts):
        raise ValueError(f"{name} is empty: no rank has a row; pass at least one")
    widest = max(itemsize for _, (rows, _, itemsize, _) in everyone if rows)
    owners = np.repeat(np.arange(exchange.size, dtype=np.int32), counts)
    sharded = ShardedFeatures(features, owners, exchange)
    return sharded.double() if features.dtype.itemsize < widest else sharded


def gather_labels(
    local: Any, *, group: torch.distributed.ProcessGroup | None = None, timeout: float = DEFAULT_TIMEOUT
) -> NDArray[Any] | pd.DataFrame:
    """Bring the labels of all rows to every rank, in the order of the ranks.

    ``local`` has one label per row of this rank: a sequence, or a DataFrame or mapping of several; a rank without rows
    passes an empty one. The frame and the disparities take what is returned; ``mgo`` and ``ego`` need nothing else.
    Labels are sent as pickles, so the ranks must trust each other. Errors as for :func:`shard_features`.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> gather_labels(["f", "m"]).tolist()
    ['f', 'm']
    >>> dist.destroy_process_group()
    """
    exchange = ProcessExchange.of(group, timeout)
    several = isinstance(local, pd.DataFrame | dict)
    table = pd.DataFrame(local) if several else pd.DataFrame({0: pd.Series(list(local), dtype=object)})
    everyone = exchange.all_gather("gather_labels", (several, [str(column) for column in table], table.astype(object)))
    if len({(several, *columns) for several, columns, _ in everyone}) > 1:
        raise ValueError(
            f"the labels have different features: {_by_rank([columns for _, columns, _ in everyone])}; pass the same "
            "on every rank"
        )
    labels: pd.DataFrame = pd.concat([rows for *_, rows in everyone], ignore_index=True).infer_objects()
    if several:
        return labels
    one: NDArray[Any] = labels[0].to_numpy()
    return one


def _by_rank(values: list[Any]) -> str:
    return ", ".join(f"{value} on rank {rank}" for rank, value in enumerate(values))
