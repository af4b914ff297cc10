"""On files made here in the layout of the published ones, and on files made to harm."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import hashlib
import io
import os
import pickle
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from egtmetrics.paper.checkpoints import convert_checkpoint, load_checkpoint
from egtmetrics.paper.unet import UNet
from egtmetrics.training import Denoiser, EDMPreconditioning, VEPreconditioning, VPPreconditioning


@pytest.fixture(autouse=True)
def upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that the published files call; loading them here in the ordinary way fails."""

    def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
        raise AssertionError("the file's code would run")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", persistence)


class Persistent:
    """Pickles as the published files' classes do: source, name and attributes in one dictionary."""

    def __init__(self, class_name: str, attributes: dict[str, Any]) -> None:
        self.class_name, self.attributes = class_name, attributes

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise AssertionError('the source in the file ran')",
            "class_name": self.class_name,
            "state": self.attributes,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,), None


def persistent(module: nn.Module, name: str = "Layer") -> Any:
    children = collections.OrderedDict((key, persistent(child)) for key, child in module._modules.items() if child)
    if isinstance(module, nn.ModuleDict):
        plain = nn.ModuleDict()
        plain._modules = children
        return plain
    extra = {"_init_args": (), "_init_kwargs": {"init_weight": np.sqrt(0.2)}, "skip_scale": np.sqrt(0.5)}
    return Persistent(name, {**module.__dict__, "_modules": children, **extra})


def plain(**options: Any) -> UNet:
    sizes: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "n_blocks": 1, "attention": (4,)}
    return UNet(8, **{**sizes, **options})


def network(**options: Any) -> UNet:
    torch.manual_seed(0)
    unet = plain(**options)
    unet.map_augment = nn.Linear(9, unet.map_layer0.in_features, bias=False)  # as the public ones; not used here
    unet.requires_grad_(False)
    for weight in unet.parameters():
        nn.init.normal_(weight, std=0.2)
    return unet


def content(unet: nn.Module, class_name: str = "EDMPrecond", **attributes: Any) -> dict[str, Any]:
    wrapper = nn.Module()
    wrapper.model = unet
    top = persistent(wrapper, class_name)
    top.attributes.update({"img_resolution": 8, "use_fp16": False, "sigma_min": 0, "sigma_max": float("inf")})
    top.attributes.update(attributes)
    loss = Persistent("EDMLoss", {"P_mean": -1.2, "P_std": 1.2, "sigma_data": 0.5})
    return {"ema": top, "loss_fn": loss, "augment_pipe": None, "dataset_kwargs": {"path": "ffhq-64x64.zip"}}


def published(unet: nn.Module, class_name: str = "EDMPrecond", *, protocol: int = 4, **attributes: Any) -> bytes:
    return pickle.dumps(content(unet, class_name, **attributes), protocol=protocol)


@pytest.mark.parametrize("architecture", ["ddpmpp", "ncsnpp"])
@pytest.mark.parametrize(
    ("class_name", "preconditioning"),
    [
        ("EDMPrecond", EDMPreconditioning(sigma_data=0.4)),
        ("VPPrecond", VPPreconditioning()),
        ("VEPrecond", VEPreconditioning()),
    ],
)
def test_converted_checkpoint_is_the_same_denoiser(
    architecture: str, class_name: str, preconditioning: Any, tmp_path: Path
) -> None:
    unet = network(architecture=architecture, n_classes=2)
    source, out = tmp_path / "a.pkl", tmp_path / "a.safetensors"
    source.write_bytes(published(unet, class_name, sigma_data=0.4))
    convert_checkpoint(source, out)
    tensors = safetensors.torch.load_file(out)
    expected = {f"model.{name}": tensor for name, tensor in unet.state_dict().items()}
    torch.testing.assert_close(tensors, expected, rtol=0, atol=0)
    loaded = load_checkpoint(out, plain(architecture=architecture, n_classes=2)).eval()
    x, sigma, labels = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 3.0]), torch.tensor([0, 1])
    reference = Denoiser(unet, preconditioning).eval()
    assert torch.equal(loaded(x, sigma, labels), reference(x, sigma, labels))
    assert loaded.preconditioning == preconditioning
    assert all(weight.requires_grad for weight in loaded.parameters())


@pytest.mark.parametrize("protocol", [2, 3])
def test_files_of_older_libraries_and_their_origin(protocol: int, tmp_path: Path) -> None:
    """Written by Python 3 with an earlier protocol and NumPy 1."""
    unet = network()
    data = published(unet, protocol=protocol).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in data
    source, out = tmp_path / "a.pkl", tmp_path / "a.safetensors"
    source.write_bytes(data)
    convert_checkpoint(source, out)
    unet.map_augment = None
    weights = load_checkpoint(out, plain()).network.state_dict()
    torch.testing.assert_close(weights, unet.state_dict(), rtol=0, atol=0)
    with safetensors.safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["sha256"] == hashlib.sha256(data).hexdigest()
    assert metadata["class"] == "EDMPrecond"


class Calls:
    """Calls a function when loaded in the ordinary way."""

    def __init__(self, function: Callable[..., Any], *args: Any, state: Any = None) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"\x8c" + struct.pack("<B", len(value)) + value.encode()


def ask(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def storage_of(value: Any) -> Any:
    """A tensor of the network whose storage is a pickle of its own."""
    return Calls(torch.storage._load_from_bytes, pickle.dumps(value, protocol=2))


def with_tensor(value: Any) -> bytes:
    """A published file in which one parameter is something else."""
    whole = content(network())
    whole["ema"].attributes["_parameters"] = {"weight": value}
    return pickle.dumps(whole)


def rebuilt(storage: Any, size: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    return Calls(torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, collections.OrderedDict())


def storage_of_size(n: int) -> Any:
    """One that says it has n numbers, and has four."""
    marker, file = object(), io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", n, None) if value is marker else None

    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    for value in (0x1950A86A20F9469CFC6C, 1001, system, marker, ["0"]):
        Pickler(file, protocol=2).dump(value)
    return Calls(torch.storage._load_from_bytes, file.getvalue() + struct.pack("<q4f", n, 1.0, 2.0, 3.0, 4.0))


def archive(tensor: Tensor) -> Any:
    file = io.BytesIO()
    torch.save(tensor, file)
    return Calls(torch.storage._load_from_bytes, file.getvalue())


COMMAND = "import pathlib; pathlib.Path({!r}).touch()"
SHELL = "touch {}"
HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "system": (lambda mark: pickle.dumps(Calls(os.system, SHELL.format(mark))), "asks for (posix|nt).system"),
    "eval": (
        lambda mark: pickle.dumps(Calls(eval, f"__import__('os').mkdir({str(mark)!r})")),
        "asks for builtins.eval",
    ),
    "exec in a dictionary key": (
        lambda mark: pickle.dumps({"ema": 1, (Calls(exec, COMMAND.format(str(mark))),): 2}),
        "asks for builtins.exec",
    ),
    "nested": (
        lambda mark: published(network(), sigma_data=Calls(getattr, Calls(__import__, "os"), "system")),
        "asks for builtins.(getattr|__import__)",
    ),
    "in a parameter": (lambda mark: with_tensor(Calls(os.system, SHELL.format(mark))), "asks for (posix|nt).system"),
    "in a storage": (
        lambda mark: with_tensor(rebuilt(storage_of(Calls(os.system, SHELL.format(mark))), (1,), (1,))),
        "a storage in it asks for (posix|nt).system",
    ),
    "eval in a storage": (
        lambda mark: with_tensor(rebuilt(storage_of(Calls(eval, COMMAND.format(str(mark)))), (1,), (1,))),
        "a storage in it asks for eval",
    ),
    "no pickle in a storage": (
        lambda mark: with_tensor(rebuilt(Calls(torch.storage._load_from_bytes, b"\x80\x02\xff."), (1,), (1,))),
        "a storage in it holds more than numbers",
    ),
    "state of a stranger": (
        lambda mark: opcodes(ask("builtins", "type"), text("x"), b")", b"}", b"\x87R", b"}", b"b"),
        "asks for builtins.type",
    ),
    "an instance by INST": (
        lambda mark: b"(S'touch " + str(mark).encode() + b"'\nios\nsystem\n.",
        "asks for os.system",
    ),
    "an instance by OBJ": (
        lambda mark: opcodes(b"(", ask("os", "system"), text(SHELL.format("x")), b"o"),
        "asks for os.system",
    ),
    "through a dotted name": (
        lambda mark: opcodes(
            ask("torch.nn.modules.module", "torch.os.system"), text(SHELL.format(mark)[:200]), b"\x85R"
        ),
        "holds a Module .* and no network",
    ),
    "through a dotted name of NumPy": (
        lambda mark: opcodes(ask("numpy", "ctypeslib.os.system"), text("x"), b"\x85R"),
        "asks for numpy.ctypeslib.os.system",
    ),
    "torch's own loader": (lambda mark: pickle.dumps(Calls(torch.load, "x.pt")), "asks for torch.serialization.load"),
    "persistent id": (lambda mark: opcodes(text("x"), b"Q"), "UnpicklingError"),
    "state set on a class": (
        lambda mark: opcodes(ask("torch._utils", "_rebuild_tensor_v2"), b"N", b"}", text("__new__"), b"Ns\x86b"),
        "TypeError",
    ),
    "state set on a dictionary's class": (
        lambda mark: opcodes(ask("collections", "OrderedDict"), b"N", b"}", text("__init__"), b"Ns\x86b"),
        "TypeError",
    ),
    "state set on a dictionary": (
        lambda mark: opcodes(ask("collections", "OrderedDict"), b")R", b"}", text("__setstate__"), b"Nsb"),
        "sets attributes of a dictionary",
    ),
    "many arguments": (
        lambda mark: pickle.dumps(Calls(torch._utils._rebuild_parameter, *range(1000))),
        "calls Parameter with 1000 arguments",
    ),
    "keywords": (
        lambda mark: opcodes(ask("torch._utils", "_rebuild_parameter"), b")", b"}", text("x"), b"Ns\x92"),
        "TypeError",
    ),
    "a memo for 4 billion objects": (lambda mark: opcodes(b"N", b"r\xff\xff\xff\xff"), "numbers an object 4294967295"),
    "a string of 8 exabytes": (
        lambda mark: opcodes(b"\x8e" + struct.pack("<Q", 2**62)),
        "expected 4611686018427387904 bytes",
    ),
    "a frame of 8 exabytes": (lambda mark: b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "refused"),
    "a tensor larger than its file": (
        lambda mark: with_tensor(rebuilt(torch.zeros(1)._typed_storage(), (2**30, 2**30), (0, 0))),
        r"larger than the file, by weight of shape \(1073741824",
    ),
    "an expanded tensor": (lambda mark: with_tensor(torch.zeros(1).expand(2**20, 2**10)), "larger than the file"),
    "a storage of a petabyte": (
        lambda mark: with_tensor(rebuilt(storage_of_size(2**48), (4,), (1,))),
        "can't allocate memory|not enough memory",
    ),
    "a storage of 8 gigabytes": (
        lambda mark: with_tensor(rebuilt(storage_of_size(2**31), (4,), (1,))),
        "unexpected EOF",
    ),
    "an archive as storage": (
        lambda mark: with_tensor(rebuilt(archive(torch.zeros(4)), (4,), (1,))),
        "a storage in it is an archive",
    ),
    "a tensor beyond its storage": (
        lambda mark: with_tensor(rebuilt(torch.zeros(2)._typed_storage(), (3,), (1,))),
        "out of bounds",
    ),
    "negative sizes": (
        lambda mark: with_tensor(rebuilt(torch.zeros(2)._typed_storage(), (-(2**20), 2**20), (1, 1))),
        "RuntimeError, .*sizes",
    ),
    "no tensor": (lambda mark: with_tensor([1.0, 2.0]), "weight is no tensor"),
    "empty": (lambda mark: b"", "refused"),
    "text": (lambda mark: b"version https://git-lfs.github.com/spec/v1\n", "refused"),
    "a page": (lambda mark: b"<!DOCTYPE html><html></html>", "refused"),
    "no network": (lambda mark: pickle.dumps({"G_ema": 1, "D": 2}), r"with the keys \['G_ema', 'D'\] and no network"),
    "a plain number": (lambda mark: pickle.dumps(3), "holds a int"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    make, message = HOSTILE[name]
    mark, source, out = tmp_path / "mark", tmp_path / "a.pkl", tmp_path / "a.safetensors"
    source.write_bytes(make(mark))
    with pytest.raises(ValueError, match=message) as caught:
        convert_checkpoint(source, out)
    assert str(caught.value).startswith(f"{source} is refused, and none of its code was run: ")
    assert "weights_only=False" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]
    source.write_bytes(published(network()))  # and nothing was left behind in the classes that read
    convert_checkpoint(source, out)


def test_the_files_above_would_do_harm(tmp_path: Path) -> None:
    for name in ("system", "eval", "in a parameter"):
        mark = tmp_path / name.replace(" ", "-")
        with contextlib.suppress(AssertionError):  # of the code in the file, which comes after the parameter
            pickle.loads(HOSTILE[name][0](mark))
        assert mark.exists()


def test_registered_extensions_are_refused(tmp_path: Path) -> None:
    """Python's cache of these answers without asking the reader."""
    copyreg.add_extension("builtins", "eval", 0x7FFF)
    try:
        data = opcodes(b"\x83\xff\x7f", text("1 + 1"), b"\x85R")
        assert pickle.loads(data) == 2
        (tmp_path / "a.pkl").write_bytes(data)
        with pytest.raises(ValueError, match="registered extension 32767"):
            convert_checkpoint(tmp_path / "a.pkl", tmp_path / "out")
    finally:
        copyreg.remove_extension("builtins", "eval", 0x7FFF)


def test_modules_in_a_circle_or_under_many_names(tmp_path: Path) -> None:
    """Sixty modules of which each holds the next twice have 2^60 names."""
    module: Any = persistent(nn.Linear(1, 1))
    for _ in range(60):
        module = Persistent("Twice", {"_parameters": {}, "_buffers": {}, "_modules": {"a": module, "b": module}})
    modules: dict[str, Any] = {}
    circle = {"state": {"_parameters": {}, "_buffers": {}, "_modules": modules}}
    modules["again"] = Calls(sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, circle)
    for content_ in ({"ema": module}, {"ema": modules["again"]}):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content_))
        with pytest.raises(ValueError, match="or one under two names"):
            convert_checkpoint(tmp_path / "a.pkl", tmp_path / "out")


def test_a_deep_tree_is_no_recursion(tmp_path: Path) -> None:
    depth = 20_000
    level = ask("torch.nn.modules.module", "Module") + b")\x81}("
    empty = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}"
    data = opcodes(b"}", text("ema"), *[level + empty + text("a")] * depth, b"N", *[b"sub"] * depth, b"s")
    (tmp_path / "a.pkl").write_bytes(data)
    convert_checkpoint(tmp_path / "a.pkl", tmp_path / "out")
    assert safetensors.torch.load_file(tmp_path / "out") == {}


def test_a_storage_of_four_numbers_made_by_hand(tmp_path: Path) -> None:
    """That the forged ones above are refused for their size alone."""
    (tmp_path / "a.pkl").write_bytes(with_tensor(rebuilt(storage_of_size(4), (2, 2), (1, 2))))
    convert_checkpoint(tmp_path / "a.pkl", tmp_path / "out")
    weight = safetensors.torch.load_file(tmp_path / "out")["weight"]
    assert weight.tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    data = published(network())
    source = tmp_path / "a.pkl"
    for end in [*range(1, 40), *np.linspace(40, len(data) - 1, 40).astype(int)]:
        source.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"a\.pkl is refused"):
            convert_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


SMALLEST = nn.Sequential(collections.OrderedDict(a=nn.Linear(2, 1)))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files_convert_or_are_refused(tmp_path: Path, changes: list[tuple[float, int]]) -> None:
    data = bytearray(published(SMALLEST))
    for where, byte in changes:
        data[int(where * len(data))] = byte
    source, out = tmp_path / "a.pkl", tmp_path / "out"
    out.unlink(missing_ok=True)
    source.write_bytes(data)
    refusal = None
    try:
        convert_checkpoint(source, out)
    except ValueError as error:
        refusal = str(error)
    if refusal is None:
        safetensors.torch.load_file(out)
    else:
        assert "is refused" in refusal
        assert not out.exists()


def test_an_existing_file_survives_a_refusal_and_a_missing_source(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"before")
    (tmp_path / "a.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="is refused"):
        convert_checkpoint(tmp_path / "a.pkl", out)
    with pytest.raises(FileNotFoundError):
        convert_checkpoint(tmp_path / "missing.pkl", out)
    assert out.read_bytes() == b"before"


def save(path: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    return path


def test_what_was_not_converted_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    state = {f"model.{name}": tensor for name, tensor in network().state_dict().items()}
    with pytest.raises(FileNotFoundError, match="is not a file; pass what convert_checkpoint wrote"):
        load_checkpoint(path, plain())
    path.write_bytes(published(network()))
    with pytest.raises(ValueError, match="no safetensors file"):
        load_checkpoint(path, plain())
    with pytest.raises(ValueError, match="class None, expected one of EDMPrecond"):
        load_checkpoint(save(path, state, format="pt"), plain())
    with pytest.raises(ValueError, match=r"names that begin with 'model\.'"):
        load_checkpoint(save(path, {**state, "other": torch.zeros(1)}, **{"class": "EDMPrecond"}), plain())
    with pytest.raises(ValueError, match="has another architecture than the network: Missing key"):
        load_checkpoint(save(path, dict(list(state.items())[1:]), **{"class": "EDMPrecond"}), plain())
    assert io.BytesIO(path.read_bytes()).read(1)
