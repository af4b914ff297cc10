from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from egtmetrics import (
    GenerativeMetricFrame,
    GroupedSamples,
    frechet_distance,
    improved_precision_recall,
    kernel_distance,
)
from egtmetrics.confusion import Confusion
from egtmetrics.metrics.variance import joint_scores
from egtmetrics.results import Score

NAMES = ["f", "m"]


def two_groups(n: int = 240, seed: int = 0, error: float = 0.1) -> tuple[Any, Any, Any, Any]:
    """Real and generated samples of two groups apart, true labels, and labels that are wrong at random."""
    rng = np.random.default_rng(seed)
    groups = np.array(NAMES)[np.arange(n) % 5 // 3]
    real, fake = rng.normal(size=(2, n, 3)) + 3.0 * (groups == "m")[:, None]
    called = np.where(rng.random(n) < error, np.where(groups == "m", "f", "m"), groups)
    return real, fake, groups, called


def frame_of(real: Any, fake: Any, truth: Any, called: Any, metrics: Any = "prdc,kid") -> GenerativeMetricFrame:
    return GenerativeMetricFrame(
        metrics=metrics,
        real=real,
        fake=fake,
        real_sensitive_features=truth,
        fake_sensitive_features=called,
        random_state=0,
        n_threads=1,
    )


def test_exact_where_the_called_groups_are_exact_mixtures() -> None:
    """Every generated sample is there ten times; of group f copies 0 and 1 are called wrongly, of m copy 0, and of x
    copy 0 is not called at all. So every called group is the mixture that the confusion says."""
    rng = np.random.default_rng(0)
    truth = np.repeat(["f", "m", "x"], [12, 18, 24])
    fake = np.repeat(rng.normal(size=(54, 2)) + 0.8 * (truth == "m")[:, None], 10, axis=0)
    labels, copy = np.repeat(truth, 10), np.tile(np.arange(10), 54)
    called = labels.astype(object)
    called[(labels == "f") & (copy == 0)] = "m"
    called[(labels == "f") & (copy == 1)] = "x"
    called[(labels == "m") & (copy == 0)] = "f"
    called[(labels == "x") & (copy == 0)] = None
    real, real_labels = rng.normal(size=(120, 2)), np.repeat(["f", "m", "x"], 40)
    rates = [[0.8, 0.1, 0.1, 0.0], [0.1, 0.9, 0.0, 0.0], [0.0, 0.0, 0.9, 0.1]]
    metrics = "prdc,p-pr"
    corrected = frame_of(real, fake, real_labels, called, metrics).correct_labels(
        Confusion(rates, group_names=["f", "m", "x"])
    )
    expected = frame_of(real, fake, real_labels, labels, metrics).by_group
    for column in ("prdc_precision", "prdc_density", "p-pr_precision"):
        assert_allclose(corrected.by_group[column], expected[column], rtol=1e-9)
    assert_allclose(corrected.weights.sum(axis=1), 1.0)
    assert_allclose(corrected.proportions["value"], [12 / 54, 18 / 54, 24 / 54], rtol=1e-9)
    assert_allclose(corrected.contamination["value"], [18 / 114, 12 / 174, 12 / 228], rtol=1e-9)


def test_kernel_distance_is_that_of_weighted_samples() -> None:
    """Against the sums over all pairs, with every generated sample weighted, a sample and itself left out."""
    real, fake, truth, called = two_groups(n=60)
    frame = frame_of(real, fake, truth, called, {"kid": functools.partial(kernel_distance, degree=2, coef0=0.5)})
    corrected = frame.correct_labels(Confusion([[0.9, 0.1], [0.2, 0.8]], group_names=NAMES))

    def kernel(x: Any, y: Any) -> Any:
        return (x @ y.T / 3.0 + 0.5) ** 2

    sizes = {name: (called == name).sum() for name in NAMES}
    same = called[:, None] == called[None]
    for group in NAMES:
        x, w = real[truth == group], corrected.weights.loc[group]
        weight = np.array([w[name] / sizes[name] for name in called])
        pairs = np.outer(weight, weight) * kernel(fake, fake)
        pairs *= np.where(same, [[sizes[name] / (sizes[name] - 1.0) for name in called]], 1.0)
        np.fill_diagonal(pairs, 0.0)
        within = kernel(x, x)
        expected = (within.sum() - within.trace()) / (len(x) * (len(x) - 1))
        expected += pairs.sum() - 2.0 * (kernel(x, fake) @ weight).mean()
        assert corrected.by_group.loc[group, "kid"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("metric", [frechet_distance, improved_precision_recall])
def test_sums_of_scores_together_vary_as_each_does(metric: Any) -> None:
    """From moves, and from scores of parts: the blocks on the diagonal are the covariances of the single sums."""
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(80, 2)) + shift for shift in (0.0, 0.1, 0.0, 0.3)]
    pairs = [(0, 2), (0, 3), (1, 2), (1, 3)]
    results = [metric(sets[real], sets[fake]) for real, fake in pairs]
    joint = joint_scores(metric, sets, pairs, results, rng=np.random.default_rng(1))
    weights = np.array([[1.2, -0.2, 0.0, 0.0], [0.0, 0.0, -0.3, 1.3]])
    together = joint.covariance_of_sums(weights).data
    size = len(results[0].scores())
    for place, row in enumerate(weights):
        block = slice(place * size, (place + 1) * size)
        assert_allclose(together[block, block], joint.covariance(row.tolist()).data, rtol=1e-9)
    assert np.linalg.eigvalsh(together).min() > -1e-12
    assert abs(together[0, size]) > 0.0  # they share the generated samples


def test_intervals_have_the_columns_of_a_frame() -> None:
    """Of ipr, precision alone can be corrected; its name still says of which score it is."""
    corrected = frame_of(*two_groups(), "ipr,kid").correct_labels(Confusion.symmetric(NAMES, 0.1))
    assert list(corrected.interval().by_group.index.unique(0)) == ["ipr_precision", "kid"]
    saved = corrected.to_dict(0.95)
    assert saved["intervals"]["by_group"]["f"].keys() == {"ipr_precision", "kid"}
    assert saved["by_group"]["f"]["ipr_recall"] is None


def test_true_labels_change_nothing() -> None:
    frame = frame_of(*two_groups(error=0.0), "prdc")
    corrected = frame.correct_labels(Confusion.symmetric(NAMES, 0.0))
    columns = ["prdc_precision", "prdc_density"]
    assert_allclose(corrected.by_group[columns], frame.by_group[columns], rtol=1e-12)
    assert corrected.contamination["value"].tolist() == [0.0, 0.0]
    of_both = [one.interval().disparities.loc[("prdc", "delta_p")] for one in (corrected, frame)]
    assert of_both[0]["high"] == pytest.approx(of_both[1]["high"], rel=0.15)  # by other random parts


@pytest.mark.parametrize("metric", ["prdc", "kid"])
def test_error_of_the_confusion_is_that_of_other_labelled_samples(metric: str) -> None:
    """Bias and standard errors against 2000 draws of labelled samples; squares of normal errors are
    skewed, so that either side knows a standard error of KID to 4 %."""
    frame = frame_of(*two_groups(), metric)
    corrected = frame.correct_labels(Confusion([[450, 50], [100, 400]], group_names=NAMES))
    mixtures, names = frame._unmixable(metric).mixtures, list(frame._unmixable(metric).names)
    assert mixtures is not None
    places = [list(frame.tables[metric].described).index(name) for name in names]
    counts, q = np.array([[450, 50], [100, 400]]), frame.group_counts["fake_proportion"].to_numpy()
    rng = np.random.default_rng(0)

    def scores(rates: Any, q: Any) -> Any:
        unmixing = np.linalg.inv(rates.T)
        return mixtures.values(unmixing * q / (unmixing @ q)[:, None])[:, places]

    plain = scores(counts / 500, q)
    drawn = np.array([[rng.multinomial(500, row) for row in counts / 500] for _ in range(2000)]) / 500
    values = np.array([scores(rates, q) for rates in drawn])
    error = values.std(axis=0) * np.sqrt(2 / 2000)  # of two sets of draws
    bias = plain - corrected.by_group.to_numpy()[:, places]
    assert (np.abs(values.mean(axis=0) - plain - bias) < 4.9 * error).all()

    values = np.array([scores(rates, rng.multinomial(240, q) / 240) for rates in drawn])
    total = np.diag(corrected._infer().uncertainties[metric].data).reshape(2, -1)
    sampled = np.diag(mixtures.covariance(corrected.weights.to_numpy()).data).reshape(2, -1)[:, places]
    assert_allclose(np.sqrt(total - sampled), values.std(axis=0), rtol=0.15)


def test_kernel_distances_are_rid_of_the_bias_of_their_square() -> None:
    """Weights that err add the squared distance between the groups, which is large here, times their variance."""
    frame = frame_of(*two_groups(), "kid")
    few = frame.correct_labels(Confusion([[18, 2], [2, 18]], group_names=NAMES))
    many = frame.correct_labels(Confusion([[18000, 2000], [2000, 18000]], group_names=NAMES))
    exact = frame.correct_labels(Confusion([[0.9, 0.1], [0.1, 0.9]], group_names=NAMES))
    assert_allclose(many.by_group, exact.by_group, rtol=0.01)
    assert (few.by_group["kid"] < exact.by_group["kid"] - 1.0).all()


def test_the_gap_that_wrong_labels_make_is_removed() -> None:
    """No gap in truth; a normal interval misses 4.9 standard errors with probability 1e-6."""
    real, fake, truth, called = two_groups(n=1000, error=0.15)
    frame = frame_of(real, fake, truth, called, "ipr")
    corrected = frame.correct_labels(Confusion([[850, 150], [150, 850]], group_names=NAMES))
    true_gap = frame_of(real, fake, truth, truth, "ipr").by_group["ipr_precision"].diff().iloc[-1]
    found, error = corrected._infer().difference("ipr", "precision", "m", "f")
    assert abs(found - true_gap) < 4.9 * error < 0.3
    measured = frame.by_group["ipr_precision"].diff().iloc[-1]
    assert abs(measured - true_gap) > 0.03 > 0.0
    assert corrected.certify(0.3).outcome == "within"
    assert corrected.test().loc[("ipr", "delta_p"), "p_value"] > 0.01
    assert ("proportions", "mgo") in corrected.disparities().index


def test_matched_samples_are_unmixed_by_the_proportions_of_all() -> None:
    real, fake, truth, called = two_groups(n=400)
    every = GroupedSamples(real=real, fake=fake, real_sensitive_features=truth, fake_sensitive_features=called)
    matched = every.matched(across_groups=True, random_state=0)
    confusion = Confusion.symmetric(NAMES, 0.1)
    weights = [
        GenerativeMetricFrame(metrics="ipr", samples=samples).correct_labels(confusion).weights
        for samples in (every, matched)
    ]
    assert_allclose(weights[0], weights[1], rtol=1e-12)


def test_what_cannot_be_corrected_says_so() -> None:
    real, fake, truth, called = two_groups()
    frame = frame_of(real, fake, truth, called, "prdc,fid")
    corrected = frame.correct_labels(Confusion.symmetric(NAMES, 0.1))
    for column in ("prdc_recall", "prdc_coverage", "fid"):
        assert corrected.by_group[column].isna().all()
        assert "take KID" in corrected.refusals[column]
    assert list(corrected.by_group) == list(frame.by_group)
    assert set(corrected.refusals) == {"prdc_recall", "prdc_coverage", "fid"}
    assert corrected.disparities().index.tolist() == [
        ("prdc", "delta_p"),
        ("prdc", "delta_density"),
        ("proportions", "mgo"),
        ("proportions", "ego"),
    ]
    assert "prdc_recall: recall of a mixture is no mixture" in repr(corrected)
    with pytest.raises(ValueError, match="no score of fid can be corrected: FID of a mixture"):
        frame_of(real, fake, truth, called, {"fid": frechet_distance}).correct_labels(Confusion.symmetric(NAMES, 0.1))
    assert {name for name, score in frame.describe().items() if score.per_sample} == {"prdc_precision", "prdc_density"}
    assert Score(label="own").per_sample is None


def test_what_is_refused() -> None:
    frame = frame_of(*two_groups(n=60), "ipr")
    with pytest.raises(ValueError, match="expected those of the samples, 'f', 'm'"):
        frame.correct_labels(Confusion.symmetric(["f", "x"], 0.1))
    with pytest.raises(ValueError, match=r"by this confusion -\d+\.\d% of the generated samples are of group 'm'"):
        frame.correct_labels(Confusion([[0.4, 0.6], [0.3, 0.7]], group_names=NAMES))
    with pytest.raises(ValueError, match="needs at least 50; add samples"):
        frame.correct_labels(Confusion.symmetric(NAMES, 0.1)).interval()
    with pytest.raises(ValueError, match="a correction needs the samples, but this frame was read from JSON"):
        GenerativeMetricFrame.from_json(frame.to_json()).correct_labels(Confusion.symmetric(NAMES, 0.1))
    with pytest.raises(ValueError, match="metric='fid' is not one of the metrics"):
        frame.label_sensitivity("fid")


@pytest.mark.parametrize("tolerance", [None, 0.1])
def test_the_finding_changes_at_the_rate_that_is_stated(tolerance: float | None) -> None:
    real, fake, truth, _ = two_groups(n=400)
    fake[np.flatnonzero(truth == "m")[:48]] += 20.0
    frame = frame_of(real, fake, truth, truth, "ipr")
    found = frame.label_sensitivity(tolerance=tolerance)

    def finding(error: float) -> str:
        corrected = frame.correct_labels(Confusion.symmetric(NAMES, error))
        if tolerance is not None:
            return str(corrected.certify(tolerance).outcome)
        low = corrected.interval().disparities.loc[("ipr", "delta_p"), "low"]
        return "more than noise" if low > 0 else "not distinguishable from noise"

    assert finding(0.0) == finding(found.error_rate - 2e-4) == found.finding
    assert finding(found.error_rate) == found.changed != found.finding
    assert found.text.startswith(f"The gap is {found.finding} if the labels of the generated samples are true, and")
    assert f"{100 * found.error_rate:.1f} %" in found.text


def test_a_finding_that_no_rate_changes() -> None:
    """Both groups have one law, so that it does not matter how they are called."""
    real, fake, truth, _ = two_groups(n=200)
    fake[:], real[:] = fake - 3.0 * (truth == "m")[:, None], real - 3.0 * (truth == "m")[:, None]
    found = frame_of(real, fake, truth, truth, "ipr").label_sensitivity()
    assert (found.finding, found.changed) == ("not distinguishable from noise", None)
    assert 0.3 < found.error_rate < 0.5
    assert "stays not distinguishable from noise for any rate" in found.text


def test_groups_of_several_features_are_corrected_like_others() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 400, 2))
    sex, age = np.tile(["f", "m"], 200), np.repeat(["old", "young"], 200)
    crossed = GenerativeMetricFrame(
        metrics="ipr",
        real=real,
        fake=fake,
        real_sensitive_features={"sex": sex, "age": age},
        fake_sensitive_features={"sex": sex, "age": age},
        random_state=0,
    )
    labels = crossed.by_group.index.tolist()
    rates = 0.9 * np.eye(4) + 0.1 / 3 * (1 - np.eye(4))
    corrected = crossed.correct_labels(Confusion(rates, group_names=labels))
    joined = GenerativeMetricFrame(
        metrics="ipr",
        real=real,
        fake=fake,
        real_sensitive_features=[f"{s} {a}" for s, a in zip(sex, age, strict=True)],
        fake_sensitive_features=[f"{s} {a}" for s, a in zip(sex, age, strict=True)],
        random_state=0,
    )
    expected = joined.correct_labels(Confusion(rates, group_names=joined.by_group.index.tolist()))
    np.testing.assert_allclose(corrected.by_group["ipr_precision"], expected.by_group["ipr_precision"])
    assert corrected.interval().disparities["high"].tolist() == expected.interval().disparities["high"].tolist()
    assert crossed.label_sensitivity().finding == joined.label_sensitivity().finding
