"""Every metric that can run on a device gives the same result there as on the CPU, and leaves features there."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from egtmetrics import GenerativeMetricFrame
from egtmetrics._order import canonical_order
from egtmetrics._validation import check_features, check_real_fake
from egtmetrics.divergences import knn_f_divergence, knn_ratio_f_divergence, quantized_f_divergence
from egtmetrics.divergences.estimates import DivergenceEstimateWarning
from egtmetrics.metrics import (
    clipped_density_coverage,
    frechet_distance,
    improved_precision_recall,
    p_precision_recall,
    precision_recall_cover,
    precision_recall_density_coverage,
    topp_precision_recall,
)
from egtmetrics.ops import _device
from egtmetrics.samples import GroupedSamples

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.usefixtures("cuda_on_host"),
    pytest.mark.filterwarnings(f"ignore::{DivergenceEstimateWarning.__module__}.DivergenceEstimateWarning"),
    pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning"),
]

Pair = tuple[NDArray[Any], NDArray[Any]]
Metric = Callable[..., Any]


def pairs() -> dict[str, Pair]:
    rng = np.random.default_rng(11)
    normal = rng.normal(size=(131, 3)), 1.2 * rng.normal(size=(97, 3)) + 0.3
    return {
        "float32": (normal[0].astype(np.float32), normal[1].astype(np.float32)),
        "float64, far from the origin": (normal[0] + 1e4, normal[1] + 1e4),
        "integers": (rng.integers(0, 4, (130, 3)).astype(np.float32), rng.integers(0, 4, (90, 3)).astype(np.float32)),
        "two dtypes": (normal[0].astype(np.float32), normal[1]),
    }


PAIRS = pairs()
EXACT: dict[str, Metric] = {
    "prdc": precision_recall_density_coverage,
    "prdc, ties included": partial(precision_recall_density_coverage, ties="include", n_neighbors=3),
    "ipr": improved_precision_recall,
    "cover": precision_recall_cover,
    "clipped": clipped_density_coverage,
}
DIVERGENCES: dict[str, Metric] = {
    "knn": partial(knn_f_divergence, random_state=0),
    "knn, reversed": partial(knn_f_divergence, f="reverse_kl", random_state=0),
    "knn ratio": partial(knn_ratio_f_divergence, f="hellinger", random_state=0),
}


def on_device(real: NDArray[Any], fake: NDArray[Any]) -> tuple[Any, Any]:
    return torch.from_numpy(real), torch.from_numpy(fake)


def assert_alike(result: Any, expected: Any, *, rel: float, scores_rel: float = 0.0) -> None:
    """Equal except for the backend; floats within ``rel``, scores within ``scores_rel``."""
    found, wanted = result.to_dict(), expected.to_dict()
    assert (found.pop("backend"), wanted.pop("backend")) == ("cuda", "cpu")

    def compare(a: Any, b: Any, tolerance: float) -> None:
        if isinstance(b, dict):
            assert a.keys() == b.keys()
            for key in b:
                compare(a[key], b[key], scores_rel if key in result.describe() else rel)
        elif isinstance(b, tuple | list):
            for left, right in zip(a, b, strict=True):
                compare(left, right, tolerance)
        elif isinstance(b, float) and not math.isnan(b):
            assert a == pytest.approx(b, rel=tolerance, abs=0.0)
        else:
            assert a == b or (isinstance(b, float) and math.isnan(a))

    compare(found, wanted, rel)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", EXACT)
def test_scores_of_counts_equal_those_of_the_cpu(name: str, pair: str) -> None:
    result = EXACT[name](*on_device(*PAIRS[pair]), backend="cuda")
    assert_alike(result, EXACT[name](*PAIRS[pair], backend="cpu"), rel=0.0)


@pytest.mark.parametrize("pair", PAIRS)
def test_soft_balls_equal_those_of_the_cpu(pair: str) -> None:
    result = p_precision_recall(*on_device(*PAIRS[pair]), backend="cuda")
    assert_alike(result, p_precision_recall(*PAIRS[pair], backend="cpu"), rel=1e-9, scores_rel=1e-5)


@pytest.mark.parametrize("pair", ["float32", "float64, far from the origin"])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_equal_those_of_the_cpu(name: str, pair: str) -> None:
    result = DIVERGENCES[name](*on_device(*PAIRS[pair]), backend="cuda")
    assert_alike(result, DIVERGENCES[name](*PAIRS[pair], backend="cpu"), rel=1e-7, scores_rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_topp_equals_that_of_the_cpu(pair: str) -> None:
    metric = partial(topp_precision_recall, n_bootstrap=20, random_state=3)
    assert_alike(metric(*on_device(*PAIRS[pair]), backend="cuda"), metric(*PAIRS[pair], backend="cpu"), rel=2e-5)


@pytest.mark.parametrize("options", [{"n_projections": 2}, {"compatibility": "top-pr"}], ids=["default", "top-pr"])
def test_projected_topp_equals_that_of_the_cpu(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(12)
    real, fake = (
        rng.normal(size=(190, 40)).astype(np.float32),
        rng.normal(size=(175, 40)).astype(np.float32) + np.float32(0.7),
    )
    metric = partial(topp_precision_recall, n_bootstrap=10, alpha=0.3, random_state=3, **options)
    result = metric(*on_device(real, fake), backend="cuda")
    assert 0.0 < result.precision < 1.0
    assert_alike(result, metric(real, fake, backend="cpu"), rel=2e-5)


def test_a_set_compared_with_itself_scores_one() -> None:
    real = PAIRS["float32"][0]
    tensors = torch.from_numpy(real), torch.from_numpy(real[::-1].copy())
    assert topp_precision_recall(*tensors, n_bootstrap=20, random_state=0).scores() == dict.fromkeys(
        ("precision", "recall", "f1"), 1.0
    )


def test_histograms_are_redrawn_on_the_device() -> None:
    metric = partial(quantized_f_divergence, n_clusters=4, n_bootstrap=30, random_state=0)
    result = metric(*on_device(*PAIRS["float32"]))
    assert_alike(result, metric(*PAIRS["float32"], backend="cpu"), rel=1e-9, scores_rel=1e-9)
    assert metric(*PAIRS["float32"], backend="cuda").backend == "cuda"  # k-means also takes arrays on the host


def test_metrics_in_numpy_take_tensors_on_a_device() -> None:
    assert frechet_distance(*on_device(*PAIRS["float32"])) == frechet_distance(*PAIRS["float32"])


def test_auto_uses_the_device_if_both_sets_are_there() -> None:
    real, fake = PAIRS["float32"]
    tensors = on_device(real, fake)
    assert precision_recall_density_coverage(*tensors).backend == "cuda"
    assert precision_recall_density_coverage(*tensors, backend="cpu").backend == "cpu"
    _device._warn_fallback.cache_clear()
    with pytest.warns(_device.DeviceFallbackWarning, match="these lie on cpu and the host; move all to one"):
        assert precision_recall_density_coverage(tensors[0], fake).backend == "cpu"
    assert precision_recall_density_coverage(real, fake).backend == "cpu"


@pytest.mark.parametrize("metric", [*EXACT.values(), p_precision_recall, topp_precision_recall, knn_f_divergence])
def test_arrays_on_the_host_are_refused_with_a_remedy(metric: Metric) -> None:
    real, fake = PAIRS["float32"]
    with pytest.raises(ValueError, match=r"fake is of type ndarray, expected .* torch\.as_tensor\(fake\)\.cpu\(\)"):
        metric(torch.from_numpy(real), fake, backend="cuda")


@pytest.mark.parametrize("metric", [*EXACT.values(), p_precision_recall, *DIVERGENCES.values(), topp_precision_recall])
def test_features_stay_on_the_device(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = on_device(*PAIRS["float32"])
    largest = 0
    copy = torch.Tensor.cpu

    def watched(tensor: Any, *args: Any) -> Any:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return copy(tensor, *args)

    monkeypatch.setattr(torch.Tensor, "cpu", watched)
    options = {"n_bootstrap": 5, "random_state": 0} if metric is topp_precision_recall else {}
    assert metric(real, fake, **options).backend == "cuda"
    assert 0 < largest <= 2 * max(len(real), len(fake))  # radii, counts, or the first two columns of three


def test_the_frame_keeps_features_on_the_device() -> None:
    real, fake = PAIRS["float32"]
    groups = {
        "real_sensitive_features": np.arange(len(real)) % 2,
        "fake_sensitive_features": np.arange(len(fake)) // 5 % 2,
    }
    given: list[Any] = []

    def gap(real: Any, fake: Any) -> float:
        given.extend([real, fake])
        return float(abs(real.mean() - fake.mean()))

    metrics = {"prdc": precision_recall_density_coverage, "fid": frechet_distance, "gap": gap}
    expected = GenerativeMetricFrame(metrics=metrics, real=real, fake=fake, backend="cpu", **groups)
    for backend in ("auto", "cuda"):
        given.clear()
        tensors = on_device(real, fake)
        frame = GenerativeMetricFrame(metrics=metrics, real=tensors[0], fake=tensors[1], backend=backend, **groups)
        assert frame.by_group.equals(expected.by_group)
        assert frame.overall.equals(expected.overall)
        assert {results["prdc"].backend for results in [*frame.results.values(), frame.overall_results]} == {"cuda"}
        assert {type(array) for array in given} == {np.ndarray}
    on_cpu = GenerativeMetricFrame(metrics=metrics, real=tensors[0], fake=tensors[1], backend="cpu", **groups)
    assert on_cpu.overall_results["prdc"].backend == "cpu"
    with pytest.raises(ValueError, match="fake is of type ndarray"):
        GenerativeMetricFrame(metrics=metrics, real=tensors[0], fake=fake, backend="cuda", **groups)


def test_matched_sizes_stay_on_the_device() -> None:
    real, fake = PAIRS["float32"]
    groups = {
        "real_sensitive_features": np.arange(len(real)) % 3,
        "fake_sensitive_features": np.arange(len(fake)) // 5 % 3,
    }
    tensors = on_device(real, fake)
    matched = GroupedSamples(real=tensors[0], fake=tensors[1], **groups).matched(random_state=0)
    expected = GroupedSamples(real=real, fake=fake, **groups).matched(random_state=0)
    assert isinstance(matched.real, torch.Tensor)
    np.testing.assert_array_equal(matched.real, expected.real)
    np.testing.assert_array_equal(matched.fake, expected.fake)
    np.testing.assert_array_equal(matched.real_rows, expected.real_rows)


def test_a_tensor_that_its_owner_overwrites_is_checked_again() -> None:
    """As in an evaluation loop that writes the features of every epoch into one buffer."""
    real, fake = (points.clone() for points in on_device(*PAIRS["float32"]))
    GroupedSamples(
        real=real,
        fake=fake,
        real_sensitive_features=np.arange(len(real)) % 2,
        fake_sensitive_features=np.arange(len(fake)) % 2,
    )
    fake[3, 1] = np.nan
    with pytest.raises(ValueError, match="fake holds NaN or infinity"):
        improved_precision_recall(real, fake)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 2, 3, 9])
@pytest.mark.parametrize("kind", ["distinct", "ties in the first columns", "equal rows"])
def test_rows_are_ordered_as_on_the_host(d: int, dtype: Any, kind: str) -> None:
    rng = np.random.default_rng(d)
    points = rng.normal(size=(200, d)).astype(dtype)
    if kind == "ties in the first columns":
        points[:, :2] = rng.integers(-1, 2, points[:, :2].shape)
    if kind == "equal rows":
        points[100:] = points[:100]
    points[::7, 0] *= 0.0  # zeros of both signs
    np.testing.assert_array_equal(canonical_order(torch.from_numpy(points)), canonical_order(points))


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "bool", "uint8", "int16", "int32", "int64", "strided", "reversed"]
)
def test_features_are_converted_as_on_the_host(dtype: str) -> None:
    values = np.arange(60).reshape(12, 5)
    array = {"strided": values[::2, 1:].astype(float), "reversed": values.T.copy().T * 0.5}.get(dtype)
    if array is None:
        array = values.astype(dtype)
    tensor = torch.from_numpy(array)
    checked: Any = check_features(tensor, "real", device="cpu")
    expected = check_features(array, "real")
    assert checked.is_contiguous()
    assert checked.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(checked.numpy(), expected)
    if dtype in ("float32", "float64"):
        assert checked.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_small_floats_become_float32(dtype: torch.dtype) -> None:
    checked: Any = check_features(torch.ones(3, 2).to(dtype), "real", device="cpu")
    assert checked.dtype == torch.float32


def test_large_integers_that_float64_holds_are_features() -> None:
    checked: Any = check_features(torch.full((3, 2), 2**60), "real", device="cpu")
    assert checked.dtype == torch.float64
    assert checked[2, 1].item() == 2**60


def test_two_dtypes_become_float64() -> None:
    checked: list[Any] = [*check_real_fake(torch.ones(3, 2), torch.ones(4, 2, dtype=torch.float64), device="cpu")]
    assert [x.dtype for x in checked] == [torch.float64] * 2


def faulty() -> dict[str, NDArray[Any]]:
    features = np.ones((300, 4))
    nan, infinite, huge = features.copy(), features.copy(), features.copy()
    nan[170, 2], infinite[290, 0], huge[3, 3] = np.nan, -np.inf, -1e200
    return {
        "nan": nan,
        "infinite": infinite,
        "huge": huge,
        "one axis": features[0],
        "three axes": features[None],
        "empty": features[:0],
        "complex": features.astype(complex),
        "identifiers": features.astype(np.int64) * (2**60 + 1),
    }


@pytest.mark.parametrize("fault", faulty())
def test_faults_are_named_as_on_the_host(fault: str) -> None:
    tensor = torch.from_numpy(faulty()[fault])
    with pytest.raises((ValueError, TypeError)) as on_host:
        check_features(tensor, "real")
    with pytest.raises(on_host.type) as there:
        check_features(tensor, "real", device="cpu")
    assert str(there.value).replace("torch.complex128", "complex128") == str(on_host.value)


def test_a_set_on_another_device_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"real lies on cpu, expected cuda:1, .* torch\.as_tensor\(real, device='cuda:1'\)"
    ):
        _device.device_tensor(torch.ones(2, 2), "real", "cuda:1")
