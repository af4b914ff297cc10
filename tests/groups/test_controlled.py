"""Groups compared within strata: averages with stated weights, their variances, and what is left out.

Statistical tests have fixed seeds, and say how likely a correct program is to fail them, over all seeds.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from egtmetrics import GenerativeMetricFrame, frechet_distance
from egtmetrics.groups import MissingScoreWarning
from egtmetrics.groups.inference import normal_quantile
from egtmetrics.report import render
from egtmetrics.samples import GroupedSamples

SIZES = {("a", "face"): 120, ("a", "street"): 80, ("b", "face"): 80, ("b", "street"): 120}


def data(rng: np.random.Generator, sizes: dict[tuple[str, str], int] = SIZES, **others: Any) -> dict[str, Any]:
    """The model is as bad for both groups, but worse for streets than for faces."""
    groups, strata = (np.repeat([cell[i] for cell in sizes], list(sizes.values())) for i in range(2))
    real, fake = rng.normal(size=(2, len(groups), 2))
    return {
        "real": real,
        "fake": fake + 2.0 * (strata == "street")[:, None],
        "real_sensitive_features": groups,
        "fake_sensitive_features": groups,
        "real_control_features": {"object": strata},
        "fake_control_features": {"object": strata},
        **others,
    }


def cell(given: dict[str, Any], group: str, stratum: str) -> tuple[NDArray[Any], NDArray[Any]]:
    chosen = (given["real_sensitive_features"] == group) & (given["real_control_features"]["object"] == stratum)
    return given["real"][chosen], given["fake"][chosen]


@pytest.mark.parametrize("weights", [None, {"face": 3.0, "street": 1.0}])
def test_averages_are_those_of_the_strata_with_the_weights(weights: dict[str, float] | None) -> None:
    given = data(np.random.default_rng(0), {**SIZES, ("a", "face"): 160})
    found = GenerativeMetricFrame(metrics="fid", random_state=0, **given).controlled(weights)
    shares = {"face": 240 / 440, "street": 200 / 440} if weights is None else {"face": 0.75, "street": 0.25}
    assert found.strata["weight"].to_dict() == pytest.approx(shares)
    assert found.strata[["n_real", "n_fake"]].to_numpy().tolist() == [[240, 240], [200, 200]]
    for group in "ab":
        scores = {stratum: frechet_distance(*cell(given, group, stratum)).fid for stratum in shares}
        assert found.by_group.loc[group, "fid"] == pytest.approx(sum(shares[one] * scores[one] for one in shares))
        assert {stratum: found.by_stratum.loc[(stratum, group), "fid"] for stratum in shares} == pytest.approx(scores)
    assert found.by_stratum.index.names == ["object", "group"]
    gap = abs(found.by_group.loc["a", "fid"] - found.by_group.loc["b", "fid"])
    assert found.disparities().loc[("fid", "delta_fid"), "value"] == pytest.approx(gap)
    saved = json.loads(json.dumps(found.to_dict(0.9), allow_nan=False))
    assert saved["by_stratum"]["street"]["b"]["fid"] == pytest.approx(found.by_stratum.loc[("street", "b"), "fid"])
    assert saved["intervals"]["level"] == 0.9
    assert saved["strata"]["face"] == {"n_real": 240, "n_fake": 240, "weight": shares["face"], "left_out": ""}


def test_the_variance_of_an_average_is_the_weighted_sum_of_those_of_strata() -> None:
    given = data(np.random.default_rng(1))
    found = GenerativeMetricFrame(metrics="fid", random_state=0, **given).controlled({"face": 0.7, "street": 0.3})
    variances = {}
    for stratum, weight in (("face", 0.7), ("street", 0.3)):
        rows = given["real_control_features"]["object"] == stratum
        features = {name: given[name][rows] for name in ("real", "fake")}
        labels = {f"{side}_sensitive_features": given["real_sensitive_features"][rows] for side in ("real", "fake")}
        frame = GenerativeMetricFrame(metrics="fid", random_state=0, **features, **labels)
        variances[stratum] = weight**2 * frame.interval().variance["total"].iloc[0]
        by_group = frame.interval().by_group
        margins = (by_group["high"] - by_group["low"]).to_numpy() / 2 / normal_quantile(0.95)
        variances[f"{stratum} alone"] = weight**2 * margins**2
    interval = found.interval()
    assert interval.variance["total"].iloc[0] == pytest.approx(variances["face"] + variances["street"])
    margins = (interval.by_group["high"] - interval.by_group["low"]).to_numpy() / 2 / normal_quantile(0.95)
    # The interval of faces ends at 0, so their margin is short of its part; it is a hundredth.
    np.testing.assert_allclose(margins**2, variances["face alone"] + variances["street alone"], rtol=0.03)
    assert found.certify(9.0).outcome == "within"


def test_groups_made_of_other_things_are_not_called_unequal_for_it() -> None:
    """12 tests at 5 % reject .6 +- .8 times; of 1 seed in 450 more than 3. Without control all reject."""
    rng = np.random.default_rng(2)
    rejected = {"scores": 0, "controlled": 0}
    for seed in range(12):
        frame = GenerativeMetricFrame(metrics="fid", random_state=seed, **data(rng))
        for name, one in (("scores", frame), ("controlled", frame.controlled())):
            rejected[name] += one.test().loc[("fid", "delta_fid"), "p_value"] <= 0.05
    assert rejected["scores"] >= 10
    assert rejected["controlled"] <= 3


def test_strata_without_a_group_are_left_out_and_named() -> None:
    sizes = {**SIZES, ("a", "text"): 40, ("b", "tiny"): 1, ("a", "tiny"): 60}
    given = data(np.random.default_rng(3), sizes)
    frame = GenerativeMetricFrame(metrics="fid", random_state=0, **given)
    with pytest.warns(MissingScoreWarning, match="stratum text, tiny.*'b' is not on both sides|group b"):
        found = frame.controlled()
    assert found.strata["weight"].to_dict() == {"face": 0.5, "street": 0.5, "text": 0.0, "tiny": 0.0}
    assert found.strata.loc["text", "left_out"] == "group b is not on both sides"
    assert "has 1 row, but a covariance needs at least 2" in found.strata.loc["tiny", "left_out"]
    assert list(found.by_stratum.index.unique("object")) == ["face", "street"]
    quiet = frame.controlled({"face": 1.0, "street": 1.0, "text": 0.0, "tiny": 0.0})
    assert quiet.strata.loc["text", "left_out"] == "its weight is 0"
    strict = GenerativeMetricFrame(metrics="fid", random_state=0, strict=True, **given)
    with pytest.raises(ValueError, match="stratum 'text' is left out: group b is not on both sides"):
        strict.controlled()
    one_sided = given | {"fake_control_features": {"object": np.full(len(given["fake"]), "sky")}}
    with pytest.raises(ValueError, match="no stratum has every group on both sides: 'face' lacks a, b; name strata al"):
        GenerativeMetricFrame(metrics="fid", random_state=0, **one_sided).controlled()
    with pytest.raises(ValueError, match="stratum 'text' is left out"):
        frame.controlled({"face": 0.0, "street": 0.0, "text": 1.0, "tiny": 0.0})


def test_unequal_sizes_within_a_stratum_are_a_caveat_that_matching_removes() -> None:
    sizes = {("a", "face"): 190, ("a", "street"): 60, ("b", "face"): 60, ("b", "street"): 190}
    given = data(np.random.default_rng(4), sizes)
    frame = GenerativeMetricFrame(metrics="fid", random_state=0, **given)
    assert frame.disparities()["reliable"].iloc[0]  # 250 of each group
    doubtful = frame.controlled()
    assert not doubtful.disparities()["reliable"].iloc[0]
    assert "in 'face', the groups differ in their number of real samples" in str(doubtful.tables()["fid"].caveats["a"])
    samples = GroupedSamples(**given).matched(across_groups=True, random_state=0)
    assert samples.groups.counts()[["n_real", "n_fake"]].to_numpy().tolist() == [[120, 120]] * 2
    matched = GenerativeMetricFrame(metrics="fid", random_state=0, samples=samples).controlled()
    assert matched.disparities()["reliable"].iloc[0]
    assert matched.strata["n_real"].tolist() == [120, 120]
    few = GroupedSamples(**given).matched(at_most={("face", "a"): 3}, random_state=0)
    sizes = {("face", "a"): 3, ("face", "b"): 60, ("street", "a"): 60, ("street", "b"): 190}
    assert few.cell_sizes() == {cell: (size, size) for cell, size in sizes.items()}


def test_clusters_in_several_strata_make_averages_less_certain_and_in_several_groups_gaps_more() -> None:
    rng = np.random.default_rng(5)
    given = data(rng, dict.fromkeys(SIZES, 100))
    given["fake"] = given["fake"] + np.tile(2.0 * rng.normal(size=(100, 1)), (4, 2))
    ids = np.arange(400) % 100

    def variance(clusters: Any) -> tuple[float, float]:
        found = GenerativeMetricFrame(
            metrics=lambda real, fake: float(fake.mean() - real.mean()), random_state=0, **given, fake_clusters=clusters
        ).controlled()
        single = found.interval().by_group.iloc[0]
        return (single["high"] - single["low"]) ** 2 / 16, found.interval().variance["total"].iloc[0]

    alone, gap = variance(np.arange(400))
    in_all, gap_in_all = variance(ids)
    assert in_all > 1.5 * alone  # about twice: two strata vary alike
    assert gap_in_all < 0.6 * gap


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"face": 1.0}, "weights has no weight of 'street'"),
        ({"face": 1.0, "street": 1.0, "sky": 1.0}, "weights names 'sky'"),
        ({"face": -1.0, "street": 1.0}, "numbers of at least 0"),
        ({"face": 0.0, "street": 0.0}, "numbers of at least 0"),
    ],
)
def test_weights_that_are_none_are_refused(weights: dict[str, float], message: str) -> None:
    frame = GenerativeMetricFrame(metrics="fid", random_state=0, **data(np.random.default_rng(6)))
    with pytest.raises(ValueError, match=message):
        frame.controlled(weights)


def test_control_features_of_one_side_are_refused() -> None:
    given = data(np.random.default_rng(7))
    del given["real_control_features"]
    with pytest.raises(TypeError, match="real_control_features is missing"):
        GroupedSamples(**given)
    del given["fake_control_features"]
    with pytest.raises(ValueError, match="no strata to compare groups within"):
        GenerativeMetricFrame(metrics="fid", **given).controlled()
    with pytest.raises(ValueError, match="real_control_features has 3 labels for 400 samples"):
        GroupedSamples(**given, real_control_features=["x", "y", "x"], fake_control_features=["x", "y"] * 200)


def test_intervals_need_large_cells() -> None:
    given = data(np.random.default_rng(8), {**SIZES, ("b", "face"): 49})
    controlled = GenerativeMetricFrame(metrics="fid", random_state=0, **given).controlled()
    with pytest.raises(ValueError, match="stratum 'face': group 'b' has 49 samples on one side"):
        controlled.interval()


def test_a_control_feature_may_have_the_name_of_the_sensitive_one() -> None:
    given = data(np.random.default_rng(9))
    for side in ("real", "fake"):
        given[f"{side}_control_features"] = {"kind": given[f"{side}_control_features"]["object"]}
        given[f"{side}_sensitive_features"] = {"kind": given[f"{side}_sensitive_features"]}
    frame = GenerativeMetricFrame(metrics="fid", random_state=0, **given)
    lines = [line.split() for line in render(frame, controlled=frame.controlled()).splitlines()]
    assert ["kind", "weight", "(%)", "kind"] in [line[:4] for line in lines]
    assert ["face", "50.0", "a"] in [line[:3] for line in lines]
