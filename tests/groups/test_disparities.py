"""Disparities: the paper's printed tables, brute force over pairs, closed forms and laws."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egtmetrics.groups import (
    GenerativeMetricFrame,
    PairDifference,
    delta_fid,
    delta_p,
    delta_p_plus_delta_r,
    delta_pr,
    delta_r,
    disparities_from_scores,
    ego,
    egt,
    max_pairwise_difference,
    mgo,
)
from egtmetrics.groups.disparity import EGO, MGO, score_table
from egtmetrics.metrics.frechet import frechet_distance
from egtmetrics.metrics.prdc import precision_recall_density_coverage
from egtmetrics.metrics.topp_pr import topp_precision_recall
from egtmetrics.results import Direction, MetricResult, Score, score
from tests.strategies import GroupedSamples, group_labels, grouped_samples, score_tables

PRINTED = pd.read_csv(Path(__file__).parents[1] / "golden" / "paper_tables_7_8.csv")
ROWS: list[Any] = list(PRINTED.itertuples())
PRDC = functools.partial(precision_recall_density_coverage, n_neighbors=1)
LAW = settings(max_examples=30, deadline=None)
DELTA_PR_RULE = {7: "delta_pr", 8: "delta_p_plus_delta_r"}
"""Which of the two meanings of delta-PR a table of the paper prints."""


def printed_scores(row: Any) -> pd.DataFrame:
    scores = {
        "precision": [row.precision_male, row.precision_female],
        "recall": [row.recall_male, row.recall_female],
    }
    if row.table == 7:
        scores["fid"] = [row.fid_male, row.fid_female]
    return pd.DataFrame(scores, index=pd.Index(["male", "female"]))


def exceeds(value: float, printed: Any, tolerance: float) -> bool:
    """Return whether numbers with two decimals differ by more than the tolerance, whatever the float rounding."""
    return bool(round(abs(value - printed), 6) > tolerance)


class TestPaperTables:
    def test_every_row_is_there(self) -> None:
        assert PRINTED["table"].value_counts().to_dict() == {7: 16, 8: 16}

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: f"table{row.table}-row{row.Index}")
    def test_printed_deltas_follow_from_printed_scores(self, row: Any) -> None:
        values = {name: pair.value for name, pair in disparities_from_scores(printed_scores(row)).items()}
        tolerance = {7: 0.1, 8: 0.015}[row.table]
        assert not exceeds(values["delta_p"], row.delta_p, tolerance)
        assert not exceeds(values["delta_r"], row.delta_r, tolerance)
        # Four scores and the result, each rounded to 0.01, add an error of up to 5 * 0.005. Table 7 stays within 0.1.
        assert not exceeds(values[DELTA_PR_RULE[row.table]], row.delta_pr, {7: 0.1, 8: 0.025}[row.table])
        if row.table == 7:
            assert not exceeds(values["delta_fid"], row.delta_fid, 0.015)  # three numbers rounded to 0.01

    @pytest.mark.parametrize("table", [7, 8])
    def test_the_rule_of_the_other_table_does_not_fit(self, table: int) -> None:
        other = DELTA_PR_RULE[15 - table]
        rows = [row for row in ROWS if row.table == table]
        misfits = [exceeds(disparities_from_scores(printed_scores(r))[other].value, r.delta_pr, 1.0) for r in rows]
        assert sum(misfits) > len(rows) / 2

    def test_definition_4_1_reorders_table_8(self) -> None:
        expected = {
            "LLaMA-3.2-Chat 1B": [9.72, 11.26, 12.08, 11.83],
            "LLaMA-3.2-Chat 3B": [10.31, 12.03, 10.59, 9.40],
            "Gemma-3 4B (pt)": [8.77, 12.09, 7.97, 7.47],
            "Gemma-3 4B (it)": [15.80, 15.76, 14.72, 15.36],
        }
        table = PRINTED[PRINTED["table"] == 8]
        reordered = set()
        for model, rows in table.groupby("model"):
            assert rows["method"].tolist() == ["pretrained", "conditional", "reweighted", "min-max"]
            tables = [printed_scores(row) for row in rows.itertuples()]
            by_definition = [disparities_from_scores(scores)["delta_pr"].value for scores in tables]
            np.testing.assert_allclose(by_definition, expected[str(model)], rtol=0, atol=1e-9)
            if np.argsort(by_definition).tolist() != np.argsort(rows["delta_pr"]).tolist():
                reordered.add(model)
        assert reordered == set(expected) - {"Gemma-3 4B (pt)"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenScores(MetricResult):
    precision: float = score(label="precision")
    recall: float = score(label="recall")


def read_scores(real: Any, fake: Any) -> WrittenScores:
    """Return the first two features as precision and recall."""
    return WrittenScores(precision=real[0, 0], recall=real[0, 1], backend="numpy", n_real=len(real), n_fake=len(fake))


@pytest.mark.parametrize("table", [7, 8])
def test_scalar_functions_give_the_printed_deltas(table: int) -> None:
    for row in (row for row in ROWS if row.table == table):
        features = np.repeat(printed_scores(row)[["precision", "recall"]].to_numpy(), 3, axis=0)
        labels = ["male"] * 3 + ["female"] * 3
        options: dict[str, Any] = {
            "real_sensitive_features": labels,
            "fake_sensitive_features": labels,
            "metric": read_scores,
        }
        tolerance = {7: 0.1, 8: 0.015}[table]
        assert not exceeds(delta_p(features, features, **options), row.delta_p, tolerance)
        assert not exceeds(delta_r(features, features, **options), row.delta_r, tolerance)
        function = {7: delta_pr, 8: delta_p_plus_delta_r}[table]
        assert not exceeds(function(features, features, **options), row.delta_pr, {7: 0.1, 8: 0.025}[table])


class TestMaxPairwiseDifference:
    @LAW
    @given(score_tables())
    def test_is_the_maximum_over_all_pairs(self, scores: pd.DataFrame) -> None:
        by_group = scores["precision"].to_dict()
        found = max_pairwise_difference(by_group)
        assert found.value == max(abs(a - b) for a, b in itertools.combinations(by_group.values(), 2))
        if found.value > 0:
            assert by_group[found.larger] - by_group[found.smaller] == found.value
        else:
            assert found.larger is None
            assert found.smaller is None

    def test_nan_is_not_hidden_by_the_other_groups(self) -> None:
        found = max_pairwise_difference({"a": 0.1, "b": math.nan, "c": 0.9})
        assert math.isnan(found.value)
        assert (found.larger, found.smaller) == (None, None)

    def test_infinite_scores(self) -> None:
        assert max_pairwise_difference({"a": math.inf, "b": 1.0}) == PairDifference(
            value=math.inf, larger="a", smaller="b"
        )
        assert math.isnan(max_pairwise_difference({"a": math.inf, "b": math.inf}).value)

    @pytest.mark.parametrize("scores", [{}, {"a": 1.0}])
    def test_needs_two_groups(self, scores: dict[Any, float]) -> None:
        with pytest.raises(ValueError, match=r"scores has \d groups, but a difference needs two"):
            max_pairwise_difference(scores)


class TestDisparitiesFromScores:
    @LAW
    @given(score_tables())
    def test_formulas_by_brute_force(self, scores: pd.DataFrame) -> None:
        found = {name: pair.value for name, pair in disparities_from_scores(scores).items()}
        pairs = list(itertools.combinations(scores.index, 2))
        p, r, fid = scores["precision"], scores["recall"], scores["fid"]
        assert set(found) == {"delta_p", "delta_r", "delta_pr", "delta_p_plus_delta_r", "delta_fid"}
        assert found["delta_p"] == max(abs(p[a] - p[b]) for a, b in pairs)
        assert found["delta_r"] == max(abs(r[a] - r[b]) for a, b in pairs)
        assert found["delta_pr"] == max(abs((p[a] + r[a]) - (p[b] + r[b])) for a, b in pairs)
        assert found["delta_p_plus_delta_r"] == found["delta_p"] + found["delta_r"]
        assert found["delta_fid"] == max(abs(fid[a] - fid[b]) for a, b in pairs)

    @LAW
    @given(score_tables())
    def test_definition_4_1_is_never_the_larger_of_the_two_meanings(self, scores: pd.DataFrame) -> None:
        found = disparities_from_scores(scores)
        assert found["delta_pr"].value <= found["delta_p_plus_delta_r"].value + 1e-15  # rounding of sums below 2

    def test_precision_alone_is_an_ordinary_score(self) -> None:
        scores = pd.DataFrame({"precision": [0.5, 0.75]}, index=["a", "b"])
        assert disparities_from_scores(scores) == {
            "delta_precision": PairDifference(value=0.25, larger="b", smaller="a")
        }

    def test_refuses_two_rows_for_one_group(self) -> None:
        scores = pd.DataFrame({"fid": [1.0, 2.0, 3.0]}, index=["a", "a", "b"])
        with pytest.raises(ValueError, match=r"two rows for one group.* 'a', 'a', 'b'; pass one row per group"):
            disparities_from_scores(scores)


class TestWorse:
    """Group a has precision 0.9 and recall 0.2, group b 0.3 and 0.4: their sums are 1.1 and 0.7."""

    SCORES = pd.DataFrame({"precision": [0.9, 0.3], "recall": [0.2, 0.4]}, index=["a", "b"])

    def worse(self, precision: Direction, recall: Direction) -> dict[str, Any]:
        described = {
            "precision": Score(label="precision", better=precision, percent=True),
            "recall": Score(label="recall", better=recall, percent=True),
        }
        table = score_table("m", self.SCORES, described)
        return {one.name: one.worse(self.SCORES, one.of(self.SCORES)) for one in table.disparities}

    @pytest.mark.parametrize(
        ("precision", "recall", "expected"),
        [
            ("higher", "higher", ["b", "a", "b"]),
            ("lower", "lower", ["a", "b", "a"]),
            ("higher", "lower", ["b", "b", None]),  # without a common direction no sum is better
            ("higher", None, ["b", None, None]),
            ("higher", 0.1, ["b", "b", None]),
            (0.2, 0.2, ["a", "b", None]),
        ],
    )
    def test_follows_the_direction(self, precision: Direction, recall: Direction, expected: list[Any]) -> None:
        found = self.worse(precision, recall)
        assert [found[name] for name in ("delta_p", "delta_r", "delta_pr")] == expected
        assert found["delta_p_plus_delta_r"] is None  # its two parts may be attained by different groups

    def test_equal_groups(self) -> None:
        equal = pd.DataFrame({"fid": [2.0, 2.0]}, index=["a", "b"])
        (fid,) = score_table("m", equal, {"fid": Score(label="FID", better="lower")}).disparities
        assert fid.worse(equal, fid.of(equal)) is None

    def test_no_proportion_is_better(self) -> None:
        table = pd.DataFrame({"real_proportion": [0.5, 0.5], "fake_proportion": [0.7, 0.3]}, index=["a", "b"])
        assert [one.worse(table, one.of(table)) for one in (MGO, EGO)] == [None, None]

    def test_a_sum_is_printed_as_its_parts_only_if_they_agree(self) -> None:
        def of_sum(**recall: Any) -> Score:
            described = {"precision": Score(label="precision", percent=True), "recall": Score(label="recall", **recall)}
            return next(
                one.score for one in score_table("m", self.SCORES, described).disparities if one.name == "delta_pr"
            )

        assert of_sum(percent=True).difference_unit == "points"
        assert of_sum(unit="nats").difference_unit == ""


@pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")  # FID of few rows
class TestScalarFunctions:
    @pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
    @LAW
    @given(grouped_samples())
    def test_equal_those_of_the_frame(self, data: GroupedSamples) -> None:
        labels: dict[str, Any] = {
            "real_sensitive_features": data.real_groups,
            "fake_sensitive_features": data.fake_groups,
        }
        frame = GenerativeMetricFrame(
            metrics={"prdc": PRDC, "fid": frechet_distance}, real=data.real, fake=data.fake, **labels
        )
        value = frame.disparities()["value"]
        for function in (delta_p, delta_r, delta_pr, delta_p_plus_delta_r):
            assert function(data.real, data.fake, metric=PRDC, **labels) == value["prdc", function.__name__]
        assert egt(data.real, data.fake, metric=PRDC, score="density", **labels) == value["prdc", "delta_density"]
        assert delta_fid(data.real, data.fake, **labels) == value["fid", "delta_fid"]
        assert mgo(data.real_groups, data.fake_groups) == value["proportions", "mgo"]
        assert ego(data.real_groups, data.fake_groups) == value["proportions", "ego"]

    def test_default_metric_is_topp_pr_with_the_given_seed(self) -> None:
        rng = np.random.default_rng(0)
        real, fake = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
        fake[:30] *= 0.3
        labels = ["f"] * 30 + ["m"] * 30
        halves = (slice(0, 30), slice(30, 60))
        first, second = (topp_precision_recall(real[rows], fake[rows], random_state=3) for rows in halves)
        options: dict[str, Any] = {
            "real_sensitive_features": labels,
            "fake_sensitive_features": labels,
            "random_state": 3,
        }
        assert delta_p(real, fake, **options) == abs(first.precision - second.precision)
        assert delta_r(real, fake, **options) == abs(first.recall - second.recall)
        assert first.recall != second.recall

    def test_delta_fid_of_shifted_gaussians(self) -> None:
        x = np.random.default_rng(1).normal(size=(50, 3))
        real, labels = np.concatenate([x, x]), ["f"] * 50 + ["m"] * 50
        shifts = np.array([[3.0, 0.0, 0.0], [0.0, 1.0, 1.0]])  # a pure shift costs its squared length
        fake = np.concatenate([x + shift for shift in shifts])
        result = delta_fid(real, fake, real_sensitive_features=labels, fake_sensitive_features=labels)
        assert result == pytest.approx(9.0 - 2.0, abs=1e-9)

    def test_metric_without_the_score(self) -> None:
        data: dict[str, Any] = {
            "real_sensitive_features": ["f", "f", "m", "m"],
            "fake_sensitive_features": ["f", "f", "m", "m"],
        }
        x = np.arange(4.0)[:, None]
        with pytest.raises(ValueError, match=r"the scores \['fid'\], but delta_pr needs precision and recall"):
            delta_pr(x, x, metric=frechet_distance, **data)
        with pytest.raises(ValueError, match=r"score='precision' is not one of the metric's scores \['fid'\]"):
            delta_p(x, x, metric=frechet_distance, **data)
        with pytest.raises(ValueError, match=r"'density', 'coverage'\]; choose one, for example score='precision'"):
            egt(x, x, metric=PRDC, **data)

    def test_refuse_a_single_group(self) -> None:
        x = np.arange(4.0)[:, None]
        with pytest.raises(ValueError, match="only one group, 'f', but a disparity needs at least two"):
            delta_fid(x, x, real_sensitive_features=["f"] * 4, fake_sensitive_features=["f"] * 4)


class TestProportions:
    def test_closed_form(self) -> None:
        real, fake = ["a"] * 4 + ["b"] * 4 + ["c"] * 2, ["a"] * 7 + ["b"] * 2 + ["c"]
        assert mgo(real, fake) == pytest.approx(0.7 - 0.4)
        assert ego(real, fake) == pytest.approx(0.7 - 0.1)

    def test_equal_proportions_are_exactly_zero(self) -> None:
        assert mgo(["a"] * 3 + ["b"] * 9 + ["c"] * 6, ["a"] * 1 + ["b"] * 3 + ["c"] * 2) == 0.0
        assert ego(["a", "b", "c", "c"], ["a", "b", "c"] * 7) == 0.0

    def test_a_group_that_is_never_generated_has_proportion_zero(self) -> None:
        assert mgo(["a", "a", "b", "b"], ["a", "a", "a"]) == 0.5
        assert ego(["a", "a", "b", "b"], ["a", "a", "a"]) == 1.0
        assert ego(["a", "b", "c", "c"], ["a", "a", "b", "b"]) == 0.5

    def test_unassigned_samples_are_left_out_of_the_proportions(self) -> None:
        assert mgo(["a", "a", "b", None], ["a", "b", "b", float("nan"), None]) == pytest.approx(1 / 3)
        assert ego(["a", "b", "b"], ["a", "b", "b", None, None]) == pytest.approx(1 / 3)

    def test_intersections(self) -> None:
        real = {"gender": ["f", "f", "m", "m"], "age": ["old", "young", "old", "old"]}
        fake = pd.DataFrame({"age": ["old", "old", "young", "old"], "gender": ["f", "m", "m", "m"]})
        # (f, old) 1 1, (f, young) 1 0, (m, old) 2 2, (m, young) 0 1 of 4
        assert mgo(real, fake) == 0.25
        assert ego(real, fake) == 0.5

    @pytest.mark.parametrize("function", [mgo, ego])
    def test_refuse_a_single_group(self, function: Any) -> None:
        labels = {"real_sensitive_features": ["a", "a"], "fake_sensitive_features": ["a", "a"]}
        with pytest.raises(ValueError, match="only one group, 'a', but a disparity needs at least two"):
            function(**labels)

    @LAW
    @given(group_labels(), group_labels())
    def test_definitions_and_bounds(self, real: list[str], fake: list[str]) -> None:
        groups = {*real, *fake}
        p, q = ({label: side.count(label) / len(side) for label in groups} for side in (real, fake))
        assert mgo(real, fake) == max(abs(q[a] - p[a]) for a in groups)
        assert ego(real, fake) == max(abs(q[a] - q[b]) for a in groups for b in groups)
        assert mgo(real, fake) <= sum(abs(q[a] - p[a]) for a in groups) / 2 + 1e-12  # the total variation
        balanced = sorted(groups) * 2
        assert ego(balanced, fake) <= 2 * mgo(balanced, fake) + 1e-12

    @LAW
    @given(group_labels(), group_labels(), st.permutations("abcd"))
    def test_do_not_depend_on_names(self, real: list[str], fake: list[str], names: list[str]) -> None:
        renamed_real, renamed_fake = ([names["abcd".index(label)] for label in side] for side in (real, fake))
        assert mgo(renamed_real, renamed_fake) == mgo(real, fake)
        assert ego(renamed_real, renamed_fake) == ego(real, fake)
