"""The ranks of a torch.distributed group as an :class:`egtmetrics.ops.Exchange`, and which rank failed if one does."""

from __future__ import annotations

import ctypes
import datetime
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from egtmetrics.ops import digest

DEFAULT_TIMEOUT = 1800.0

_BEAT_SECONDS = 0.5
_SILENT_SECONDS = 5.0
"""A rank without a heartbeat for this long has ended or hangs: heartbeats come from a thread, also during a
computation."""


class RankError(RuntimeError):
    """Another rank ended, failed or did not respond, so the metric has no value."""


class _TransferError(Exception):
    """A transfer of torch.distributed failed, because of another rank or the network."""


@contextmanager
def _transfer() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # only around transfers, since CUDA out of memory is a RuntimeError as well
        raise _TransferError(str(error)) from error


class ProcessExchange:
    """An :class:`egtmetrics.ops.Exchange` over gloo, or over NCCL if the group uses it and features are on a GPU.

    gloo reports a lost peer by its address only, and only to the ranks that were connected to it. So each rank writes
    heartbeats to the store of the group. When a transfer fails, a rank closes its connections, which makes the
    transfers of the others fail too, and looks for a rank that reported an error or whose heartbeat has stopped. Before
    NCCL passes features around, the ranks meet once over gloo, where a lost rank is noticed.
    """

    _known: ClassVar[weakref.WeakKeyDictionary[Any, ProcessExchange]] = weakref.WeakKeyDictionary()
    _made: ClassVar[Counter[str]] = Counter()

    @classmethod
    def of(cls, group: dist.ProcessGroup | None, timeout: float) -> ProcessExchange:
        if not dist.is_initialized():
            raise RuntimeError(
                "torch.distributed is not initialised; call torch.distributed.init_process_group first, under torchrun"
            )
        group = dist.group.WORLD if group is None else group
        if not isinstance(group, dist.ProcessGroup):
            raise ValueError("this process is not in the group; pass a group that this rank belongs to")
        if group not in cls._known or cls._known[group].broken is not None:
            cls._known[group] = cls(group, timeout)
        return cls._known[group]

    def __init__(self, group: dist.ProcessGroup, timeout: float) -> None:
        self._group = weakref.ref(group)
        self.ranks = dist.get_process_group_ranks(group)
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.broken: str | None = None
        members = "-".join(map(str, self.ranks))
        self._made[members] += 1  # by set of ranks, so that its members agree even if some are in other groups as well
        self._store = dist.distributed_c10d.PrefixStore(
            f"egtmetrics/{members}/{self._made[members]}", dist.distributed_c10d._get_default_store()
        )
        self._store.set(f"beat/{self.rank}", "0")  # before the ranks meet below, so that all heartbeats exist then
        self._own: Any = dist.new_group(
            self.ranks,
            timeout=datetime.timedelta(seconds=timeout),
            backend="gloo",
            use_local_synchronization=len(self.ranks) < dist.get_world_size(),
        )
        self._nccl = dist.get_backend(group) == "nccl"
        stop = threading.Event()
        threading.Thread(target=_beat, args=(self._store, self.rank, stop), daemon=True).start()
        weakref.finalize(self, stop.set)

    @contextmanager
    def step(self, what: str, *arguments: Any) -> Iterator[None]:
        with self._failing_together(what):
            call = (what, *map(digest, arguments))
            calls = self._all_gather(call)
        if calls.count(call) < self.size:
            other = next(rank for rank, theirs in enumerate(calls) if theirs != calls[0])
            raise ValueError(
                f"the ranks call different things: rank 0 {calls[0][0]}{calls[0][1:]}, rank {other} {calls[other][0]}"
                f"{calls[other][1:]} (arrays by checksum); call the same functions with the same arguments on every "
                "rank, random_state an integer"
            )
        with self._failing_together(what):
            yield

    def all_gather(self, what: str, value: Any) -> list[Any]:
        """Bring a small picklable value of every rank to every rank."""
        with self._failing_together(what):
            gathered = self._all_gather((what, value))
        if len({call for call, _ in gathered}) > 1:
            raise ValueError(
                f"the ranks call different things: {[call for call, _ in gathered]}; call the same functions in the "
                "same order on every rank"
            )
        return [theirs for _, theirs in gathered]

    def tiles(self, local: Any, counts: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
        on_device = not isinstance(local, np.ndarray)
        carrier = self._group() if self._nccl and on_device else self._own
        if carrier is not self._own:
            self._all_gather(None)
        current = local if on_device else _tensor(local)
        if carrier is self._own:
            current = current.cpu()
        # Rows are received in one while those in the other are used and sent on.
        buffers = [current.new_empty((int(counts.max()), local.shape[1])) for _ in range(min(2, self.size - 1))]
        to, source = self.ranks[(self.rank + 1) % self.size], self.ranks[(self.rank - 1) % self.size]
        for step in range(self.size):
            owner = (self.rank - step) % self.size
            requests: list[Any] = []
            if step + 1 < self.size:
                following = buffers[step % 2][: int(counts[owner - 1])]
                transfers = [
                    dist.P2POp(call, rows, peer, group=carrier)
                    for call, rows, peer in ((dist.isend, current, to), (dist.irecv, following, source))
                    if len(rows)
                ]
                with _transfer():
                    requests = dist.batch_isend_irecv(transfers) if transfers else []
            if step == 0:
                yield owner, local
            else:
                yield owner, current.to(local.device) if on_device else current.numpy()
            with _transfer():
                for request in requests:
                    request.wait()
            if step + 1 < self.size:
                current = following

    def gather(self, part: NDArray[Any], counts: NDArray[np.int64]) -> list[NDArray[Any]]:
        parts = []
        for rank, source in enumerate(self.ranks):
            rows = (
                np.ascontiguousarray(part)
                if rank == self.rank
                else np.empty((counts[rank], *part.shape[1:]), part.dtype)
            )
            if rows.size:
                with _transfer():
                    dist.broadcast(_tensor(rows), source, group=self._own)
            parts.append(rows)
        return parts

    def total(self, part: NDArray[Any]) -> NDArray[Any]:
        sums = part.copy()
        with _transfer():
            dist.all_reduce(_tensor(sums), group=self._own)
        return sums

    def _all_gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        with _transfer():
            dist.all_gather_object(values, value, group=self._own)
        return values

    @contextmanager
    def _failing_together(self, what: str) -> Iterator[None]:
        """Raise RankError if another rank failed; if this one fails, report it to the others."""
        if self.broken is not None:
            raise RankError(self.broken)
        try:
            yield
        except _TransferError as error:
            self._close()
            self.broken = f"{self._find_fault()}, so {what} of {self.size} ranks has no result; {_REMEDY}"
            raise RankError(self.broken) from error
        except BaseException as error:
            self.broken = f"rank {self.rank} failed with {type(error).__name__}: {error}"
            self._report_fault(self.broken)
            self._close()
            raise

    def _close(self) -> None:
        own, self._own = self._own, None
        dist.destroy_process_group(own)

    def _report_fault(self, message: str) -> None:
        with suppress(RuntimeError):  # without the store, the others will find that this rank has ended
            self._store.compare_set("fault", "", message)

    def _find_fault(self) -> str:
        """Say which rank is at fault: from the first report, or else from the heartbeats."""
        seen: dict[int, tuple[bytes, float]] = {}
        deadline = time.monotonic() + 3.0 * _SILENT_SECONDS
        while time.monotonic() < deadline:
            try:
                if self._store.check(["fault"]):
                    return self._store.get("fault").decode()
                for rank in range(self.size):
                    beat = self._store.get(f"beat/{rank}")
                    if rank not in seen or seen[rank][0] != beat:
                        seen[rank] = beat, time.monotonic()
            except RuntimeError:
                return "the store of the process group is lost, so rank 0 or the launcher that holds it has ended"
            silent = [rank for rank, (_, since) in seen.items() if time.monotonic() - since > _SILENT_SECONDS]
            if silent:
                names = " and ".join(f"rank {rank}" for rank in silent)
                self._report_fault(f"{names} ended or hangs")
                return f"{names} ended or hangs"
            time.sleep(_BEAT_SECONDS / 2)
        return "a connection broke or the timeout passed, though every rank is alive"


_REMEDY = "look at the output of that rank, then start all ranks again"


def _beat(store: Any, rank: int, stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(_BEAT_SECONDS):
        beat += 1
        try:
            store.set(f"beat/{rank}", str(beat))
        except RuntimeError:  # the process that holds the store has ended
            return


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Return a tensor in the memory of a contiguous array, which the caller keeps alive.

    torch would warn of read-only arrays, such as mapped files, though they are only read here.
    """
    if array.flags.writeable or not array.size:
        return torch.from_numpy(array)
    memory: Any = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    return torch.from_numpy(np.frombuffer(memory, array.dtype).reshape(array.shape))
