"""The ranks of a torch.distributed group as an :class:`egtmetrics.ops.Exchange`, and who is at fault when it breaks."""

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
"""A rank whose beat has not changed for so long has ended or stands still: beats come from a thread, also from a rank
that computes."""


class RankError(RuntimeError):
    """Another rank ended, failed or did not answer, so the metric has no value."""


class _TransferError(Exception):
    """torch.distributed could not move something: another rank is at fault, or the network."""


@contextmanager
def _transfer() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # and nothing else in a step is taken for it: CUDA's lack of memory is one, too
        raise _TransferError(str(error)) from error


class ProcessExchange:
    """What :class:`egtmetrics.ops.Exchange` says, by gloo; by NCCL where the group has it and features lie on a GPU.

    gloo reports a lost peer by its address, to those that were talking to it. So each rank writes a beat to the store
    of the group; on a broken exchange a rank closes its connections, which tells the others at once, and looks whose
    beat has stopped, or who has left word of an error. With NCCL a handshake over gloo comes before every walk.
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
            raise ValueError("this process is not in the group; call with a group that this rank is a member of")
        if group not in cls._known or cls._known[group].broken is not None:
            cls._known[group] = cls(group, timeout)
        return cls._known[group]

    def __init__(self, group: dist.ProcessGroup, timeout: float) -> None:
        self._group = weakref.ref(group)
        self.ranks = dist.get_process_group_ranks(group)
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.broken: str | None = None
        members = "-".join(map(str, self.ranks))
        self._made[members] += 1  # for each set of ranks, as its members count alike; a rank in two groups counts both
        self._store = dist.distributed_c10d.PrefixStore(
            f"egtmetrics/{members}/{self._made[members]}", dist.distributed_c10d._get_default_store()
        )
        self._store.set(f"beat/{self.rank}", "0")  # before all meet, so that nobody looks for a beat that never was
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
        with self._one_fate(what):
            call = (what, *map(digest, arguments))
            calls = self._tell(call)
        if calls.count(call) < self.size:
            other = next(rank for rank, theirs in enumerate(calls) if theirs != calls[0])
            raise ValueError(
                f"the ranks call different things: rank 0 {calls[0][0]}{calls[0][1:]}, rank {other} {calls[other][0]}"
                f"{calls[other][1:]} (arrays by checksum); call the same functions with the same arguments on every "
                "rank, random_state an integer"
            )
        with self._one_fate(what):
            yield

    def tell(self, what: str, value: Any) -> list[Any]:
        """Bring a small picklable value of every rank to every rank."""
        with self._one_fate(what):
            told = self._tell((what, value))
        if len({call for call, _ in told}) > 1:
            raise ValueError(
                f"the ranks call different things: {[call for call, _ in told]}; call the same functions in the same "
                "order on every rank"
            )
        return [theirs for _, theirs in told]

    def tiles(self, local: Any, counts: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
        on_device = not isinstance(local, np.ndarray)
        carrier = self._group() if self._nccl and on_device else self._own
        if carrier is not self._own:
            self._tell(None)
        current = local if on_device else _tensor(local)
        if carrier is self._own:
            current = current.cpu()
        # One is received while the other is worked on and sent.
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

    def _tell(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        with _transfer():
            dist.all_gather_object(values, value, group=self._own)
        return values

    @contextmanager
    def _one_fate(self, what: str) -> Iterator[None]:
        """Raise RankError where another rank is at fault, and let the others know where this one is."""
        if self.broken is not None:
            raise RankError(self.broken)
        try:
            yield
        except _TransferError as error:
            self._close()
            self.broken = f"{self._who()}, so {what} of {self.size} ranks has no result; {_REMEDY}"
            raise RankError(self.broken) from error
        except BaseException as error:
            self.broken = f"rank {self.rank} failed with {type(error).__name__}: {error}"
            self._leave_word(self.broken)
            self._close()
            raise

    def _close(self) -> None:
        own, self._own = self._own, None
        dist.destroy_process_group(own)

    def _leave_word(self, word: str) -> None:
        with suppress(RuntimeError):  # where the store is lost, the others will see that this rank has ended
            self._store.compare_set("fault", "", word)

    def _who(self) -> str:
        """Say which rank is at fault, from the first word left or else from the beats."""
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
                return "the store of the process group is lost, and with it rank 0 or the launcher that holds it"
            silent = [rank for rank, (_, since) in seen.items() if time.monotonic() - since > _SILENT_SECONDS]
            if silent:
                names = " and ".join(f"rank {rank}" for rank in silent)
                self._leave_word(f"{names} ended or stands still")
                return f"{names} ended or stands still"
            time.sleep(_BEAT_SECONDS / 2)
        return "a connection broke or the time ran out, though every rank lives"


_REMEDY = "look at the output of that rank, then start all of them again"


def _beat(store: Any, rank: int, stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(_BEAT_SECONDS):
        beat += 1
        try:
            store.set(f"beat/{rank}", str(beat))
        except RuntimeError:  # the store went with its host
            return


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Share the memory of a contiguous array, which the caller keeps.

    torch warns of read-only ones, such as mapped files, though it only reads them.
    """
    if array.flags.writeable or not array.size:
        return torch.from_numpy(array)
    memory: Any = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    return torch.from_numpy(np.frombuffer(memory, array.dtype).reshape(array.shape))
