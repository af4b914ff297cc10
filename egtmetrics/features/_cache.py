"""What the encoders share: features kept on disk by content, and batches that shrink when memory runs out."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from egtmetrics._atomic import write_whole
from egtmetrics._errors import first_line, out_of_memory

Item = TypeVar("Item")


class CacheWarning(UserWarning):
    """A file of the cache is damaged; what it held is computed again."""


class FeatureCache:
    """Features ``(d,)`` of what has been encoded before, found by the hash of its content.

    One folder per encoder (``settings`` say which it is), in it one file per batch. A file is written whole or not at
    all and is named by the hash of its own bytes, so that a damaged one is noticed, and removed; files never change, so
    that any number of processes may share the folder. Features that were read or written stay in memory.

    Parameters
    ----------
    folder
        Made if it is missing; several encoders may share it.
    settings
        All that the features depend on besides the content: values that JSON takes.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        described = json.dumps(settings, sort_keys=True, indent=2)
        self.folder = Path(folder) / _digest(described.encode())
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "encoder.json"
        if not about.is_file():
            write_whole(about, described + "\n")  # for people who wonder whose folder this is
        self._features: dict[bytes, NDArray[np.float32]] = {}
        self._seen: set[str] = set()

    def refresh(self) -> None:
        """Read the files that are new since the last time, another process's included."""
        for path in sorted(self.folder.glob("*.npy")):
            if path.name not in self._seen:
                self._seen.add(path.name)
                self._read(path)

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """Return the features of the content with this hash, if they are known."""
        return self._features.get(key)

    def put(self, keys: Sequence[bytes], features: NDArray[np.float32]) -> None:
        """Keep the ``(k, d)`` features of ``k`` contents."""
        table = np.zeros(len(keys), dtype=[("key", "u1", 32), ("features", "<f4", features.shape[1])])
        table["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
        table["features"] = features
        file = io.BytesIO()
        np.save(file, table, allow_pickle=False)
        name = f"{_digest(file.getvalue())}.npy"
        write_whole(self.folder / name, file.getvalue())
        self._seen.add(name)
        self._features.update(zip(keys, table["features"], strict=True))

    def _read(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # another process found it damaged
            return
        if _digest(data) != path.stem:
            warnings.warn(
                f"{path} is damaged and is removed; what it held is computed again", CacheWarning, stacklevel=2
            )
            path.unlink(missing_ok=True)
            return
        table = np.load(io.BytesIO(data), allow_pickle=False)
        self._features.update((key.tobytes(), row) for key, row in zip(table["key"], table["features"], strict=True))


class Batches:
    """Run an encoder on at most ``size`` items at a time, and on half as many for good when memory does not suffice."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, forward: Callable[[list[Item]], Any], items: list[Item]) -> NDArray[np.float32]:
        """Return the ``(k, d)`` features of ``k`` items.

        Raises
        ------
        MemoryError
            One item alone needs more memory than there is.
        """
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            with out_of_memory() as failed:
                parts.append(np.asarray(forward(batch), dtype=np.float32))
                start += len(batch)
            if not failed:
                continue
            if len(batch) == 1:
                raise MemoryError(
                    f"encoding does not fit into memory even one at a time ({failed[0]}); use a smaller model, smaller "
                    "or shorter inputs, or another device"
                )
            self.size = len(batch) // 2
            _free()
        return np.concatenate(parts)


def content_hash(*parts: bytes) -> bytes:
    """Return 32 bytes that stand for the content."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def check_device(device: Any) -> None:
    """Raise ValueError for a device on which torch cannot put anything."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device={device!r} cannot be used ({first_line(error)}); pass one that torch has here, such as 'cpu'"
        ) from error


def check_finite(features: NDArray[np.float32], names: Sequence[object]) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the encoder returned NaN or infinity for {names[bad[0]]} and {len(bad) - 1} more of its batch; use "
            "another encoder, or one in float32"
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _free() -> None:
    with contextlib.suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
