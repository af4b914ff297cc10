"""The layer between tensors and the CUDA kernels: what it passes on, what it refuses, and which backend is chosen."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame, improved_precision_recall
from egtmetrics.distributed import shard_features
from egtmetrics.divergences import quantize
from egtmetrics.groups import at_sample_size, compare_models
from egtmetrics.ops import Divergences, _device, common_device, select_backend
from egtmetrics.ops._device import CudaBackend, DeviceFallbackWarning, DeviceKernels, NoDeviceError
from tests.simt import build

torch = pytest.importorskip("torch")

X, Y = torch.randn(6, 3), torch.randn(5, 3)
RADII = torch.ones(6, dtype=torch.float64)
HISTOGRAM = torch.tensor([[3, 4]])
FAMILY = Divergences(np.array([0, 9], dtype=np.int32), np.array([0.0, 0.5]))


class DeviceMemoryError(RuntimeError, MemoryError):
    """As the module raises where device memory runs out."""


class Recorder:
    """Replaces the module: records every call, computes nothing."""

    DeviceMemoryError = DeviceMemoryError

    def __init__(self, *, error: str = "", failures: int = 0, capability: tuple[int, int] = (9, 0)) -> None:
        self.capability = capability
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.error = error
        self.failures = failures

    def device_error(self) -> str:
        return self.error

    def device_info(self, device: int) -> dict[str, Any]:
        return {"capability": self.capability}

    def build_info(self) -> dict[str, str]:
        return {"architectures": "75-real 90-real 90-virtual"}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> None:
            self.calls.append((name, arguments))
            if self.failures:
                self.failures -= 1
                raise DeviceMemoryError("out of memory")

        return call


def recording(**options: Any) -> tuple[DeviceKernels, Recorder]:
    module: Any = Recorder(**options)
    return DeviceKernels(lambda: module, "cpu"), module


CALLS: dict[str, Any] = {
    "kth_neighbor": lambda k: k.kth_neighbor(X, n_neighbors=2),
    "grouped_kth_neighbor": lambda k: k.grouped_kth_neighbor(X, x_offsets=[0, 3, 6], n_neighbors=2),
    "neighbors": lambda k: k.neighbors(X, Y, n_neighbors=2),
    "ball_counts": lambda k: k.ball_counts(X, Y, x_sq_radii=RADII, closed=True),
    "kernel_density": lambda k: k.kernel_density(X, Y, bandwidth=1.0),
    "kernel_density_band": lambda k: k.kernel_density_band(X, torch.ones(6, 4, dtype=torch.int16), bandwidth=1.0),
    "soft_ball_product": lambda k: k.soft_ball_product(X, Y, radius=1.0),
    "project": lambda k: k.project(X, torch.ones(2, 3, dtype=torch.float64)),
    "divergence_bootstrap": lambda k: k.divergence_bootstrap(HISTOGRAM, HISTOGRAM, FAMILY, n_replicates=7),
    "bootstrap_counts": lambda k: k.bootstrap_counts(n_rows=6, n_replicates=4, seed=1),
}


@pytest.mark.parametrize("name", CALLS)
def test_device_and_stream_are_passed_last(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, module = recording()
    asked: list[Any] = []
    monkeypatch.setattr(_device, "current_queue", lambda device: asked.append(device) or (3, 77))
    CALLS[name](kernels)
    ((called, arguments),) = module.calls
    assert called == name
    assert arguments[-2:] == (3, 77)
    assert asked == [torch.device("cpu")]


@pytest.mark.parametrize("name", CALLS)
def test_everything_runs_on_the_stream_that_is_passed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = build.load()
    monkeypatch.setattr(_device, "current_queue", lambda device: (0, 77))
    module.simt_queues()
    CALLS[name](DeviceKernels(build.load, "cpu"))
    assert set(module.simt_queues()) == {(0, 77)}


def test_the_current_stream_of_the_tensors_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {torch.device("cuda", 1): SimpleNamespace(cuda_stream=1234)}
    monkeypatch.setattr(torch.cuda, "current_stream", streams.__getitem__)
    assert _device.current_queue(torch.device("cuda", 1)) == (1, 1234)
    assert _device.current_queue(torch.device("cpu")) == (0, 0)


def test_addresses_and_sizes_are_those_of_the_tensors() -> None:
    kernels, module = recording()
    result = kernels.kth_neighbor(X, Y, n_neighbors=2, sq_range=(0.5, 2.0))
    pointers = X.data_ptr(), Y.data_ptr(), result.data_ptr()
    assert module.calls == [
        ("kth_neighbor", ("float32", pointers[0], 6, pointers[1], 5, 3, 2, 0.5, 2.0, pointers[2], 0, 0))
    ]
    assert (result.shape, result.dtype) == ((6,), torch.float64)
    module.calls.clear()
    counts = kernels.ball_counts(X.double(), Y.double(), y_sq_radii=RADII[:5], closed=False)
    assert [len(count) for count in counts] == [0, 0, 5, 6]
    assert module.calls[0][1][6:13] == (
        0, RADII.data_ptr(), False, 0, 0, counts[2].data_ptr(), counts[3].data_ptr()
    )  # fmt: skip


def test_torch_gives_memory_back_once_where_it_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[None] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(None))
    kernels, module = recording(failures=1)
    kernels.kth_neighbor(X, n_neighbors=1)
    assert (len(module.calls), len(emptied)) == (2, 1)
    kernels, module = recording(failures=2)
    with pytest.raises(MemoryError, match="out of memory"):
        kernels.kth_neighbor(X, n_neighbors=1)
    assert len(module.calls) == 2


@pytest.mark.usefixtures("cuda_on_host")
def test_memory_that_runs_out_in_the_kernels_is_a_memory_error_and_leaves_nothing_behind() -> None:
    module = build.load()
    expected = _device.KERNELS.kth_neighbor(X, n_neighbors=2)
    allocated = module.simt_allocated()
    module.simt_fail("malloc", times=1000)
    try:
        with pytest.raises(MemoryError, match="cudaErrorMemoryAllocation"):
            _device.KERNELS.kth_neighbor(X, n_neighbors=2)
    finally:
        module.simt_fail("malloc", times=0)
    assert module.simt_allocated() == allocated
    assert torch.equal(_device.KERNELS.kth_neighbor(X, n_neighbors=2), expected)


@pytest.mark.usefixtures("cuda_on_host")
def test_what_the_module_says_of_a_missing_device_reaches_the_user() -> None:
    module = build.load()
    module.simt_devices(0)
    try:
        with pytest.raises(NoDeviceError, match=r"no CUDA device to run on \(cudaErrorNoDevice: "):
            select_backend("cuda")
    finally:
        module.simt_devices(1)
    assert select_backend("cuda").name == "cuda"


FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "list": (lambda k: k.kth_neighbor([[1.0]], n_neighbors=1), ValueError, r"x is of type list.*torch\.as_tensor\(x\)"),
    "dtype": (lambda k: k.kth_neighbor(X.half(), n_neighbors=1), TypeError, r"torch\.float16, .*x\.float\(\)"),
    "two dtypes": (lambda k: k.neighbors(X, Y.double(), n_neighbors=1), TypeError, "one dtype; convert either"),
    "axes": (lambda k: k.kth_neighbor(X[0], n_neighbors=1), ValueError, r"shape \(3,\), expected \(n, d\).*flatten"),
    "empty": (lambda k: k.kth_neighbor(X[:0], n_neighbors=1), ValueError, r"shape \(0, 3\)"),
    "columns": (lambda k: k.kernel_density(X, Y[:, :2].contiguous(), bandwidth=1.0), ValueError, "one encoder"),
    "strides": (lambda k: k.project(X[:, ::2], RADII), ValueError, r"strides \(3, 2\).*pass x\.contiguous\(\)"),
    "no second set": (lambda k: k.soft_ball_product(X, None, radius=1.0), TypeError, "y is None.*pass x again"),
    "neighbours": (lambda k: k.kth_neighbor(X, n_neighbors=6), ValueError, "n_neighbors=6, expected 1 to 5: x has 6"),
    "neighbours of y": (lambda k: k.neighbors(X, Y, n_neighbors=6), ValueError, "expected 1 to 5: y has 5"),
    "no neighbour": (lambda k: k.neighbors(X, Y, n_neighbors=0), ValueError, "n_neighbors=0"),
    "radii": (lambda k: k.ball_counts(X, x_sq_radii=RADII[:5], closed=True), ValueError, r"\(5,\), expected \(6\)"),
    "radii's dtype": (
        lambda k: k.ball_counts(X, x_sq_radii=RADII.float(), closed=True), TypeError, r"to\(torch\.float64\)"
    ),
    "no radii": (lambda k: k.ball_counts(X, Y, closed=True), ValueError, "needs x_sq_radii"),
    "radii of nothing": (lambda k: k.ball_counts(X, y_sq_radii=RADII, closed=True), ValueError, "y_sq_radii needs y"),
    "counts": (
        lambda k: k.kernel_density_band(X, torch.ones(6, 4, dtype=torch.int64), bandwidth=1.0),
        TypeError,
        r"counts has dtype torch\.int64, expected torch\.uint16 or torch\.int16",
    ),
    "matrix": (
        lambda k: k.project(X, torch.ones(2, 4, dtype=torch.float64)),
        ValueError,
        r"matrix has shape \(2, 4\), expected \(any, 3\)",
    ),
    "histograms": (
        lambda k: k.divergence_bootstrap(HISTOGRAM, HISTOGRAM[:, :1].contiguous(), FAMILY),
        ValueError,
        r"q_counts has shape \(1, 1\), expected \(1, 2\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_before_anything_runs(fault: str) -> None:
    call, error, message = FAULTS[fault]
    kernels, module = recording()
    with pytest.raises(error, match=message):
        call(kernels)
    assert not module.calls


def test_arrays_too_long_for_the_kernels_are_refused() -> None:
    kernels, _ = recording()
    with pytest.raises(ValueError, match="at most 2147482624 rows"):
        kernels.kth_neighbor(torch.zeros(1, 1).expand(2**31, 1), n_neighbors=1)


def test_a_tensor_on_the_wrong_kind_of_device_is_refused_with_the_remedy() -> None:
    kernels = DeviceKernels(lambda: pytest.fail("nothing runs"), "cuda")
    with pytest.raises(
        ValueError, match=r"x is a tensor on cpu, expected an array on a CUDA device; .*\(x\)\.cuda\(\)"
    ):
        kernels.kth_neighbor(X, n_neighbors=1)


class OnCuda:
    """An array of another library in CUDA memory."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def test_dlpack_is_taken_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    array = OnCuda(__dlpack_device__=lambda: (2, 0), __cuda_array_interface__={})
    monkeypatch.setattr(torch.utils.dlpack, "from_dlpack", lambda values: X if values is array else None)
    assert DeviceKernels(lambda: pytest.fail("nothing runs"), "cuda").on_device(array) is X
    spread = OnCuda(__dlpack_device__=raising(BufferError("spread over devices")))
    assert DeviceKernels(lambda: pytest.fail("nothing runs"), "cuda").on_device(spread) is None


@pytest.mark.parametrize("current", [0, 1])
def test_the_cuda_array_interface_is_taken_where_the_array_lies(current: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever device is current: torch, told another one, would copy there, and not wait for the array's stream."""
    opened: list[Any] = []
    waiting: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(torch, "as_tensor", lambda values, device: opened.append(device) or X)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda address, device: (address, device))
    monkeypatch.setattr(
        torch.cuda,
        "current_stream",
        lambda device: SimpleNamespace(wait_stream=lambda stream: waiting.append((device, stream))),
    )
    module, second = build.load(), torch.device("cuda", 1)
    kernels = DeviceKernels(build.load, "cuda")
    module.simt_devices(2)
    module.simt_register(X.data_ptr(), X.nbytes, device=1)
    try:
        array = {"data": (X.data_ptr(), False)}
        assert kernels.on_device(OnCuda(__cuda_array_interface__=array | {"stream": 55})) is X
        assert kernels.on_device(OnCuda(__cuda_array_interface__=array | {"stream": None})) is X
        part = {"data": (X.data_ptr() + 8, False)}
        assert kernels.on_device(OnCuda(__cuda_array_interface__=part)) is X
        assert opened == [second, second, second]
        assert waiting == [(second, (55, second))]
        assert kernels.on_device(OnCuda(__cuda_array_interface__={"data": (0, False)})) is X
        assert opened[-1] == torch.device("cuda", current)  # an empty array lies nowhere
    finally:
        module.simt_unregister(X.data_ptr())
        module.simt_devices(1)
    with pytest.raises(ValueError, match="not in CUDA memory; pass an array whose memory exists"):
        kernels.on_device(OnCuda(__cuda_array_interface__=array))


def raising(error: Exception) -> Any:
    def call(*_: Any) -> Any:
        raise error

    return call


def test_a_driver_that_is_too_old_is_named_with_versions_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build.load()
    module.simt_devices(0, 35)
    try:
        put(monkeypatch, DeviceKernels(lambda: module, "cpu"))
        message = r"driver is made for CUDA 11\.8 and the kernels were built with CUDA 13\.0; update the driver"
        with pytest.warns(DeviceFallbackWarning, match=message):
            assert select_backend(features=(X, Y)).name == "cpu"
        with pytest.raises(NoDeviceError, match=message):
            select_backend("cuda")
    finally:
        module.simt_devices(1)


@pytest.mark.parametrize(("capability", "runs"), [((6, 1), False), ((7, 5), True), ((8, 6), False), ((12, 0), True)])
def test_a_card_that_the_kernels_have_no_code_for_is_named(
    capability: tuple[int, int], runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = Recorder(capability=capability)
    put(monkeypatch, DeviceKernels(lambda: module, "cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    tensor = SimpleNamespace(device=torch.device("cuda", 1))
    tensor.detach = lambda: tensor
    if runs:
        assert select_backend(features=(tensor,)).device == "cuda:1"
        return
    major, minor = capability
    message = rf"cuda:1 has compute capability {major}\.{minor}, and the CUDA kernels were built for 75-real 90-real"
    with pytest.warns(DeviceFallbackWarning, match=message):
        assert select_backend(features=(tensor,)).name == "cpu"
    with pytest.raises(NoDeviceError, match=message):
        select_backend("cuda", features=(tensor,))
    assert not module.calls


def put(monkeypatch: pytest.MonkeyPatch, kernels: DeviceKernels) -> None:
    _device._warn_fallback.cache_clear()
    monkeypatch.setattr(_device, "KERNELS", kernels)


def test_the_device_is_taken_where_all_features_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, recording()[0])
    backend = select_backend(features=(X, Y))
    assert (backend.name, backend.device) == ("cuda", "cpu")
    for features in ((), (np.ones((2, 3)),), ([[1.0]],)):
        chosen = select_backend(features=features)
        assert (chosen.name, chosen.device) == ("cpu", None)
        assert select_backend("cuda", features=features).name == "cuda"
    assert {select_backend(name, features=(X, Y)).name for name in ("cpu", "reference")} == {"cpu", "reference"}


def test_sets_that_do_not_lie_on_one_device_go_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = Recorder()
    put(monkeypatch, DeviceKernels(lambda: module, "cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    tensors = [SimpleNamespace(device=torch.device("cuda", i)) for i in (0, 1, 1)]
    for tensor in tensors:
        tensor.detach = lambda tensor=tensor: tensor
    with pytest.warns(DeviceFallbackWarning, match="these lie on cuda:0 and cuda:1; move all to one"):
        assert common_device(tensors[0], tensors[1]) is None
    with pytest.warns(DeviceFallbackWarning, match="these lie on cuda:0 and the host; move all to one"):
        assert common_device(np.ones((2, 3)), tensors[0]) is None
    assert common_device(tensors[1], tensors[2]) == "cuda:1"
    assert select_backend("cuda", features=tensors[1:]).device == "cuda:1"


def test_without_the_module_auto_says_so_once_and_cuda_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, DeviceKernels(raising(ImportError("No module named 'egtmetrics.ops._cuda'")), "cpu"))
    message = (
        r"the CUDA kernels cannot be loaded \(No module named 'egtmetrics.ops._cuda'\); install egtmetrics where nvcc"
    )
    with pytest.warns(DeviceFallbackWarning, match=f"copied to the host for the CPU kernels: {message}"):
        assert select_backend(features=(X, Y)).name == "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select_backend(features=(X, Y)).name == "cpu"
        assert select_backend(features=(np.ones((2, 2)),)).name == "cpu"
    for features in ((X, Y), ()):
        with pytest.raises(ImportError, match=message):
            select_backend("cuda", features=features)


def test_a_metric_on_a_device_without_the_module_is_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, DeviceKernels(raising(ImportError("No module named 'egtmetrics.ops._cuda'")), "cpu"))
    expected = improved_precision_recall(X.numpy(), Y.numpy(), n_neighbors=1)
    with pytest.warns(DeviceFallbackWarning, match="take the features to the host and use backend='cpu'"):
        result = improved_precision_recall(X, Y, n_neighbors=1)
    assert result == expected
    with pytest.raises(ImportError, match="the CUDA kernels cannot be loaded"):
        improved_precision_recall(X, Y, n_neighbors=1, backend="cuda")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_host_backend_that_was_asked_for_is_no_fallback(
    backend: Any, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Nor is what torch and faiss compute, which use no kernels."""
    put(monkeypatch, DeviceKernels(raising(ImportError("No module named 'egtmetrics.ops._cuda'")), "cpu"))
    rng = np.random.default_rng(0)
    groups = np.repeat(["f", "m"], 50)
    real, fake, other = torch.from_numpy(rng.normal(size=(3, 100, 2)))
    labels = {"real_sensitive_features": groups, "fake_sensitive_features": groups}
    frame = GenerativeMetricFrame(metrics="ipr", real=real, fake=fake, **labels, backend=backend, random_state=0)
    frame.baseline(other, groups)
    assert isinstance(frame.samples.real, np.ndarray)  # type: ignore[union-attr]
    compare_models(real, fake, other, metric="fid", backend=backend, random_state=0)
    at_sample_size("fid", 60)(real, fake, backend=backend, random_state=0)
    quantize(real, fake, n_clusters=2, random_state=0)
    if find_spec("torchmetrics"):
        metric = import_module("egtmetrics.integrations").GroupMetric("fid", group_names=["f", "m"], backend=backend)
        metric.update(real.float(), real=True, groups=torch.zeros(100, dtype=torch.long))
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert isinstance(shard_features(real, backend=backend).local, np.ndarray)
    finally:
        torch.distributed.destroy_process_group()
    assert not [warning for warning in recwarn if warning.category is DeviceFallbackWarning]
    with pytest.warns(DeviceFallbackWarning, match="copied to the host for the CPU kernels"):
        GenerativeMetricFrame(metrics="ipr", real=real, fake=fake, **labels, random_state=0)


def test_without_a_device_auto_takes_the_cpu_and_cuda_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, recording(error="cudaErrorNoDevice: no CUDA-capable device is detected")[0])
    with pytest.warns(DeviceFallbackWarning, match="copied to the host for the CPU kernels: there is no CUDA device"):
        assert select_backend(features=(X, Y)).name == "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select_backend(features=(X, Y)).name == "cpu"  # said once
        assert select_backend(features=(np.ones((2, 2)),)).name == "cpu"
    with pytest.raises(NoDeviceError, match=r"no CUDA device to run on \(cudaErrorNoDevice: no CUDA-capable device"):
        select_backend("cuda")


def test_a_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = Recorder()
    put(monkeypatch, DeviceKernels(lambda: module, "cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoDeviceError, match=f"torch {torch.__version__.split('+')[0]}.* install a CUDA build of torch"):
        select_backend("cuda")


def test_a_missing_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = Recorder()
    put(monkeypatch, DeviceKernels(lambda: module, "cuda"))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="need torch for the memory of the device"):
        select_backend("cuda")
    for array in (OnCuda(__cuda_array_interface__={}), OnCuda(__dlpack_device__=lambda: (2, 0))):
        _device._warn_fallback.cache_clear()
        with pytest.warns(DeviceFallbackWarning, match="need torch for the memory of the device"):
            assert select_backend(features=(array,)).name == "cpu"


def test_the_current_device_is_taken_where_no_feature_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = Recorder()
    put(monkeypatch, DeviceKernels(lambda: module, "cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert select_backend("cuda", features=(np.ones((2, 2)),)).device == "cuda:2"


def test_the_backend_hands_on_every_argument() -> None:
    kernels, module = recording()
    backend = CudaBackend(kernels, "cpu")
    offsets = np.array([0, 3, 6])
    backend.grouped_kth_neighbor(X, X, x_offsets=offsets, y_offsets=offsets, n_neighbors=2)
    assert module.calls[-1][1][6:9] == ([0, 3, 6], [0, 3, 6], 2)
    sq_dists, rows = backend.neighbors(X, Y, n_neighbors=2)
    assert (sq_dists.shape, rows.shape, rows.dtype) == ((6, 2), (6, 2), np.int64)
    options = {"smoothing": 0.5, "n_replicates": 3, "seed": 2**63}
    values, replicates = backend.divergence_bootstrap(HISTOGRAM.numpy(), HISTOGRAM.numpy(), FAMILY, **options)
    assert module.calls[-1][1][4:9] == ([0, 9], [0.0, 0.5], 0.5, 3, 2**63)
    assert (values.shape, replicates.shape) == ((1, 2), (1, 2, 3))
