"""What folders and the local cache of the Hugging Face hub hold; nothing here fetches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from egtmetrics._errors import first_line


def is_path(name: str | Path) -> bool:
    """Whether a name means a file or a folder, even one that is missing; ``owner/name`` is one of the hub."""
    return isinstance(name, Path) or name.startswith((".", "~", "/")) or name.count("/") > 1 or Path(name).exists()


def cached_folder(name: str, given: str, *, kind: Literal["model", "dataset"] = "model") -> Path:
    """Return the folder of what the hub calls ``name``, from the local cache, without a network.

    Raises
    ------
    ValueError
        It is not there, or is no name that the hub allows. The message begins with ``given``, and has the command that
        fetches it.
    ImportError
        huggingface_hub is missing.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, repo_type=kind, local_files_only=True))
    except (OSError, ValueError) as error:
        option = "" if kind == "model" else f" --repo-type {kind}"
        raise ValueError(
            f"{given} is not in the local cache of the Hugging Face hub, and nothing is fetched unasked; fetch it with "
            f"`hf download {name}{option}`, or pass a folder"
        ) from error


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
        failed = "holds no model that loads"
        if not is_path(model):
            failed = f"cannot be loaded from the local cache, where `hf download {model}` may complete it"
        raise ValueError(f"model={model} {failed} ({first_line(error)}); {_remedy(kind)}") from error


def _remedy(kind: str) -> str:
    return f"pass the folder of a {kind}, or its name on the Hugging Face hub"
