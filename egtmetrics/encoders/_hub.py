"""Models of other libraries, in folders or in the local cache of the Hugging Face hub; nothing here fetches one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egtmetrics._errors import first_line
from egtmetrics._hub import cached_folder, is_path


@contextlib.contextmanager
def loading_quietly() -> Iterator[None]:
    """Load a model of transformers without its progress bars, and leave the global random generators as they were."""
    import torch
    import transformers.utils

    logging: Any = transformers.utils.logging  # untyped
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # such as on the weights of a classifier, which an encoder leaves out
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def find_folder(model: str | Path, kind: str) -> Path:
    """Return the folder of a model, also of one in the local cache; it takes no network, and no framework.

    Given a folder, transformers asks no server for what it lacks. ``kind`` says what a folder should hold.

    Raises
    ------
    FileNotFoundError
        ``model`` is a path, but no folder.
    ValueError
        It is a name that is not in the cache.
    """
    if is_path(model):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"model={model} is not a folder; {_remedy(kind)}")
        return folder
    return cached_folder(str(model), f"model={model}")


@contextlib.contextmanager
def loading(model: str | Path, kind: str) -> Iterator[None]:
    """Load quietly what :func:`find_folder` found; turn whatever that raises into a ValueError."""
    try:
        with loading_quietly():
            yield
    except Exception as error:  # transformers and each format of weights have errors of their own
        failed = "is a folder without a model that loads"
        if not is_path(model):
            failed = f"cannot be loaded from the local cache, where `hf download {model}` may complete it"
        raise ValueError(f"model={model} {failed} ({first_line(error)}); {_remedy(kind)}") from error


def _remedy(kind: str) -> str:
    return f"pass the folder of a {kind}, or its name on the Hugging Face hub"


def weights_hash(module: Any, *others: str) -> str:
    """Hash of the weights of a network, and of other texts that say what shapes its features."""
    import torch

    digest = hashlib.sha256("".join(others).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
