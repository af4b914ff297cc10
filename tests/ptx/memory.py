"""Device, shared, local and parameter memory as bytes, every access within one allocation and aligned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[Any]
Indices = NDArray[np.int64]

# Generic addresses: device memory at its own, the others behind these.
WINDOW_SHIFT = 56
SHARED_WINDOW, LOCAL_WINDOW, PARAMETER_WINDOW = (window << WINDOW_SHIFT for window in (1, 2, 3))


class MemoryAccessError(Exception):
    """An access outside of every allocation, or one that is not aligned."""


class _Bytes:
    """Bytes, and the same memory as words of each size."""

    def __init__(self, size: int, fill: int) -> None:
        self.bytes = np.full(-(-max(size, 1) // 16) * 16, fill, np.uint8)
        self.words = {1: self.bytes, **{n: self.bytes.view(f"u{n}") for n in (2, 4, 8)}}


class Space:
    """Base of all memories: ``word`` turns the addresses of lanes into positions among words of a size."""

    name = ""
    store_: _Bytes

    def place(self, lanes: Indices, addresses: Indices, size: int) -> Indices:
        raise NotImplementedError

    def positions(self, lanes: Indices, addresses: Indices, size: int, count: int = 1) -> Indices:
        """Of the first of ``count`` words of ``size`` bytes at each address."""
        if (addresses & (size * count - 1)).any():
            bad = int(np.flatnonzero(addresses & (size * count - 1))[0])
            raise MemoryAccessError(
                f"{size * count} bytes of {self.name} memory at {int(addresses[bad]):#x}, which is not aligned, "
                f"by thread {int(lanes[bad])}"
            )
        return self.place(lanes, addresses, size * count) >> (size.bit_length() - 1)

    def load(self, lanes: Indices, addresses: Indices, size: int, count: int) -> list[Lanes]:
        at = self.positions(lanes, addresses, size, count)
        return [self.store_.words[size][at + i] for i in range(count)]

    def store(self, lanes: Indices, addresses: Indices, values: list[Lanes], size: int) -> None:
        at = self.positions(lanes, addresses, size, len(values))
        for i, value in enumerate(values):
            self.store_.words[size][at + i] = value

    def fault(self, lanes: Indices, addresses: Indices, size: int, bad: Lanes) -> MemoryAccessError:
        first = int(np.flatnonzero(bad)[0])
        return MemoryAccessError(
            f"{size} bytes of {self.name} memory at {int(addresses[first]):#x}, outside of what is allocated, "
            f"by thread {int(lanes[first])}"
        )


class DeviceMemory(Space):
    """Copies of allocations at their addresses."""

    name = "device"

    def __init__(self, allocations: Iterable[tuple[int, bytes | NDArray[np.uint8]]]) -> None:
        placed: list[tuple[int, int, NDArray[np.uint8]]] = []
        size = 0
        for address, data in sorted(allocations, key=lambda one: one[0]):
            if placed and address < placed[-1][0] + len(placed[-1][2]):
                raise ValueError(f"two allocations at {address:#x}")
            # Word positions need the alignment of the address.
            start = -(-size // 256) * 256 + address % 256
            placed.append((address, start, np.frombuffer(data, np.uint8)))
            size = start + len(data)
        self.store_ = _Bytes(size, 0)
        for _, start, data in placed:
            self.store_.bytes[start : start + len(data)] = data
        # One before the first: an address below all belongs to it, and it is empty.
        self.addresses = np.array([-(1 << 62), *(one[0] for one in placed)], np.int64)
        self.starts = np.array([0, *(one[1] for one in placed)], np.int64)
        self.sizes = np.array([0, *(len(one[2]) for one in placed)], np.int64)

    def place(self, lanes: Indices, addresses: Indices, size: int) -> Indices:
        which = np.searchsorted(self.addresses, addresses, "right") - 1
        offsets = addresses - self.addresses[which]
        bad = offsets > self.sizes[which] - size
        if bad.any():
            raise self.fault(lanes, addresses, size, bad)
        return self.starts[which] + offsets

    def read(self, address: int, size: int) -> bytes:
        which = int(np.searchsorted(self.addresses, address, "right")) - 1
        start = int(self.starts[which]) + address - int(self.addresses[which])
        return self.store_.bytes[start : start + size].tobytes()


class OwnedMemory(Space):
    """The same number of bytes for each owner, a block or a thread; uninitialised at first."""

    def __init__(self, name: str, owners: Indices, size: int) -> None:
        self.name, self.owners, self.size = name, owners, size
        self.stride = -(-size // 16) * 16
        n_owners = int(owners.max()) + 1 if len(owners) else 0
        self.store_ = _Bytes(n_owners * self.stride, 0xA5)

    def place(self, lanes: Indices, addresses: Indices, size: int) -> Indices:
        bad = (addresses < 0) | (addresses > self.size - size)
        if bad.any():
            raise self.fault(lanes, addresses, size, bad)
        return self.owners[lanes] * self.stride + addresses


class ParameterMemory(Space):
    name = "parameter"

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.store_ = _Bytes(self.size, 0)
        self.store_.bytes[: self.size] = np.frombuffer(data, np.uint8)

    def place(self, lanes: Indices, addresses: Indices, size: int) -> Indices:
        bad = (addresses < 0) | (addresses > self.size - size)
        if bad.any():
            raise self.fault(lanes, addresses, size, bad)
        return addresses
