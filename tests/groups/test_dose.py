"""Scores read as doses of known damage."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egtmetrics import GenerativeMetricFrame, GroupedSamples, frechet_distance, improved_precision_recall
from egtmetrics.groups import Damage, MissingScoreWarning, copies, missing_mass, noise, off_support
from egtmetrics.groups.dose import Curve

IPR = functools.partial(improved_precision_recall, n_threads=1)
Z = 1.959964


def frame(data: dict[str, Any], metrics: Any, **options: Any) -> GenerativeMetricFrame:
    return GenerativeMetricFrame(metrics=metrics, **data, random_state=0, **options)


def two_groups(n: int, seed: int, d: int = 6) -> dict[str, Any]:
    """Group f fills d dimensions; group m is longer, in two of them, with little beside."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(["f", "m"], n)
    scale = np.where(groups[:, None] == "m", [2.0, 2.0] + [0.1] * (d - 2), 1.0)
    real, fake = rng.normal(size=(2, 2 * n, d)) * scale
    return {"real": real, "fake": fake, "real_sensitive_features": groups, "fake_sensitive_features": groups}


def damaged(data: dict[str, Any], function: Any, doses: dict[str, float], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 1])
    fake = data["fake"].copy()
    for group, dose in doses.items():
        rows = data["fake_sensitive_features"] == group
        fake[rows] = function(fake[rows], dose, rng)
    return {**data, "fake": fake}


def mean_shift(real: Any, fake: Any) -> float:
    return float(fake[:, 0].mean() - real[:, 0].mean())


def shift(features: Any, dose: float, rng: np.random.Generator) -> Any:
    return features + dose


# ---- one curve


def curve(scores: Any, model: float, error: float = 0.02, doses: Any = (0.0, 0.25, 0.5, 0.75, 1.0)) -> Curve:
    return Curve(doses=np.array(doses), scores=np.asarray(scores), errors=np.full(len(doses), error), model=model)


def test_a_straight_curve_is_read_in_closed_form() -> None:
    line = 1.0 - 0.8 * np.linspace(0, 1, 5)
    read = curve(line, 0.6)
    margin = Z * 0.02 / 0.8
    assert read.dose == pytest.approx(0.5)
    assert read.ends(Z) == pytest.approx((0.5 - margin, 0.5 + margin), abs=2e-3)
    assert read.error == pytest.approx(0.02 / 0.8, rel=0.05)
    near_the_start = curve(line, 0.99)
    assert near_the_start.ends(Z) == (None, pytest.approx(0.0125 + margin, abs=2e-3))
    better = curve(line, 1.2)
    assert better.dose == 0.0
    assert better.ends(Z) == (None, pytest.approx(margin, abs=2e-3))
    beyond = curve(line, 0.19)
    assert math.isnan(beyond.dose)
    assert beyond.interval(0.95, math.inf) == (pytest.approx(1.0125 - margin, abs=2e-3), math.inf)
    far_beyond = curve(line, 0.0)
    assert far_beyond.interval(0.95, math.inf) == (1.0, math.inf)
    silent = curve(line, 0.6, error=0.5)
    assert math.isnan(silent.dose)
    assert silent.interval(0.95, math.inf) == (0.0, math.inf)
    rising = curve(-line, -0.6)
    assert (rising.dose, rising.ends(Z)) == (pytest.approx(read.dose), pytest.approx(read.ends(Z)))


def test_a_curve_that_starts_flat_has_a_long_lower_side() -> None:
    """Of a parabola, the derivative at a small dose would say little of the doses below it."""
    doses = np.linspace(0, 1, 9)
    read = curve(doses**2, 0.04, error=0.02, doses=doses)
    assert read.dose == pytest.approx(0.2, abs=0.005)  # monotone cubics; straight lines between the doses read 0.193
    assert read.ends(Z)[0] == pytest.approx(math.sqrt(0.04 - Z * 0.02), abs=0.02)
    assert read.error == pytest.approx((0.2 - math.sqrt(0.04 - Z * 0.02)) / Z, rel=0.1)


@pytest.mark.parametrize("place", [0.12, 0.25, 0.5])
def test_intervals_hold_the_dose_where_the_score_falls_between_two_doses(place: float) -> None:
    """Though the scores at the doses are exact, and say little of where between them the score falls."""
    doses = np.array([0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0])

    def fall(dose: Any) -> Any:
        return 1.0 / (1.0 + np.exp((dose - place) / 0.025))

    for dose in np.linspace(place - 0.1, place + 0.1, 21):
        read = curve(fall(doses), float(fall(dose)), error=0.003, doses=doses)
        low, high = read.interval(0.95, math.inf)
        assert low <= dose <= high
        at_dose = np.abs(read.grid - dose).argmin()
        assert abs(read.misfits[at_dose]) < Z


def test_a_score_that_turns_back_reads_nothing_but_still_fits() -> None:
    doses = np.linspace(0, 1, 9)
    bump = 1.0 + doses * (1.0 - doses)
    read = curve(bump, bump[6], doses=doses)
    assert math.isnan(read.dose)
    assert read.interval(0.95, math.inf) == (0.0, math.inf)
    assert read.misfits[750] == pytest.approx(0.0, abs=1e-9)
    within_errors = curve(1.0 + 0.05 * doses * (1.0 - doses), 1.0, doses=doses)
    assert within_errors.ends(Z) == (None, None)  # but because nothing tells the doses apart


def test_a_score_without_a_number_reads_nothing() -> None:
    assert math.isnan(curve([1.0, 0.8, math.nan, 0.4, 0.2], 0.5).dose)
    assert math.isnan(curve(np.linspace(1, 0, 5), math.nan).dose)


@given(
    steps=st.lists(st.floats(0.05, 1.0), min_size=4, max_size=8),
    sign=st.sampled_from([-1.0, 1.0]),
    at=st.floats(0.05, 0.95),
)
@settings(max_examples=60, deadline=None)
def test_a_monotone_curve_reads_its_own_doses(steps: list[float], sign: float, at: float) -> None:
    scores = sign * np.cumsum([0.0, *steps])
    doses = np.linspace(0.0, 2.0, len(scores))
    own = curve(scores, 0.0, error=1e-3, doses=doses)
    position = int(at * 1000)
    read = curve(scores, own.fitted[position], error=1e-3, doses=doses)
    low, high = read.interval(0.95, math.inf)
    assert read.dose == pytest.approx(own.grid[position], abs=1e-6)
    assert low <= read.dose <= high
    score = own.fitted[position] + sign * 0.01
    worse = curve(scores, score, error=1e-3, doses=doses)
    beyond = sign * score > sign * own.fitted[-1]  # of the largest dose
    assert math.isnan(worse.dose) if beyond else worse.dose >= read.dose


# ---- damages


@given(d=st.integers(1, 40), share=st.floats(0.0, 1.0), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_samples_off_the_support_are_beyond_any_ball_of_the_others(d: int, share: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(80, d)) * np.geomspace(1, 0.1, d)
    y = off_support(x, share, np.random.default_rng(seed))
    replaced = (x != y).any(axis=1)
    assert abs(replaced.sum() - 80 * share) < 1.0
    more = off_support(x, min(1.0, share + 0.2), np.random.default_rng(seed))
    np.testing.assert_array_equal(more[replaced], y[replaced])
    to_center = np.linalg.norm(x - x.mean(axis=0), axis=1)
    central = x[to_center <= 2.0 * to_center.mean()]
    if replaced.any():
        distances = np.linalg.norm(y[replaced, None] - central, axis=2)
        widest = np.linalg.norm(central[:, None] - central, axis=2).max()
        assert distances.min() >= widest * (1.0 - 1e-12)
        np.testing.assert_allclose(np.linalg.norm(y[replaced] - x.mean(axis=0), axis=1), 6.0 * to_center.mean())


@given(share=st.floats(0.0, 0.95), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_missing_mass_is_whole_neighbourhoods(share: float, seed: int) -> None:
    """On a line, the tenths of the samples nearest to a sample are intervals: the rest has few gaps."""
    x = np.random.default_rng(seed).permutation(100.0 * np.arange(60))[:, None]
    left = missing_mass(x, share, np.random.default_rng(seed))
    assert len(left) == 60 - round(share * 60)
    gaps = np.count_nonzero(np.diff(np.sort(left.ravel())) > 100.0)
    assert gaps <= math.ceil(round(share * 60) / 6)
    less = missing_mass(x, max(0.0, share - 0.2), np.random.default_rng(seed))
    assert set(left.ravel()) <= set(less.ravel())
    np.testing.assert_array_equal(left, x[np.isin(x, left).ravel()])


def test_copies_are_of_twenty_samples() -> None:
    x = np.arange(400.0)[:, None]
    values, counts = np.unique(copies(x, 0.5, np.random.default_rng(0)), return_counts=True)
    assert np.count_nonzero(counts > 1) == 20
    assert len(values) == 220  # half of the samples, and the originals, which are not among them


def test_the_number_that_is_replaced_is_right_in_the_mean() -> None:
    x = np.arange(11.0)[:, None]
    n_replaced = [(off_support(x, 0.3, np.random.default_rng(seed)) != x).sum() for seed in range(400)]
    assert set(n_replaced) == {3, 4}
    assert abs(np.mean(n_replaced) - 3.3) < 4 * 0.46 / 20  # four standard errors


def test_noise_has_one_unit_for_all_groups() -> None:
    data = two_groups(110, 0)
    variances = [data["real"][data["real_sensitive_features"] == group].var(axis=0).mean() for group in "fm"]
    spread = math.sqrt(np.mean(variances))
    assert variances[1] > 1.1 * variances[0]
    evaluated = frame(data, "fid")
    named = evaluated.dose_response("noise", n_splits=1)
    own = Damage(function=functools.partial(noise, spread=spread), doses=named.settings["damages"]["noise"]["doses"])
    pd.testing.assert_frame_equal(named.curves, evaluated.dose_response({"noise": own}, n_splits=1).curves)


# ---- the mechanism


class Recorder:
    """A metric of numbered rows that keeps which rows it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def __call__(self, real: Any, fake: Any) -> float:
        self.calls.append((real[:, 0], fake[:, 0]))
        return float(real.mean() - fake.mean())


def test_all_doses_and_the_model_have_the_same_sets() -> None:
    n, doses = 104, (0.0, 0.1, 0.5)
    real = np.arange(2.0 * n)[:, None]
    metric = Recorder()
    groups = ["f", "m"] * n
    data = {"real": real, "fake": 1000.0 + real, "real_sensitive_features": groups, "fake_sensitive_features": groups}
    evaluated = frame(data, metric)
    metric.calls.clear()

    states: dict[bytes, set[float]] = {}

    def raise_rows(features: Any, dose: float, rng: np.random.Generator) -> Any:
        assert dose > 0.0
        states.setdefault(features.tobytes(), set()).add(rng.random())
        return features + 10_000 * dose

    evaluated.dose_response(Damage(function=raise_rows, doses=doses), n_splits=2)
    assert len(states) == 8  # two halves, two splits, two groups
    assert {len(draws) for draws in states.values()} == {1}
    whole = [call for call in metric.calls if len(call[0]) == 52]  # the others are for the errors
    per_split = 2 + 2 * len(doses)
    assert len(whole) == 4 * per_split
    for start in range(0, 4 * per_split, per_split):
        (a, c), (b, d), *rest = whole[start : start + per_split]
        assert [len(one) for one in (a, b, c, d)] == [52] * 4
        assert not set(a) & set(b)
        assert not set(c) & set(d)
        for k, dose in enumerate(doses):
            for (x, y), known, other in zip(rest[2 * k : 2 * k + 2], (a, b), (b, a), strict=True):
                np.testing.assert_array_equal(x, known)
                np.testing.assert_allclose(y, other + 10_000 * dose)


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_a_damage_that_leaves_fewer_samples_cuts_all_sets() -> None:
    rng = np.random.default_rng(1)
    metric = Recorder()
    groups = ["f"] * 140 + ["m"] * 280
    data = {"real": rng.normal(size=(420, 1)), "fake": rng.normal(size=(420, 1))}
    evaluated = frame({**data, "real_sensitive_features": groups, "fake_sensitive_features": groups}, metric)
    metric.calls.clear()
    halved = Damage(function=lambda x, dose, rng: x[: round(len(x) * (1 - dose))], doses=(0, 0.1, 0.2))
    response = evaluated.dose_response({"halved": halved}, n_splits=1)
    scored = [(len(x), len(y)) for x, y in metric.calls]
    assert scored.count((70, 56)) == 8 + 16  # one split of f, two of m; the other calls are for the errors
    assert max(scored) == (70, 56)
    assert response.model.loc["halved"].notna().all().all()


def test_a_damage_that_the_metric_reads_off_gives_the_excess_over_other_real_samples() -> None:
    """If damage t adds t to a score, the dose is the excess, with its interval and test."""
    data = damaged(two_groups(120, 3), shift, {"f": 0.4, "m": 1.0}, 3)
    evaluated = frame(data, mean_shift)
    response = evaluated.dose_response({"shift": Damage(function=shift, doses=(0, 0.5, 1, 2))})
    baseline = evaluated.baseline()
    np.testing.assert_allclose(response.doses.loc["shift"], baseline.excess, atol=1e-9)
    np.testing.assert_allclose(response.agreement["dose"], baseline.excess["mean_shift"], atol=2e-3)
    found, known = response.interval(0.9, "shift"), baseline.interval(0.9)
    width = known.by_group["high"] - known.by_group["low"]
    np.testing.assert_allclose(found.by_group["high"] - found.by_group["low"], width, rtol=0.2)
    np.testing.assert_allclose(found.disparities["value"], known.disparities["value"], atol=1e-9)
    np.testing.assert_allclose(found.disparities["low"], known.disparities["low"], rtol=0.3)
    assert response.explanation == "shift"


def test_nothing_depends_on_names_and_order() -> None:
    data = two_groups(110, 4)
    orders = np.random.default_rng(2).permuted([np.arange(220)] * 2, axis=1)
    mixed = {
        f"{side}{what}": np.where(values == "f", "z", "a") if what else values
        for side, order in zip(("real", "fake"), orders, strict=True)
        for what in ("", "_sensitive_features")
        for values in [data[f"{side}{what}"][order]]
    }
    found, again = (frame(one, "fid").dose_response("noise", n_splits=2) for one in (data, mixed))
    np.testing.assert_allclose(found.doses.loc["noise"], again.doses.loc["noise"].loc[["z", "a"]], rtol=1e-6)
    columns = ["dose", "misfit"]
    np.testing.assert_allclose(
        found.agreement.loc["noise"][columns], again.agreement.loc["noise"].loc[["z", "a"], columns], rtol=1e-6
    )


def test_a_damage_of_raw_samples_gets_those_of_the_rows() -> None:
    """Raw samples that are the features themselves: both damages do the same, also where the frame has fewer rows."""
    data = two_groups(130, 5)
    samples = GroupedSamples(**data).take(np.arange(10, 260), np.arange(260))
    evaluated = GenerativeMetricFrame(metrics="fid", samples=samples, random_state=0)
    doses = (0.0, 0.2, 0.4)
    found = evaluated.dose_response(
        {
            "features": Damage(function=noise, doses=doses),
            "raw": Damage(function=noise, doses=doses, samples=data["real"]),
            "list": Damage(function=lambda x, *rest: noise(np.array(x), *rest), doses=doses, samples=[*data["real"]]),
        },
        n_splits=2,
    )
    for name in ("raw", "list"):
        pd.testing.assert_frame_equal(found.curves.loc[name], found.curves.loc["features"])


# ---- what it says


def test_equal_damage_of_unlike_groups_is_called_equal() -> None:
    """Of 14 models with the same noise on both groups: at 5 %, more than 4 rejections have a probability of 0.04 %.

    An interval that holds 95 % of the time misses more than 4 of 14 as rarely. The raw scores are called unequal.
    """
    raw, rejected, held, explained = [], [], [], []
    for seed in range(14):
        data = damaged(two_groups(120, 100 + seed), lambda x, dose, rng: x + rng.normal(size=x.shape) * dose,
                       {"f": 0.5, "m": 0.5}, seed)  # fmt: skip
        evaluated = frame(data, {"ipr": IPR, "fid": frechet_distance}, n_threads=1)
        own = Damage(function=functools.partial(noise, spread=1.0), doses=(0, 0.25, 0.5, 0.75, 1))
        response = evaluated.dose_response({"noise": own}, n_splits=2)
        keys = [("ipr", "delta_p"), ("fid", "delta_fid")]
        raw.append([evaluated.test()["p_value"][key] <= 0.05 for key in keys])
        rejected.append([response.test("noise")["p_value"][key] <= 0.05 for key in keys])
        intervals = response.interval(damage="noise").by_group.loc[["ipr_precision", "fid"]]
        held.append(((intervals["low"] <= 0.5) & (intervals["high"] >= 0.5)).to_numpy())
        explained.append(response.explanation == "noise")
    assert np.mean(raw, axis=0).max() > 0.9
    assert (np.sum(rejected, axis=0) <= 4).all()
    assert (np.sum(held, axis=0) >= 10).all()
    assert np.sum(explained) >= 10


def test_unequal_damage_is_found_and_named() -> None:
    data = damaged(two_groups(240, 6), off_support, {"f": 0.05, "m": 0.4}, 6)
    response = frame(data, {"ipr": IPR, "fid": frechet_distance}, n_threads=1).dose_response("off_support,copies")
    assert response.explanation == "off_support"
    np.testing.assert_allclose(response.doses.loc["off_support", "ipr_precision"], [0.05, 0.4], atol=0.06)
    tests = response.test()
    assert tests.loc[("ipr", "delta_p"), "p_value"] < 0.01
    assert tests["primary"].to_dict()["ipr", "delta_p"]
    disparities = response.disparities()
    assert disparities.loc[("ipr", "delta_p"), ["larger", "smaller"]].tolist() == ["m", "f"]
    assert disparities.loc[("ipr", "delta_p"), "value"] == pytest.approx(0.35, abs=0.08)
    assert (response.agreement.loc["copies", "p_value"] < 1e-3).any()
    assert response.agreement.loc["copies", "low"].isna().any()
    assert "share of the samples off the data were" in response.summary()
    assert "% for m" in repr(response)
    assert "<table" in response._repr_html_()


def test_no_known_damage_explains_a_generator_that_is_shifted() -> None:
    data = damaged(two_groups(200, 7), lambda x, dose, rng: 0.5 * x, {"f": 1.0, "m": 1.0}, 7)  # shrunk to the centre
    response = frame(data, {"ipr": IPR, "fid": frechet_distance}, n_threads=1).dose_response("off_support,noise")
    assert response.explanation is None
    assert response.summary() == "no known damage explains the scores (off_support, noise were tried)"
    with pytest.raises(
        ValueError, match=r"no known damage explains the scores .*; see agreement, and pass damage='off"
    ):
        response.test()
    assert set(response.test("noise").index.get_level_values("metric")) == {"ipr", "fid"}


def test_the_figure_shows_what_is_read() -> None:
    data = damaged(two_groups(120, 8), off_support, {"f": 0.1, "m": 0.3}, 8)
    response = frame(data, {"ipr": IPR}, n_threads=1).dose_response("off_support", n_splits=1)
    ax = response.plot("ipr_precision", "off_support")
    marks = [line for line in ax.get_lines() if line.get_markersize() == 8]
    expected = response.doses.loc["off_support", "ipr_precision"]
    np.testing.assert_allclose([100 * value for value in expected], [float(mark.get_xdata()[0]) for mark in marks])  # type: ignore[index, arg-type]
    assert ax.get_xlabel() == "share of the samples off the data (%)"
    assert ax.get_ylabel() == "precision (%)"
    with pytest.raises(ValueError, match="score='fid' is not a column of doses; choose one of ipr_precision"):
        response.plot("fid", "off_support")


def test_several_features_missing_groups_and_json() -> None:
    rng = np.random.default_rng(9)
    labels = {"sex": ["f", "m"] * 220, "age": ["old"] * 220 + ["young"] * 220}
    fakes = {"sex": labels["sex"], "age": ["old"] * 219 + ["other"] + ["young"] * 220}
    data = {"real_sensitive_features": labels, "fake_sensitive_features": fakes}
    evaluated = frame({"real": rng.normal(size=(440, 2)), "fake": rng.normal(size=(440, 2)), **data}, "fid",
                      missing_groups="nan")  # fmt: skip
    response = evaluated.dose_response("noise", n_splits=1)
    assert response.doses.loc["noise"]["fid"].isna().to_dict()["m", "other"]
    assert response.curves.index.names == ["damage", "sex", "age", "dose"]
    intervals = response.interval(damage="noise")
    assert (intervals.by_group.loc[("fid", "f", "old"), ["low", "high"]] >= 0).all()
    content = json.loads(json.dumps(response.to_dict(), allow_nan=False))
    assert content["doses"]["noise"]["sex=m, age=other"] == {"fid": None}
    assert len(content["curves"]["noise"]["sex=f, age=old"]["fid"]) == 8
    assert content["settings"]["damages"]["noise"]["doses"][0] == 0.0


def test_single_precision_is_kept() -> None:
    """float64 results of a damage become float32, so that the parts of both sets have one type."""
    data = two_groups(110, 4)
    single = data | {side: data[side].astype(np.float32) for side in ("real", "fake")}
    seen = set()

    def spread(real: Any, fake: Any) -> float:
        seen.add((real.dtype.name, fake.dtype.name))
        return float(fake.std())

    response = frame(single, {"spread": spread, "ipr": IPR}).dose_response("off_support", n_splits=2)
    assert seen == {("float32", "float32")}
    assert response.interval().by_group["low"].notna().all()


def test_a_metric_that_refuses_the_smaller_sets_leaves_the_others() -> None:
    def of_many(real: Any, fake: Any) -> float:
        if len(real) < 60:
            raise ValueError(f"{len(real)} rows are too few")
        return mean_shift(real, fake)

    data = two_groups(110, seed=9)
    evaluated = frame(data, {"many": of_many, "fid": frechet_distance})
    options: Any = {"damages": {"shift": Damage(function=shift, doses=(0.0, 0.5, 1.0))}, "n_splits": 1}
    with pytest.warns(MissingScoreWarning, match="no dose for group 'f', group 'm': .* 55 rows are too few"):
        response = evaluated.dose_response(**options)
    assert list(response.doses.columns) == ["fid"]
    with pytest.raises(ValueError, match="55 rows are too few"):
        frame(data, {"many": of_many, "fid": frechet_distance}, strict=True).dose_response(**options)
    with pytest.raises(ValueError, match="55 rows are too few"):
        frame(data, of_many).dose_response(**options)


def test_refusals() -> None:
    data = two_groups(60, 10)
    evaluated = frame(data, "fid")
    refused: list[tuple[Any, type[Exception], str]] = [
        ("blur", ValueError, "damage 'blur' is unknown; choose from off_support, missing_mass, copies, noise"),
        ([], ValueError, "damages is empty"),
        (noise, TypeError, r"damages\['noise'\] is function, expected a Damage; pass Damage\(function="),
        ("noise", ValueError, "sets of 30 samples are compared, and the error of a dose needs at least 50; add"),
        (Damage(function=noise, doses=(0, 1, 2), samples=["a"]), ValueError, "has 1 samples, but the frame has 120"),
        (
            Damage(function=lambda x, dose, rng: x[:, :2], doses=(0, 1, 2)),
            ValueError,
            r"returned for dose 1 has shape \(30, 2\), expected at most 30 rows of 6 features; return features of",
        ),
    ]
    for damages, error, message in refused:
        with pytest.raises(error, match=message):
            evaluated.dose_response(damages)
    for doses, share in (((0, 1), False), ((0.1, 0.2, 0.3), False), ((0, 0.2, 0.1), False), ((0, 0.5, 1.5), True)):
        with pytest.raises(ValueError, match=r"does not increase from 0.* in three steps or more; pass such numbers"):
            Damage(function=noise, doses=doses, share=share)
    with pytest.raises(ValueError, match="a dose needs the samples"):
        GenerativeMetricFrame.from_json(evaluated.to_json()).dose_response()
