"""How often the CUDA backend starts kernels, copies and waits; all of it is counted on the harness, none is timed."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame, topp_precision_recall
from tests.simt import build

torch = pytest.importorskip("torch")
transfers = pytest.importorskip("tests.simt.transfers")  # which needs torch, too

ROWS = 14  # of a group, on each side
DIMENSIONS = 2  # of a projection
REPLICATES = 20


def test_calls_of_the_runtime_are_counted() -> None:
    module = build.load(False, [build.HERE / "samples.cu", build.HERE / "samples_module.cpp"])
    module.simt_devices(2)
    values, out = np.ones(100, dtype=np.float32), np.zeros(100, dtype=np.float32)
    with transfers.counted(module) as counts:
        module.run("copies_what_nothing_wrote", False, values.ctypes.data, 100, out.ctypes.data)
        module.run("counter", False, values.ctypes.data, 100, out.ctypes.data)
    assert counts == transfers.Counts(launches=1, to_host=1, bytes_to_host=400, waits=1)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda x: torch.tensor([1.0, 2.0], dtype=torch.float64), {"to_device": 1, "bytes_to_device": 16, "waits": 1}),
        (lambda x: x[np.array([0, 1])], {"to_device": 1, "bytes_to_device": 16, "waits": 1}),
        (lambda x: x.cpu().numpy(), {"to_host": 1, "bytes_to_host": 12, "waits": 1}),
        (lambda x: float(x.max()), {"to_host": 1, "bytes_to_host": 4, "waits": 1}),
        (lambda x: (x[0] > 0).item(), {"to_host": 1, "bytes_to_host": 1, "waits": 1}),
        (lambda x: x.tolist(), {"to_host": 1, "bytes_to_host": 12, "waits": 1}),
        (lambda x: bool((x > 0).any()), {"to_host": 1, "bytes_to_host": 1, "waits": 1}),
        (lambda x: x.nonzero(), {"to_host": 1, "bytes_to_host": 8, "waits": 1}),
        (lambda x: x[x > 2], {"to_host": 1, "bytes_to_host": 8, "waits": 1}),
        (lambda x: x[x.long()], {}),
        (lambda x: torch.cat([x, x]).sort().values[1:].sum(), {}),
    ],
)
def test_crossings_of_torch_are_counted(work: Any, expected: dict[str, int]) -> None:
    x = torch.ones(3)
    with transfers.counted(build.load()) as counts:
        work(x)
    assert counts == transfers.Counts(**expected)


def test_a_tensor_that_is_read_where_it_lies_is_an_error() -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError, match=r"without cpu\(\)"), transfers.counted(build.load()):
        x.numpy()


def counts_of_topp(n_groups: int, n_projections: int, rows: int = ROWS) -> Any:
    """Count what TopP&R takes in all groups and overall, with these numbers of groups and projections."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, n_groups * rows, 3)).astype(np.float32)
    groups = np.repeat(np.arange(n_groups), rows)
    matrices = list(np.random.default_rng(1).normal(size=(n_projections, DIMENSIONS, 3)))
    metric = functools.partial(topp_precision_recall, n_bootstrap=REPLICATES, alpha=0.3, projections=matrices)
    with transfers.counted(build.load()) as counts:
        GenerativeMetricFrame(
            metrics={"topp": metric},
            real=torch.from_numpy(real),
            fake=torch.from_numpy(fake),
            real_sensitive_features=groups,
            fake_sensitive_features=groups,
            random_state=0,
            backend="cuda",
        )
    return counts


def difference(more: Any, less: Any) -> dict[str, int]:
    return {name: value - getattr(less, name) for name, value in dataclasses.asdict(more).items()}


@pytest.mark.usefixtures("cuda_on_host")
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::egtmetrics.results.UnreliableScoreWarning")
@pytest.mark.parametrize("n_groups", [2, 20])
def test_what_a_projection_of_topp_takes(n_groups: int) -> None:
    """Exact counts, for every group and the whole set: no number of bytes depends on the number of rows.

    Up: the matrix. Down, for each set: the range of every column, the range that holds the median radius, both middle
    radii, and the deviations of the replicates; for both together, four numbers of points. The host waits for each.
    """
    evaluations = n_groups + 1
    one, two = (counts_of_topp(n_groups, n) for n in (1, 2))
    per_set = 2 * DIMENSIONS + 2 + 2 + REPLICATES
    assert difference(two, one) == {
        "launches": 71 * evaluations,
        "to_device": evaluations,
        "bytes_to_device": 8 * DIMENSIONS * 3 * evaluations,
        "to_host": 9 * evaluations,
        "bytes_to_host": 8 * (2 * per_set + 4) * evaluations,
        "waits": 10 * evaluations,
    }
