"""Read the public checkpoints of Karras et al. 2022 without running the code that they contain.

The files are pickles that contain the source of every class, which ordinary loading executes. Here they are read in two
steps. First, every global that the pickle asks for becomes an inert record of how it was called, or the file is
refused; no function of the file, of torch or of any other library is called. Then the records of the network, its
parameters, buffers and storages are turned into tensors; everything else is ignored.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import pickletools
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from egtmetrics._atomic import write_whole
from egtmetrics.training.diffusion import (
    Denoiser,
    EDMPreconditioning,
    Preconditioning,
    VEPreconditioning,
    VPPreconditioning,
)

_PREFIX = "model."
"""Name of the network in the wrapper that the files hold."""

_AUGMENTATIONS = "model.map_augment.weight"
"""Weights for the description of an augmentation, which is zero without augmentation; not used here."""

_LONGEST = 400
"""Characters of differences in an error; two architectures can differ in hundreds of weights."""

_PRECONDITIONINGS: dict[str, Callable[[Mapping[str, str]], Preconditioning]] = {
    "EDMPrecond": lambda metadata: EDMPreconditioning(sigma_data=float(metadata.get("sigma_data", 0.5))),
    "VPPrecond": lambda _: VPPreconditioning(),
    "VEPrecond": lambda _: VEPreconditioning(),
}


def convert_checkpoint(path: str | Path, out: str | Path) -> None:
    """Write the averaged network of a public checkpoint as a safetensors file, without running its code.

    Parameters
    ----------
    path
        A pickle as published, for example ``edm-ffhq-64x64-uncond-vp.pkl``: a dictionary with the network under
        ``"ema"``.
    out
        The file to write, whole or not at all. It holds all parameters and buffers under their names in the checkpoint,
        and as metadata the class of the network (``class``), its ``sigma_data``, and the SHA-256 of ``path``.

    Raises
    ------
    OSError
        ``path`` cannot be read, or ``out`` cannot be written.
    ValueError
        The file is cut off, is no such checkpoint, or asks for something that checkpoints do not need: the message
        names it.

    Notes
    -----
    A malicious file can waste time, but it cannot run code, write files, or make tensors that are together larger than
    the file. Conversion needs memory of about four times the size of the file.

    References
    ----------
    Karras et al. 2022; that paper's repository links to the files, which have their own licence (CC BY-NC-SA).

    Examples
    --------
    >>> from egtmetrics.paper.checkpoints import convert_checkpoint, load_checkpoint
    >>> from egtmetrics.paper.unet import UNet
    >>> convert_checkpoint("edm-ffhq-64x64-uncond-vp.pkl", "ffhq-vp.safetensors")  # doctest: +SKIP
    >>> denoiser = load_checkpoint("ffhq-vp.safetensors", UNet(64))  # doctest: +SKIP
    """
    try:
        tensors, metadata = _convert(Path(path).read_bytes())
    except OSError:
        raise
    except Exception as error:  # a damaged or malicious file can fail in any way
        raise ValueError(
            f"{path} is refused, and none of its code was run: {_reason(error)}; expected a checkpoint as published "
            "with Karras et al. 2022, download it again"
        ) from error
    write_whole(out, safetensors.torch.save(tensors, metadata))


def load_checkpoint(path: str | Path, network: nn.Module) -> Denoiser:
    """Load a file of :func:`convert_checkpoint` into a network of its sizes, to train further or to sample from.

    Parameters
    ----------
    path
        The file. It holds only data; loading it runs no code.
    network
        A :class:`UNet`, whose weights are replaced.

    Returns
    -------
    Denoiser
        ``network`` in the preconditioning that the file names.

    Raises
    ------
    OSError
        The file is missing.
    ValueError
        It was not written by :func:`convert_checkpoint`, or holds a network of other sizes.

    Examples
    --------
    Start a conditional model, which gives the outputs of the unconditional one until it is trained further:

    >>> from egtmetrics.training import Denoiser
    >>> from egtmetrics.paper.checkpoints import load_checkpoint
    >>> from egtmetrics.paper.unet import UNet
    >>> denoiser = load_checkpoint("ffhq-vp.safetensors", UNet(64))  # doctest: +SKIP
    >>> conditional = Denoiser(denoiser.network.with_classes(2), denoiser.preconditioning)  # doctest: +SKIP
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; pass what convert_checkpoint wrote")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}); pass what convert_checkpoint has written"
        ) from error
    kind = metadata.get("class")
    if kind not in _PRECONDITIONINGS or not all(name.startswith(_PREFIX) for name in state):
        raise ValueError(
            f"{path} holds a network of class {kind!r}, expected one of {', '.join(_PRECONDITIONINGS)} with names that "
            f"begin with {_PREFIX!r}; pass what convert_checkpoint has written"
        )
    weights = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name != _AUGMENTATIONS}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        differences = textwrap.shorten("; ".join(str(error).split("\n\t")[1:]), _LONGEST)
        raise ValueError(
            f"checkpoint {path} has another architecture than the network: {differences}; pass a network of its sizes, "
            "or another checkpoint"
        ) from error
    return Denoiser(network, _PRECONDITIONINGS[kind](metadata))


class _Record:
    """Stands for a global of the file: a call keeps the arguments, setting its state keeps the state.

    It has no ``__dict__`` but a ``__setstate__``, so that no instruction of a pickle can change it or its class.
    """

    __slots__ = ("args", "state")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Self:
        if len(args) > 7:  # the most that a tensor needs; a pickle can repeat a long tuple in three bytes
            raise ValueError(f"it calls {cls.__name__.strip('_')} with {len(args)} arguments")
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Module(_Record):
    """A module: one of torch has its attributes as state, one of the file's own code in a description."""

    __slots__ = ()

    @property
    def attributes(self) -> dict[str, Any]:
        attributes = self.args[0].get("state") if self.args else self.state
        if not isinstance(attributes, dict):
            raise ValueError("it holds a module without attributes")
        return attributes

    @property
    def class_name(self) -> str:
        return str(self.args[0].get("class_name")) if self.args else "a module of torch"


class _Parameter(_Record):
    __slots__ = ()


class _Tensor(_Record):
    __slots__ = ()


class _Storage(_Record):
    __slots__ = ()


class _Bytes(_Record):
    """Bytes as protocols before 3 write them: a text with one character for each, and the name of its encoding."""

    __slots__ = ()


class _Set(_Record):
    __slots__ = ()


class _Ignored(_Record):
    __slots__ = ()


class _Dict(dict[Any, Any]):
    """Stands for other types of dictionaries: always created empty, then filled."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it sets attributes of a dictionary")


_GLOBALS: dict[tuple[str, str], type] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Module,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("collections", "OrderedDict"): _Dict,
    ("dnnlib.util", "EasyDict"): _Dict,
    ("builtins", "set"): _Set,
    ("__builtin__", "set"): _Set,
    ("_codecs", "encode"): _Bytes,
    ("numpy", "dtype"): _Ignored,
    ("numpy.core.multiarray", "scalar"): _Ignored,
    ("numpy._core.multiarray", "scalar"): _Ignored,
}
"""All that a checkpoint needs, apart from the classes in torch.nn.modules. Pickles of protocols before 3 have Python
2's name for builtins."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if module.startswith("torch.nn.modules."):
            return _Module
        if (module, name) not in _GLOBALS:
            raise ValueError(f"it asks for {module}.{name}, which no checkpoint needs")
        return _GLOBALS[module, name]


def _convert(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata; the records, which hold a copy of the file, are freed on return."""
    network = _network(_read(data))
    metadata = {"format": "pt", "class": network.class_name, "sha256": hashlib.sha256(data).hexdigest()}
    if isinstance(sigma_data := network.attributes.get("sigma_data"), float | int):
        metadata["sigma_data"] = str(sigma_data)
    return _build(_flatten(network), max_bytes=len(data)), metadata


def _read(data: bytes) -> Any:
    """Unpickle with records in place of all globals."""
    for position, (opcode, argument, _) in enumerate(pickletools.genops(data)):  # reads to the end, or raises
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not position >= int(argument or 0) >= 0:
            raise ValueError(f"it numbers an object {argument}, for which memory would be reserved")
        if opcode.name in ("EXT1", "EXT2", "EXT4"):  # these need not go through find_class
            raise ValueError(f"it asks for the registered extension {argument}, which no checkpoint needs")
    return _Reader(io.BytesIO(data)).load()


def _network(content: Any) -> _Module:
    network = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(network, _Module):
        keys = f"with the keys {list(content)[:10]}" if isinstance(content, dict) else ""
        raise ValueError(f"it holds a {type(content).__name__.strip('_')} {keys} and no network under 'ema'")
    return network


def _flatten(network: _Module) -> dict[str, _Tensor]:
    """Return the records of all parameters and persistent buffers by name."""
    tensors: dict[str, _Tensor] = {}
    seen: set[int] = set()
    waiting = [("", network)]
    while waiting:
        prefix, module = waiting.pop()
        if not isinstance(module, _Module) or id(module) in seen:  # seen twice: a cycle, or 2^n names for n modules
            raise ValueError(f"{prefix.rstrip('.') or 'the network'} is no module, or one under two names")
        seen.add(id(module))
        attributes = module.attributes
        temporary = attributes.get("_non_persistent_buffers_set", ())
        if isinstance(temporary, _Set):
            temporary = temporary.args[0] if temporary.args else ()
        waiting += [(f"{prefix}{name}.", child) for name, child in _entries(attributes, "_modules")]
        for name, value in [*_entries(attributes, "_parameters"), *_entries(attributes, "_buffers")]:
            if name in temporary:
                continue
            tensor = value.args[0] if isinstance(value, _Parameter) and value.args else value
            if not isinstance(tensor, _Tensor) or f"{prefix}{name}" in tensors:
                raise ValueError(f"{prefix}{name} is no tensor, or there are two")
            tensors[f"{prefix}{name}"] = tensor
    return tensors


def _entries(attributes: Mapping[str, Any], kind: str) -> list[tuple[str, Any]]:
    """Return the named entries of a module that are not None, as an absent bias is."""
    entries = attributes.get(kind)
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise ValueError(f"it holds a module whose {kind} are no dictionary of names")
    return [(name, value) for name, value in entries.items() if value is not None]


def _build(records: Mapping[str, _Tensor], *, max_bytes: int) -> dict[str, Tensor]:
    """Make the tensors; raise if they have more than ``max_bytes`` together."""
    tensors: dict[str, Tensor] = {}
    for name, record in records.items():
        storage, offset, size, stride = record.args[:4]
        if not isinstance(storage, _Storage):
            raise ValueError(f"{name} has no storage")
        values = _load_storage(*storage.args)
        max_bytes -= math.prod(size) * values.element_size()
        if max_bytes < 0:
            raise ValueError(f"its tensors are larger than the file, by {name} of shape {size} at the latest")
        tensors[name] = torch.as_strided(values, size, stride, offset).clone(memory_format=torch.contiguous_format)
    return tensors


def _load_storage(content: bytes | _Bytes) -> Tensor:
    data = str.encode(content.args[0], "latin-1") if isinstance(content, _Bytes) else content
    if data[:2] == b"PK":  # torch.load would unpack it, to up to a thousand times its size
        raise ValueError("a storage in it is an archive, which those of checkpoints are not")
    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its message recommends loading the file in the unsafe way
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {asked[1]}, which no checkpoint needs" if asked else "holds more than numbers"
        raise ValueError(f"a storage in it {what}") from error
    return torch.empty(0, dtype=storage.dtype).set_(storage)


def _reason(error: Exception) -> str:
    """Return the error in one line."""
    line = (str(error).splitlines() or [""])[0]
    return line if type(error) is ValueError else f"{type(error).__name__}, {line}"
