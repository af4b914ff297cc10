"""What the local cache of the Hugging Face hub holds; nothing here fetches."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


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
