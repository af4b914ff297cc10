"""Features kept on disk, found by the content they were made of."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._atomic import write_whole


class CacheWarning(UserWarning):
    """A file of the cache is damaged; the features it held are computed again."""


class FeatureCache:
    """Features ``(d,)`` of what has been encoded before, found by the hash of its content.

    Each encoder has a folder of its own, named after its ``settings``, with one file per batch. A file is written whole
    or not at all and is named by the hash of its bytes, so that a damaged one is noticed and removed. Files never
    change, so any number of processes may share the folder. Features that were read or written stay in memory.

    Parameters
    ----------
    folder
        Created if it is missing; several encoders may share it.
    settings
        Everything the features depend on besides the content; values that JSON can hold.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        described = json.dumps(settings, sort_keys=True, indent=2)
        self.folder = Path(folder) / _digest(described.encode())
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "encoder.json"
        if not about.is_file():
            write_whole(about, described + "\n")  # for people who find this folder
        self._features: dict[bytes, NDArray[np.float32]] = {}
        self._seen: set[str] = set()

    def refresh(self) -> None:
        """Read the files that were added since the last call, also by other processes."""
        for path in sorted(self.folder.glob("*.npy")):
            if path.name not in self._seen and path.is_file():
                self._seen.add(path.name)
                self._read(path)

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """Return the features of the content with this hash, if they are known."""
        return self._features.get(key)

    def put(self, keys: Sequence[bytes], features: NDArray[np.float32]) -> None:
        """Store the ``(k, d)`` features of ``k`` contents."""
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
        except FileNotFoundError:  # another process found it damaged and removed it
            return
        try:
            if _digest(data) != path.stem:
                raise ValueError("its bytes have changed")
            table = np.load(io.BytesIO(data), allow_pickle=False)
            found = {key.tobytes(): row for key, row in zip(table["key"], table["features"], strict=True)}
        except Exception:  # a file that another program put here can be anything
            warnings.warn(
                f"{path} is damaged and was removed; its features are computed again", CacheWarning, stacklevel=2
            )
            path.unlink(missing_ok=True)
            return
        self._features.update(found)


def content_hash(*parts: bytes) -> bytes:
    """Return a hash of 32 bytes, which differs where any part differs."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def weights_hash(module: Any, *others: str) -> str:
    """Hash of the weights of a network, and of other texts that say what shapes its features."""
    import torch

    digest = hashlib.sha256("".join(others).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
