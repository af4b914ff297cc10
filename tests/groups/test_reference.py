"""A prepared real side gives the same bits as its samples, and does not compute anew what depends on it alone."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import pickle
import threading
import warnings
import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import egtmetrics
from egtmetrics import GenerativeMetricFrame, Reference, compare_models
from egtmetrics.groups import MissingScoreWarning
from egtmetrics.groups._evaluation import bind
from egtmetrics.metrics import frechet_distance, precision_recall_density_coverage, topp_precision_recall
from egtmetrics.ops import of_one_set, select_backend
from egtmetrics.registry import registered_metrics
from egtmetrics.results import UnreliableScoreWarning
from tests.strategies import lattice_pairs

D = 34  # more than TopP&R takes without a projection
RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat(["f", "m"], [260, 240]))
REAL = RNG.normal(size=(500, D)).astype(np.float32)
FAKE = RNG.normal(0.1, 0.9, size=(400, D)).astype(np.float32)
FAKE_LABELS = np.repeat(["f", "m"], 200)
OPTIONS: dict[str, dict[str, Any]] = {
    "approximate-prdc": {"n_cells": 4, "n_probes": 2},
    "frontier": {"n_clusters": 5, "n_clusterings": 1},
    "kid": {"subset_size": 100, "n_subsets": 3},
    "mauve": {"n_clusters": 5, "n_clusterings": 1},
    "prd": {"n_clusters": 5, "n_clusterings": 1},
    "topp": {"n_bootstrap": 20, "n_projections": 2},
}
"""Those that make metrics fast."""
SOME = {
    "topp": functools.partial(topp_precision_recall, **OPTIONS["topp"]),
    "prdc": precision_recall_density_coverage,
    "fid": frechet_distance,
}

pytestmark = pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")


def call(name: str) -> Callable[..., Any]:
    return bind(functools.partial(registered_metrics()[name].function, **OPTIONS.get(name, {})), {"random_state": 0})


def same(a: Any, b: Any) -> bool:
    """Whether two results are equal to the last bit, in every field; NaN equals NaN."""
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b or (a != a and b != b))


def frame(real: Any, fake: Any = FAKE, **options: Any) -> GenerativeMetricFrame:
    given = {"metrics": SOME, "fake_sensitive_features": FAKE_LABELS, "random_state": 0} | options
    return GenerativeMetricFrame(real=real, fake=fake, **given)


def reference(**options: Any) -> Reference:
    return Reference(REAL, sensitive_features=LABELS, metrics=SOME, random_state=0, **options)


@pytest.fixture(scope="module")
def prepared() -> Reference:
    found = reference()
    found.prepare()
    return found


@pytest.fixture(scope="module")
def expected() -> GenerativeMetricFrame:
    return frame(REAL, real_sensitive_features=LABELS)


def assert_same_frame(found: GenerativeMetricFrame, expected: GenerativeMetricFrame) -> None:
    for label, results in [*expected.results.items(), (None, expected.overall_results)]:
        for name, result in results.items():
            assert same((found.overall_results if label is None else found.results[label])[name], result), (label, name)
    pd.testing.assert_frame_equal(found.disparities(), expected.disparities(), check_exact=True)


OF_FEATURES = sorted(set(registered_metrics()) - {"numbers"})  # which takes one number for each sample


@pytest.mark.parametrize("name", OF_FEATURES)
def test_every_metric_has_the_same_bits_on_the_first_call_and_later(name: str) -> None:
    if name == "approximate-prdc":
        pytest.importorskip("faiss")
    metric, real = call(name), Reference(REAL)
    expected = metric(REAL, FAKE)
    assert same(metric(real, FAKE), expected)
    seconds = real.seconds
    assert same(metric(real, FAKE), expected)
    assert same(metric(real, FAKE[:350]), metric(REAL, FAKE[:350]))
    assert real.seconds == seconds  # nothing of the real side was computed again, whatever the size of the other


@settings(max_examples=20)
@given(pair=lattice_pairs(min_rows=7))
def test_ties_are_decided_alike(pair: tuple[Any, Any]) -> None:
    real, fake = pair
    prepared = Reference(real)
    for name in ("prdc", "ipr", "clipped", "p-pr"):
        metric = functools.partial(registered_metrics()[name].function, n_neighbors=2)
        assert same(metric(real, fake), metric(prepared, fake))
        assert same(metric(fake, real), metric(fake, prepared))


def test_a_frame_has_the_same_bits_and_takes_the_labels(prepared: Reference, expected: GenerativeMetricFrame) -> None:
    seconds = prepared.seconds
    found = frame(prepared)
    assert prepared.seconds == seconds > 0.0
    assert_same_frame(found, expected)
    assert found.group_counts.equals(expected.group_counts)


def test_other_labels_take_the_place_of_its_own(prepared: Reference) -> None:
    others = np.roll(LABELS, 7)
    assert_same_frame(frame(prepared, real_sensitive_features=others), frame(REAL, real_sensitive_features=others))


def test_intervals_have_the_same_bits(prepared: Reference, expected: GenerativeMetricFrame) -> None:
    first = frame(prepared)
    pd.testing.assert_frame_equal(first.interval().disparities, expected.interval().disparities, check_exact=True)
    seconds, second = prepared.seconds, frame(prepared)
    pd.testing.assert_frame_equal(second.interval().by_group, expected.interval().by_group, check_exact=True)
    assert prepared.seconds == seconds


def test_what_intervals_need_is_prepared_too(tmp_path: Path) -> None:
    """Of every metric that has an estimator of its own, for generated sets of any size, and in the file."""
    metrics = {name: call(name) for name in OF_FEATURES if registered_metrics()[name].variance is not None}
    real = Reference(REAL, sensitive_features=LABELS, metrics=metrics, random_state=0)
    real.prepare(intervals=True)
    real.save(tmp_path / "real.egt")
    found = Reference.load(tmp_path / "real.egt")
    options: dict[str, Any] = {"fake": FAKE[:380], "metrics": metrics, "fake_sensitive_features": FAKE_LABELS[:380]}
    intervals = frame(found, **options).interval()
    assert found.seconds == 0.0
    expected = frame(REAL, real_sensitive_features=LABELS, **options).interval()
    pd.testing.assert_frame_equal(intervals.by_group, expected.by_group, check_exact=True)
    pd.testing.assert_frame_equal(intervals.disparities, expected.disparities, check_exact=True)


def test_comparisons_of_models_have_the_same_bits(prepared: Reference) -> None:
    options: dict[str, Any] = {"metric": "prdc", "score": "recall", "random_state": 0}
    other = FAKE + np.float32(0.1)
    assert compare_models(prepared, FAKE, other, **options) == compare_models(REAL, FAKE, other, **options)


def test_what_one_seed_option_or_backend_gave_is_not_taken_for_another() -> None:
    rows, others = REAL[:200], FAKE[:200]
    real = Reference(rows)
    for options in ({"random_state": 0}, {"random_state": 1}, {"alpha": 0.2}, {"backend": "reference"}, {"alpha": 0.1}):
        metric = functools.partial(
            topp_precision_recall, n_bootstrap=5, n_projections=1, **{"random_state": 0} | options
        )
        assert same(metric(real, others), metric(rows, others))
    seconds = real.seconds
    for _ in range(2):  # the state of a Generator counts
        topp_precision_recall(real, others, n_bootstrap=5, n_projections=1, random_state=np.random.default_rng(1))
    assert real.seconds == seconds
    topp_precision_recall(real, others, n_bootstrap=5, n_projections=1, random_state=np.random.default_rng(2))
    assert real.seconds > seconds


@pytest.mark.parametrize("projected", [True, False])
def test_the_numbers_of_another_package_are_the_same(projected: bool) -> None:
    real, fake = (REAL, FAKE) if projected else (REAL[:, :3], FAKE[:, :3])
    metric = functools.partial(topp_precision_recall, compatibility="top-pr", random_state=0)
    prepared = Reference(real)
    for _ in range(2):
        assert same(metric(prepared, fake), metric(real, fake))


def test_the_array_may_change_afterwards() -> None:
    array = REAL.copy()
    real = Reference(array)
    array[:] = 0.0
    assert same(frechet_distance(real, FAKE), frechet_distance(REAL, FAKE))
    with pytest.raises(ValueError, match="read-only"):
        real.features[0] = 0.0


def test_memory_is_bounded_and_stated() -> None:
    wide = reference()
    expected = frame(wide)
    assert wide.nbytes > 2 * REAL.nbytes
    bound = 300_000
    narrow = reference(max_bytes=bound)
    for _ in range(2):
        assert_same_frame(frame(narrow), expected)
        assert narrow.nbytes <= bound + REAL.nbytes


def test_results_are_freed_with_the_samples() -> None:
    real = reference()
    found = frame(real)
    memo, radii = weakref.ref(real._memo), weakref.ref(select_backend().kth_neighbor(real.features, n_neighbors=5))
    del real
    assert memo() is not None  # the frame has the samples, for its intervals
    assert radii() is not None
    del found
    assert memo() is None
    assert radii() is None


def test_threads_compute_what_they_share_once(expected: GenerativeMetricFrame) -> None:
    calls = []

    @of_one_set
    def slow(rows: Any) -> float:
        calls.append(threading.get_ident())
        threading.Event().wait(0.05)
        return float(rows.sum())

    real = reference()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(slow, [real.features] * 8))) == len(calls) == 1
        frames = list(pool.map(frame, [real] * 4))
    for one in frames:
        assert_same_frame(one, expected)


def test_an_error_in_one_thread_is_not_remembered() -> None:
    fails = [True]

    @of_one_set
    def sometimes(rows: Any) -> int:
        if fails.pop() if fails else False:
            raise ValueError("no")
        return len(rows)

    real = Reference(REAL)
    with pytest.raises(ValueError, match="no"):
        sometimes(real.features)
    assert sometimes(real.features) == len(REAL)


def _scores(real: Reference) -> tuple[dict[str, float], float]:
    before = real.seconds
    return frame(real, metrics={"prdc": SOME["prdc"], "fid": SOME["fid"]}).overall.to_dict(), real.seconds - before


def test_forked_processes_use_what_was_computed(prepared: Reference, expected: GenerativeMetricFrame) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        scores, seconds = pool.apply(_scores, [prepared])
    assert scores == {name: value for name, value in expected.overall.to_dict().items() if "topp" not in name}
    assert seconds == 0.0


def test_a_process_that_is_forked_while_a_thread_computes_does_not_wait_for_it() -> None:
    real, started, go = Reference(REAL), threading.Event(), threading.Event()

    @of_one_set
    def computed(rows: Any) -> int:
        started.set()
        go.wait(90.0 if multiprocessing.parent_process() is None else 0.0)
        return len(rows)

    thread = threading.Thread(target=computed, args=[real.features])
    thread.start()
    started.wait()
    child = multiprocessing.get_context("fork").Process(target=computed, args=[real.features])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # to fork beside threads is what this is about
        child.start()
    child.join(60.0)
    finished = child.exitcode
    go.set()
    thread.join()
    child.kill()
    assert finished == 0


def test_files_and_pickles_hold_everything(tmp_path: Path, prepared: Reference, expected: Any) -> None:
    path = tmp_path / "real.egt"
    prepared.save(path)
    for found in (Reference.load(path), pickle.loads(pickle.dumps(prepared))):
        assert_same_frame(frame(found), expected)
        assert found.seconds == 0.0
        assert (found.random_state, found.settings, len(found)) == (0, prepared.settings, len(REAL))
        assert not found.features.flags.writeable
    pickle.loads(pickle.dumps(prepared)).prepare()  # it has the metrics, too
    loaded = Reference.load(path)
    assert loaded.nbytes < REAL.nbytes / 2  # mapped
    again = tmp_path / "again.egt"
    loaded.save(again)
    assert Reference.load(again).settings == prepared.settings


@pytest.mark.parametrize(
    "labels",
    [
        [1, 2] * 250,
        [True, False] * 250,
        ["f", None] * 125 + ["m", "f"] * 125,
        {"sex": ["f", "m"] * 250, "age": [1, 1, 2, 2] * 125},
    ],
    ids=["integers", "booleans", "missing", "several"],
)
def test_labels_come_back(tmp_path: Path, labels: Any) -> None:
    real = Reference(REAL, sensitive_features=labels)
    options: dict[str, Any] = {"metrics": "fid", "fake": REAL + 1, "fake_sensitive_features": labels}
    before = frame(real, **options)
    real.save(tmp_path / "real.egt")
    found = frame(Reference.load(tmp_path / "real.egt"), **options)
    pd.testing.assert_frame_equal(found.by_group, before.by_group, check_exact=True)
    assert found.unassigned == before.unassigned


def test_without_samples_it_gives_frechet_distances_alone(tmp_path: Path, prepared: Reference, expected: Any) -> None:
    path = tmp_path / "published.egt"
    prepared.save(path, features=False)
    content = path.read_bytes()
    for rows in (REAL, REAL[LABELS == "f"]):
        assert not any(row.tobytes() in content for row in rows)
    assert LABELS.tolist() != Reference.load(path).sensitive_features["group"].tolist()
    published = Reference.load(path)
    found = frame(published, metrics="fid")
    assert found.by_group["fid"].equals(expected.by_group["fid"])
    assert found.overall["fid"] == expected.overall["fid"]
    for name in set(OF_FEATURES) - {"fid", "vendi"}:  # which knows the generated samples alone
        with pytest.raises(ValueError, match="without its samples"):
            call(name)(published, FAKE)
    with pytest.raises(ValueError, match="without its samples"):
        found.interval()


def test_samples_that_follow_from_their_covariance_are_not_published(tmp_path: Path) -> None:
    few = Reference(REAL[:D], metrics="fid")
    with pytest.warns(UnreliableScoreWarning):
        frechet_distance(few, FAKE)
    with pytest.raises(ValueError, match="the samples follow from it"):
        few.save(tmp_path / "few.egt", features=False)
    with pytest.raises(ValueError, match="nothing of that kind is known yet"):
        Reference(REAL).save(tmp_path / "none.egt", features=False)
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_refused(tmp_path: Path, prepared: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="real is a reference of float32 features and the other set is float64"):
        frame(prepared, FAKE.astype(np.float64))
    with pytest.raises(ValueError, match="real has 34 features and fake has 33"):
        frame(prepared, FAKE[:, 1:])
    with pytest.raises(ValueError, match="no metrics to prepare for"):
        Reference(REAL).prepare()
    with pytest.raises(ValueError, match="intervals are of groups, and this reference has none"):
        Reference(REAL, metrics="fid").prepare(intervals=True)
    with pytest.raises(ValueError, match="n_neighbors=600 needs at least 601"):
        Reference(REAL, metrics=functools.partial(precision_recall_density_coverage, n_neighbors=600)).prepare()
    path = tmp_path / "real.egt"
    prepared.save(path)
    whole = path.read_bytes()
    for position in (len(whole) // 2, len(whole) - 1, 30):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"real\.egt: is damaged or cut off"):
            Reference.load(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="is damaged or cut off"):
        Reference.load(path)
    path.write_bytes(b"PK" + whole)
    with pytest.raises(ValueError, match="is no reference"):
        Reference.load(path)
    path.write_bytes(whole.replace(b"reference 1\n", b"reference 2\n", 1))
    with pytest.raises(ValueError, match="has format 2 of references, and this version reads 1"):
        Reference.load(path)
    path.write_bytes(whole)
    monkeypatch.setattr(egtmetrics.groups.reference, "__version__", "9.9")
    with pytest.raises(ValueError, match=r"was made by egtmetrics 0\.1\.0, and this is 9\.9"):
        Reference.load(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "real.egt"
    path.write_text("before")
    odd = Reference(REAL, sensitive_features=[Fraction(1, 2), Fraction(1, 3)] * 250)
    with pytest.raises(TypeError, match="is Fraction, which a file cannot hold"):
        odd.save(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_group_that_a_metric_refuses_is_left_to_the_evaluation() -> None:
    labels = np.where(np.arange(500) < 3, "f", "m")
    real = Reference(REAL, sensitive_features=labels, metrics="prdc", random_state=0)
    real.prepare()
    with pytest.warns(MissingScoreWarning, match="real has 3 rows"):
        found = frame(real, metrics="prdc", missing_groups="nan")
    assert found.by_group.loc["f"].isna().all()


def test_equal_looking_arguments_are_told_apart() -> None:
    @of_one_set
    def shown(rows: Any, value: Any) -> str:
        return repr(value) + str(getattr(value, "dtype", ""))

    real = Reference(REAL)
    ones = np.ones((2, 2))
    values = [1, True, 1.0, "1", None, (1, 1), ((1,), 1), ones, ones.astype(np.float32), ones[0], ones[:1], 0.0, -0.0]
    for _ in range(2):
        assert [shown(real.features, value) for value in values] == [
            repr(value) + str(getattr(value, "dtype", "")) for value in values
        ]
    assert shown(real.features, iter([1])) != shown(real.features, iter([1]))  # nothing is known of an iterator


def test_only_single_sets_are_remembered() -> None:
    real, other = Reference(REAL), Reference(FAKE)
    kernels = select_backend("reference")
    radii = kernels.kth_neighbor(real.features, n_neighbors=3)
    assert kernels.kth_neighbor(real.features, n_neighbors=3) is radii
    assert not radii.flags.writeable
    assert kernels.kth_neighbor(real.features, n_neighbors=4) is not radii
    across = kernels.kth_neighbor(real.features, other.features, n_neighbors=3)
    assert kernels.kth_neighbor(real.features, other.features, n_neighbors=3) is not across


@pytest.mark.usefixtures("cuda_on_host")
def test_tensors_stay_where_they_are() -> None:
    torch = pytest.importorskip("torch")
    rows, others = torch.from_numpy(REAL[:200]), torch.from_numpy(FAKE[:180])
    labels, other_labels = LABELS[:200], np.repeat(["f", "m"], 90)
    given: dict[str, Any] = {"fake": others, "fake_sensitive_features": other_labels}
    given["metrics"] = SOME | {"topp": functools.partial(SOME["topp"], projections=[np.eye(4, D)])}
    expected = frame(rows, real_sensitive_features=labels, **given)
    real = Reference(rows, sensitive_features=labels)
    assert_same_frame(frame(real, **given), expected)
    assert expected.overall_results["prdc"].backend == "cuda"
    seconds = real.seconds
    assert_same_frame(frame(real, **given), expected)
    assert real.seconds == seconds
    restored = pickle.loads(pickle.dumps(real))
    assert isinstance(restored.features, np.ndarray)
