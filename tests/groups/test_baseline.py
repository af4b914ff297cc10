"""The comparison with a perfect generator: other real samples of each group."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from egtmetrics import GenerativeMetricFrame, frechet_distance, precision_recall_density_coverage
from egtmetrics.groups import Baseline, MissingScoreWarning
from egtmetrics.report import render
from egtmetrics.results import MetricResult, share

PRDC = functools.partial(precision_recall_density_coverage, n_threads=1)


def frame(
    real: Any, fake: Any, real_groups: Any, fake_groups: Any, metrics: Any = "fid", **options: Any
) -> GenerativeMetricFrame:
    return GenerativeMetricFrame(
        metrics=metrics,
        real=real,
        fake=fake,
        real_sensitive_features=real_groups,
        fake_sensitive_features=fake_groups,
        random_state=0,
        **options,
    )


def two_groups(n: int, scales: tuple[float, float] = (1.0, 1.0), d: int = 3, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    groups = np.repeat(["f", "m"], n)
    real, fake = rng.normal(size=(2, 2 * n, d)) * np.where(groups == "f", *scales)[:, None]
    return {"real": real, "fake": fake, "real_groups": groups, "fake_groups": groups}


class Recorder:
    """A metric of numbered rows that keeps which rows it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def __call__(self, real: Any, fake: Any) -> float:
        self.calls.append((real.ravel(), fake.ravel()))
        return float(real.mean() - fake.mean())


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_sets_are_of_one_size_and_every_round_divides_all_rows_anew() -> None:
    """Group f has 4 samples a side, group m 16 and 19: two rows a set, one split a round for f, four for m."""
    real, fake = np.arange(20.0)[:, None], 100.0 + np.arange(23.0)[:, None]
    metric = Recorder()
    evaluated = frame(real, fake, ["f"] * 4 + ["m"] * 16, ["f"] * 4 + ["m"] * 19, metric)
    metric.calls.clear()
    baseline = evaluated.baseline(n_splits=3)
    assert baseline.sizes.to_dict("index") == {
        "f": {"n_samples": 2, "n_splits": 3},
        "m": {"n_samples": 2, "n_splits": 12},
    }
    assert len(metric.calls) == 4 * (3 + 12)
    excesses = []
    for start in range(0, 60, 4):
        (a, c), (b, d), *placebos = metric.calls[start : start + 4]
        assert [len(one) for one in (a, b, c, d)] == [2] * 4
        for one, other in zip(placebos, ((a, b), (b, a)), strict=True):
            np.testing.assert_array_equal(one, other)
        excesses.append((a.mean() - c.mean() + b.mean() - d.mean()) / 2)
    for round_of_m in range(3):
        calls = metric.calls[12 + 16 * round_of_m : 12 + 16 * (round_of_m + 1)]
        used = np.concatenate([calls[i][0] for i in range(16) if i % 4 < 2])
        assert sorted(used) == list(range(4, 20))
        generated = np.concatenate([calls[i][1] for i in range(16) if i % 4 < 2])
        assert len(set(generated)) == 16
        assert set(generated) <= set(range(104, 123))
    firsts = [sorted(map(float, metric.calls[start][0])) for start in range(12, 60, 16)]
    assert len({tuple(first) for first in firsts}) > 1
    expected = [np.mean(excesses[:3]), np.mean(excesses[3:])]
    np.testing.assert_allclose(baseline.excess["Recorder"], expected, rtol=1e-12)
    np.testing.assert_allclose(baseline.model["Recorder"] - baseline.placebo["Recorder"], expected, rtol=1e-12)
    assert baseline.disparities().loc[("Recorder", "delta_Recorder"), "value"] == pytest.approx(abs(np.diff(expected)))


def test_held_out_samples_equal_to_the_generated_ones_leave_no_excess() -> None:
    data = two_groups(120, (1.0, 5.0))
    evaluated = frame(**data, metrics={"prdc": PRDC, "fid": frechet_distance})
    baseline = evaluated.baseline(data["fake"], data["fake_groups"])
    assert (baseline.excess == 0.0).to_numpy().all()
    assert (baseline.sizes["n_samples"] == 120).all()
    assert (baseline.sizes["n_splits"] == 1).all()
    np.testing.assert_allclose(baseline.model, evaluated.by_group, rtol=1e-12)


def test_nothing_depends_on_names_and_order() -> None:
    data = two_groups(110, (1.0, 2.0), seed=1)
    real_order, fake_order = np.random.default_rng(2).permuted([np.arange(220)] * 2, axis=1)
    names = np.where(data["real_groups"] == "f", "z", "a")
    found = frame(**data).baseline()
    again = frame(data["real"][real_order], data["fake"][fake_order], names[real_order], names[fake_order]).baseline()
    for one, other in ((found.model, again.model), (found.placebo, again.placebo)):
        np.testing.assert_allclose(one.loc[["f", "m"]], other.loc[["z", "a"]], rtol=1e-9)
    tests = (one.test()[["value", "p_value", "adjusted_p_value"]] for one in (found, again))
    np.testing.assert_allclose(*tests, rtol=1e-6)


def test_ratios_are_those_of_shares_and_need_a_placebo_above_0() -> None:
    baseline = frame(**two_groups(60), metrics={"prdc": PRDC, "fid": frechet_distance}).baseline()
    assert list(baseline.ratio) == ["prdc_precision", "prdc_recall", "prdc_coverage"]
    np.testing.assert_allclose(baseline.ratio, (baseline.model / baseline.placebo)[list(baseline.ratio)])
    assert set(baseline.disparities("ratio").index.get_level_values("metric")) == {"prdc"}

    @functools.lru_cache
    def result_class() -> Any:
        import dataclasses

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Nothing(MetricResult):
            found: float = share(label="found")

        return Nothing

    def nothing(real: Any, fake: Any) -> Any:
        return result_class()(found=0.0, backend="numpy", n_real=len(real), n_fake=len(fake))

    assert frame(**two_groups(60), metrics=nothing).baseline().ratio.isna().to_numpy().all()


def test_the_ratio_is_the_share_of_good_samples_in_unlike_groups() -> None:
    """30 % of the samples of both groups lie off the data: the ratios are 0.7, the excesses are not equal."""
    data = two_groups(1200, (1.0, 30.0), d=16, seed=3)
    data["real"][:1200, 2:] *= 1e-3  # of low dimension, where precision is higher
    data["fake"][:1200, 2:] *= 1e-3
    data["fake"][np.r_[:360, 1200:1560]] += 1e3
    baseline = frame(**data, metrics={"prdc": PRDC}).baseline()
    placebo, ratio, excess = (table["prdc_precision"] for table in (baseline.placebo, baseline.ratio, baseline.excess))
    assert placebo["f"] - placebo["m"] > 0.1
    np.testing.assert_allclose(ratio, 0.7, atol=0.04)
    assert excess["m"] - excess["f"] > 0.03


def rejections(damaged: bool, n_simulations: int) -> tuple[Any, Any, Any]:
    """How often raw scores, and excesses, of a narrow and a wide group are called unequal; the excess' z-scores."""
    raw, excess, z = [], [], []
    for seed in range(n_simulations):
        data = two_groups(120, (1.0, 5.0), d=12, seed=100 + seed)
        if damaged:
            data["fake"][:40] += 12.0
        evaluated = frame(**data, metrics={"prdc": PRDC, "fid": frechet_distance}, n_threads=1)
        baseline = evaluated.baseline()
        names = [("prdc", "delta_p"), ("fid", "delta_fid")]
        for rejected, tested in ((raw, evaluated.test()), (excess, baseline.test())):
            rejected.append([tested["p_value"][name] <= 0.05 for name in names])
        intervals = baseline.interval(0.6827).by_group
        z.append((intervals["value"] / ((intervals["high"] - intervals["low"]) / 2)).to_numpy())
    return np.mean(raw, axis=0), np.mean(excess, axis=0), np.array(z)


def test_a_perfect_generator_is_not_called_unequal_where_its_groups_differ() -> None:
    """Of 16 perfect generators: at a rate of 5 %, more than 4 rejections have a probability of 0.1 % a score.

    The raw Fréchet distances differ, since one group is wider: they are called unequal nearly always.
    """
    raw, excess, z = rejections(damaged=False, n_simulations=16)
    assert raw[1] > 0.9
    assert (excess <= 4 / 16).all()
    assert np.sqrt((z**2).mean(axis=0)).max() < 1.5  # the stated errors hold: the root of a mean of 16 squares, 3.5 sd


def test_unequal_damage_is_found() -> None:
    _, excess, _ = rejections(damaged=True, n_simulations=4)
    assert (excess == 1.0).all()


def test_several_features_and_json() -> None:
    rng = np.random.default_rng(5)
    labels = {"sex": ["f", "m"] * 60, "age": ["old"] * 60 + ["young"] * 60}
    baseline = frame(rng.normal(size=(120, 2)), rng.normal(size=(120, 2)), labels, labels, metrics=PRDC).baseline()
    assert isinstance(baseline, Baseline)
    content = json.loads(json.dumps(baseline.to_dict(), allow_nan=False))
    assert set(content["excess"]) == {f"sex={a}, age={b}" for a in "fm" for b in ("old", "young")}
    assert content["sizes"]["sex=f, age=old"] == {"n_samples": 15, "n_splits": 6}
    assert "excess" in repr(baseline)
    assert "<table" in baseline._repr_html_()


def test_a_group_on_one_side_has_no_baseline() -> None:
    data = two_groups(60)
    data["fake_groups"] = np.where(data["fake_groups"] == "f", "f", "x")
    data["real_groups"] = np.where(np.arange(120) % 3 == 0, "x", data["real_groups"])
    baseline = frame(**data, missing_groups="nan").baseline()
    assert baseline.excess["fid"].isna().to_dict() == {"f": False, "m": True, "x": False}
    assert baseline.sizes.loc["m"].to_dict() == {"n_samples": 0, "n_splits": 0}


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
@pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
def test_a_small_group_does_not_make_the_sets_of_the_others_small() -> None:
    rng = np.random.default_rng(6)
    groups = np.repeat(["f", "m", "x"], [120, 140, 4])
    evaluated = frame(rng.normal(size=(264, 2)), rng.normal(size=(264, 2)), groups, groups, missing_groups="nan")
    with pytest.warns(MissingScoreWarning, match="no baseline for group 'x': it has fewer than 100 samples on a side"):
        baseline = evaluated.baseline(n_splits=2)
    assert baseline.sizes["n_samples"].to_dict() == {"f": 60, "m": 60, "x": 0}
    assert baseline.disparities()["without"].tolist() == [("x",)]
    assert baseline.test()["p_value"].notna().all()


def test_a_metric_that_refuses_the_smaller_sets_leaves_the_others() -> None:
    def of_many(real: Any, fake: Any) -> dict[str, float]:
        if len(real) < 60:
            raise ValueError(f"{len(real)} rows are too few, and there have to be 60")
        return {"gap": float(abs(real.mean() - fake.mean()))}

    data, why = two_groups(110), "55 rows are too few, and there have to be 60"
    evaluated = frame(**data, metrics={"many": of_many, "fid": frechet_distance})
    with pytest.warns(MissingScoreWarning, match=f"no baseline for group 'f', group 'm': .*{why}"):
        baseline = evaluated.baseline(n_splits=2)
    assert baseline.refusals == {"many": {"f": why, "m": why}}
    assert baseline.excess.isna().all().to_dict() == {"many": True, "fid": False}
    bounds = baseline.interval().by_group["low"]
    assert bounds.loc["fid"].notna().all()
    assert bounds.loc["many"].isna().all()
    assert baseline.test()["p_value"].notna().groupby(level="metric").all().to_dict() == {"fid": True, "many": False}
    verdict = baseline.certify(0.1, metric="many")
    assert (verdict.outcome, verdict.reason) == ("undecided", "a group has no score, or its error is not known")
    text = render(evaluated, baseline=baseline, width=10_000)
    assert f"many has no baseline for f, m. f: {why}" in text
    again = GenerativeMetricFrame.from_json(evaluated.to_json(baseline=baseline)).baseline()
    assert again.refusals == baseline.refusals
    with pytest.raises(ValueError, match=why):
        frame(**data, metrics={"many": of_many, "fid": frechet_distance}, strict=True).baseline()
    with pytest.raises(ValueError, match=why):
        frame(**data, metrics=of_many).baseline()


def test_refusals() -> None:
    data = two_groups(60)
    evaluated = frame(**data)
    with pytest.raises(TypeError, match="held_out_sensitive_features is missing; pass held_out and"):
        evaluated.baseline(data["real"])
    with pytest.raises(ValueError, match=r"n_samples=31, but group 'f' has only 30 samples for each set; pass "):
        evaluated.baseline(n_samples=31)
    with pytest.raises(ValueError, match="of='both' is unknown; choose one of 'excess', 'ratio'"):
        evaluated.baseline().test("both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"baseline compares sets of 30 samples, half of what the smallest group has"):
        evaluated.baseline().interval()
    with pytest.raises(ValueError, match="a baseline needs the samples"):
        GenerativeMetricFrame.from_json(evaluated.to_json()).baseline()
    with pytest.raises(ValueError, match="held_out has no samples of group 'm'"):
        evaluated.baseline(data["real"][:60], ["f"] * 60)


@pytest.mark.parametrize("n_samples", [None, 1])
@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_a_group_of_one_sample_is_refused_by_its_size(n_samples: int | None) -> None:
    data = two_groups(60)
    data |= {name: ["f"] * 119 + ["m"] for name in ("real_groups", "fake_groups")}
    evaluated = frame(**data, metrics=lambda real, fake: float(abs(real.mean() - fake.mean())), strict=True)
    with pytest.raises(ValueError, match=r"group 'm' cannot be split into 2 sets, because it has 1 sample on a side"):
        evaluated.baseline(n_samples=n_samples)


@pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
def test_one_large_cluster_is_refused_as_such() -> None:
    evaluated = frame(**two_groups(60), fake_clusters=["one"] * 60 + ["other"] * 60)
    with pytest.raises(ValueError, match=r"cannot be split into 2 sets, because its clusters are too large; add clust"):
        evaluated.baseline()
