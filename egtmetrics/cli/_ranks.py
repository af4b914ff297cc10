"""Encoding shared by the processes of torchrun: each sample is encoded by one of them, and rank 0 goes on alone."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egtmetrics.distributed._processes import ProcessExchange

_LAUNCHED = "TORCHELASTIC_RUN_ID"
"""What torchrun sets in the environment of every process."""
_PATIENCE = 86400.0
"""Seconds that a rank waits for the slowest one; one that ended is noticed at once."""


class Ranks:
    """The processes that share the encoding of a command."""

    def __init__(self, exchange: ProcessExchange) -> None:
        self._exchange = exchange

    def share(self, what: str, function: Callable[[Any], Any], samples: Sequence[Any]) -> list[Any]:
        """Call a function with a part of the samples on every rank, and return all results, in order, on every rank.

        Raises
        ------
        ConnectionError
            Another rank failed or ended; the message names it.
        """
        from egtmetrics.distributed import RankError

        n, rank, size = len(samples), self._exchange.rank, self._exchange.size
        mine = range(rank * n // size, (rank + 1) * n // size)
        try:
            with self._exchange.step(what, n):
                found = [function(_Part(samples, mine))] if mine else []
            return [result for results in self._exchange.all_gather(what, found) for result in results]
        except RankError as error:
            raise ConnectionError(str(error)) from error

    def leave(self) -> None:
        """End every rank but the first one, when all samples are encoded."""
        import torch.distributed as dist

        rank = self._exchange.rank
        dist.destroy_process_group()
        if rank > 0:
            raise SystemExit(0)


class SharedEncoder:
    """An encoder whose calls are shared by all ranks."""

    def __init__(self, encoder: Any, ranks: Ranks) -> None:
        self._encoder, self._ranks = encoder, ranks
        self.identity = encoder.identity
        self.truncated = 0

    def __call__(self, samples: Sequence[Any]) -> Any:
        import numpy as np

        def encode(part: Sequence[Any]) -> tuple[Any, int]:
            return self._encoder(part), getattr(self._encoder, "truncated", 0)

        found = self._ranks.share("encoding", encode, samples)
        self.truncated = sum(truncated for _, truncated in found)
        return np.concatenate([features for features, _ in found])


class _Part(Sequence[Any]):
    """Some of the samples, each read when it is asked for."""

    def __init__(self, samples: Sequence[Any], places: range) -> None:
        self._samples, self._places = samples, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        chosen = self._places[place]
        return [self._samples[i] for i in chosen] if isinstance(place, slice) else self._samples[chosen]


def join_ranks(args: argparse.Namespace) -> None:
    """Join the other processes of torchrun, ``args.ranks``, None if there are none; all but the first are quiet."""
    args.ranks = None
    if _LAUNCHED not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return
    import torch.distributed as dist

    from egtmetrics.distributed._processes import ProcessExchange

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    args.quiet = args.quiet or dist.get_rank() > 0
    args.ranks = Ranks(ProcessExchange.of(None, _PATIENCE))


def own_device(args: argparse.Namespace) -> str | None:
    """Return the device that the user gave; of several processes each has its own where that leaves it open."""
    device: str | None = args.device
    if args.ranks is None or device not in (None, "cuda"):
        return device
    import torch

    if not torch.cuda.is_available():
        return device
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"


def shared(args: argparse.Namespace, encoder: Any) -> Any:
    """Return an encoder whose calls are shared, where there are several processes."""
    return encoder if encoder is None or args.ranks is None else SharedEncoder(encoder, args.ranks)
