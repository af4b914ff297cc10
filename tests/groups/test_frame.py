"""The frame: every cell is the metric on the rows of that group, and nothing goes missing silently."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import egtmetrics
from egtmetrics._progress import Lines
from egtmetrics.groups import (
    GenerativeMetricFrame,
    GroupSizeWarning,
    MissingScoreWarning,
    at_sample_size,
    extrapolate,
    flat_scores,
)
from egtmetrics.metrics.frechet import frechet_distance
from egtmetrics.metrics.kernel import kernel_distance
from egtmetrics.metrics.prdc import improved_precision_recall, precision_recall_density_coverage
from egtmetrics.metrics.topp_pr import topp_precision_recall
from egtmetrics.results import MetricResult, Score, score
from tests.strategies import GroupedSamples, grouped_samples

PRDC = functools.partial(precision_recall_density_coverage, n_neighbors=1)
PRDC_OF_5 = functools.partial(precision_recall_density_coverage, n_neighbors=5)
FRAME = functools.partial(GenerativeMetricFrame, random_state=0)


LAW = settings(max_examples=30, deadline=None)


def mean_gap(real: Any, fake: Any) -> float:
    return float(abs(real.mean() - fake.mean()))


def frame_of(data: GroupedSamples, metrics: Any = PRDC, **options: Any) -> GenerativeMetricFrame:
    return FRAME(
        metrics=metrics,
        real=data.real,
        fake=data.fake,
        real_sensitive_features=data.real_groups,
        fake_sensitive_features=data.fake_groups,
        **options,
    )


@pytest.fixture
def data() -> GroupedSamples:
    """Three groups of 10 real and 10 fake rows, each generated worse than the one before."""
    rng = np.random.default_rng(0)
    groups = np.tile(np.arange(3), 10)
    fake = rng.normal(size=(30, 2)) * (1.0 - 0.4 * groups[:, None])
    return GroupedSamples(rng.normal(size=(30, 2)), fake, groups, groups.copy())


def two_groups(data: GroupedSamples) -> GroupedSamples:
    """Return the same rows in two groups of 15, enough for TopP&R in two dimensions."""
    groups = np.tile(np.arange(2), 15)
    return data._replace(real_groups=groups, fake_groups=groups)


class TestCells:
    @pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
    def test_are_the_metrics_on_the_rows_of_each_group(self, data: GroupedSamples) -> None:
        topp = functools.partial(topp_precision_recall, n_bootstrap=20)
        small = two_groups(data)
        frame = frame_of(small, {"topp": topp, "prdc": PRDC, "fid": frechet_distance})
        for group in (0, 1):
            real, fake = small.real[small.real_groups == group], small.fake[small.fake_groups == group]
            expected = [
                *topp(real, fake, random_state=0).scores().values(),
                *PRDC(real, fake).scores().values(),
                frechet_distance(real, fake).fid,
            ]
            assert frame.by_group.loc[group].tolist() == expected
            assert frame.results[group]["topp"] == topp(real, fake, random_state=0)
        assert frame.overall["fid"] == frechet_distance(small.real, small.fake).fid
        assert frame.overall_results["prdc"] == PRDC(small.real, small.fake)

    def test_columns(self, data: GroupedSamples) -> None:
        frame = frame_of(data, {"fid": frechet_distance, "pr": PRDC, "gap": mean_gap})
        columns = ["fid", "pr_precision", "pr_recall", "pr_density", "pr_coverage", "gap"]
        assert frame.by_group.columns.tolist() == columns
        assert frame.overall.index.tolist() == columns
        assert frame_of(data, mean_gap).by_group.columns.tolist() == ["mean_gap"]
        assert frame_of(data, frechet_distance).by_group.columns.tolist() == ["frechet_distance"]
        assert frame_of(data, PRDC).by_group.columns[0] == "precision_recall_density_coverage_precision"

    def test_scores_of_one_metric(self, data: GroupedSamples) -> None:
        frame = frame_of(data, {"fid": frechet_distance, "pr": PRDC})
        assert frame.scores("pr").columns.tolist() == ["precision", "recall", "density", "coverage"]
        assert frame.scores("pr")["recall"].tolist() == frame.by_group["pr_recall"].tolist()
        with pytest.raises(ValueError, match=r"metric='topp' is not in this frame; choose one of fid, pr"):
            frame.scores("topp")

    def test_tensors_give_the_same_scores_as_arrays(self, data: GroupedSamples) -> None:
        torch = pytest.importorskip("torch")
        tensors = GroupedSamples(*(torch.from_numpy(array) for array in data))
        pd.testing.assert_frame_equal(frame_of(tensors).by_group, frame_of(data).by_group)

    def test_arguments_are_not_changed(self, data: GroupedSamples) -> None:
        before = [array.copy() for array in data]
        frame_of(data)
        for array, copy in zip(data, before, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_repr_shows_the_groups(self, data: GroupedSamples) -> None:
        frame = frame_of(data, mean_gap)
        assert repr(frame.by_group) in repr(frame)
        assert "in no group" not in repr(frame)


class TestUnassigned:
    def test_are_counted_and_left_out_of_the_groups_but_not_of_the_overall_scores(self, data: GroupedSamples) -> None:
        real_labels = [None if group == 2 else f"g{group}" for group in data.real_groups]
        fake_labels = ["g0", *[math.nan if group == 2 else f"g{group}" for group in data.fake_groups[1:]]]
        frame = FRAME(
            metrics={"fid": frechet_distance},
            real=data.real,
            fake=data.fake,
            real_sensitive_features=real_labels,
            fake_sensitive_features=fake_labels,
        )
        assert frame.unassigned == {"real": 10, "fake": 10}
        assert "(10 real and 10 fake samples in no group)" in repr(frame)
        assert frame.by_group.index.tolist() == ["g0", "g1"]
        assert frame.group_counts["real_proportion"].tolist() == [0.5, 0.5]
        assert frame.overall["fid"] == frechet_distance(data.real, data.fake).fid
        rows = data.real_groups == 1
        assert frame.by_group.loc["g1", "fid"] == frechet_distance(data.real[rows], data.fake[rows]).fid
        assert frame.to_dict()["unassigned"] == {"real": 10, "fake": 10}

    def test_a_row_with_one_missing_feature_is_in_no_intersection(self) -> None:
        labels = {"a": [0, 0, 1, 1, None, 1], "b": [0, 0, 1, 1, 1, None]}
        x = np.arange(6.0)[:, None]
        frame = FRAME(metrics=mean_gap, real=x, fake=x, real_sensitive_features=labels, fake_sensitive_features=labels)
        assert frame.unassigned == {"real": 2, "fake": 2}
        assert frame.by_group.index.tolist() == [(0, 0), (1, 1)]


class TestIntersections:
    GENDER = tuple("ffffmmmm")
    AGE = tuple("ooyyooyy")

    def frame(self, real_labels: Any, fake_labels: Any) -> GenerativeMetricFrame:
        real = np.array([[0.0], [0.0], [1.0], [1.0], [2.0], [2.0], [4.0], [4.0]])
        return FRAME(
            metrics={"gap": mean_gap},
            real=real,
            fake=np.zeros((8, 1)),
            real_sensitive_features=real_labels,
            fake_sensitive_features=fake_labels,
        )

    @pytest.mark.parametrize("kind", ["frame", "mapping", "array", "list of tuples"])
    def test_every_way_to_pass_two_features(self, kind: str) -> None:
        columns = {"gender": self.GENDER, "age": self.AGE}
        labels: Any = {
            "frame": pd.DataFrame(columns, index=range(8, 16)),
            "mapping": columns,
            "array": np.array([self.GENDER, self.AGE]).T,
            "list of tuples": list(zip(self.GENDER, self.AGE, strict=True)),
        }[kind]
        by_group = self.frame(labels, labels).by_group
        expected = {("f", "o"): 0.0, ("f", "y"): 1.0, ("m", "o"): 2.0, ("m", "y"): 4.0}
        assert by_group["gap"].to_dict() == expected
        named = kind in ("frame", "mapping")
        assert by_group.index.names == (["gender", "age"] if named else ["sensitive_feature_0", "sensitive_feature_1"])

    def test_features_are_matched_by_name(self) -> None:
        real, fake = {"a": list("xxyyxxyy"), "b": list("xxxxyyyy")}, {"b": list("xxxxyyyy"), "a": list("xxyyxxyy")}
        assert self.frame(real, fake).by_group.equals(self.frame(real, real).by_group)

    def test_disparities_name_the_intersections(self) -> None:
        labels = {"gender": self.GENDER, "age": self.AGE}
        row = self.frame(labels, labels).disparities().loc[("gap", "delta_gap")]
        assert row.tolist() == [4.0, ("m", "y"), ("f", "o"), True, ()]

    def test_different_features(self) -> None:
        labels = {"gender": self.GENDER, "age": self.AGE}
        with pytest.raises(ValueError, match=r"features gender, age, but fake.* gender, skin; pass the same"):
            self.frame(labels, {"gender": self.GENDER, "skin": self.AGE})
        with pytest.raises(ValueError, match=r"has 2 features, but fake_sensitive_features has 1; pass the same"):
            self.frame(labels, self.GENDER)


class TestRandomState:
    @staticmethod
    def seed_of_call(real: Any, fake: Any, *, random_state: int) -> int:
        assert isinstance(random_state, int)
        return random_state

    def test_every_call_gets_the_same_integer(self, data: GroupedSamples) -> None:
        frame = frame_of(data, {"first": self.seed_of_call, "second": self.seed_of_call}, random_state=7)
        assert np.unique(frame.by_group).tolist() == [7.0]
        assert frame.overall.tolist() == [7.0, 7.0]
        assert frame.settings["random_state"] == 7

    def test_generator_gives_one_integer(self, data: GroupedSamples) -> None:
        generator = np.random.default_rng(5)
        first, second = (frame_of(data, self.seed_of_call, random_state=generator) for _ in range(2))
        repeated = frame_of(data, self.seed_of_call, random_state=np.random.default_rng(5))
        assert first.by_group.nunique().tolist() == [1]
        assert first.settings["random_state"] == repeated.settings["random_state"]
        assert first.settings["random_state"] != second.settings["random_state"]

    @pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
    def test_a_run_without_a_seed_can_be_repeated_from_its_settings(self, data: GroupedSamples) -> None:
        small = two_groups(data)
        topp = functools.partial(topp_precision_recall, n_bootstrap=3)
        first = frame_of(small, topp, random_state=None)
        second = frame_of(small, topp, random_state=first.settings["random_state"])
        pd.testing.assert_frame_equal(first.by_group, second.by_group, check_exact=True)

    @pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
    def test_identical_groups_get_equal_scores_under_random_projections(self) -> None:
        rng = np.random.default_rng(1)
        real, fake = rng.normal(size=(170, 36)), 0.7 * rng.normal(size=(170, 36))
        labels = ["f"] * 170 + ["m"] * 170
        evaluate = functools.partial(
            GenerativeMetricFrame,
            metrics=functools.partial(topp_precision_recall, n_bootstrap=2, n_projections=2),
            real=np.concatenate([real, real]),
            fake=np.concatenate([fake, fake]),
            real_sensitive_features=labels,
            fake_sensitive_features=labels,
        )
        frame = evaluate(random_state=0)
        assert frame.difference().tolist() == [0.0, 0.0, 0.0]
        # Different seeds, which the groups would have without common random numbers, give different scores.
        assert frame.by_group.loc["f"].tolist() != evaluate(random_state=1).by_group.loc["f"].tolist()

    @pytest.mark.parametrize("random_state", [-1, 0.5, "0", True])
    def test_bad_random_state(self, data: GroupedSamples, random_state: Any) -> None:
        with pytest.raises(ValueError, match=r"random_state=.* is neither None"):
            frame_of(data, random_state=random_state)


class TestKeywords:
    def test_a_metric_gets_only_those_that_its_signature_names(self, data: GroupedSamples) -> None:
        seen: list[dict[str, Any]] = []

        def none(real: Any, fake: Any) -> float:
            seen.append({})
            return 0.0

        def some(real: Any, fake: Any, backend: str = "x", *, n_threads: int | None = 9) -> float:
            seen.append({"backend": backend, "n_threads": n_threads})
            return 0.0

        def forwarding(real: Any, fake: Any, **options: Any) -> float:
            seen.append(options)
            return 0.0

        class Instance:
            def __call__(self, real: Any, fake: Any, *, random_state: int) -> float:
                seen.append({"random_state": random_state})
                return 0.0

        frame_of(data, {"a": none, "b": some, "c": forwarding, "d": Instance()}, backend="reference", random_state=3)
        assert seen[:4] == [{}, {"backend": "reference", "n_threads": None}, {}, {"random_state": 3}]

    def test_options_fixed_by_a_partial_are_kept(self, data: GroupedSamples) -> None:
        fixed = functools.partial(TestRandomState.seed_of_call, random_state=42)
        assert np.unique(frame_of(data, fixed, random_state=7).by_group).tolist() == [42.0]

    def test_callable_without_a_signature(self, data: GroupedSamples) -> None:
        gap = functools.partial(max, key=None)  # a builtin whose signature inspect does not know
        with pytest.raises(ValueError, match="truth value of an array"):
            frame_of(data, gap)


class TestMissingGroups:
    @staticmethod
    def frame(**options: Any) -> GenerativeMetricFrame:
        return FRAME(
            metrics={"fid": frechet_distance, "prdc": PRDC},
            real=np.arange(7.0)[:, None],
            fake=np.arange(6.0)[:, None],
            real_sensitive_features=["f", "f", "m", "m", "f", "x", "x"],
            fake_sensitive_features=["f", "f", "m", "m", "f", "m"],
            **options,
        )

    def test_is_an_error_with_group_side_and_remedy(self) -> None:
        message = r"^fake_sensitive_features holds no sample of group 'x'.* add fake samples .*missing_groups='nan'"
        with pytest.raises(ValueError, match=message):
            self.frame()

    def test_on_the_other_side(self) -> None:
        with pytest.raises(ValueError, match=r"^real_sensitive_features holds no sample of group 'm', 'x'.*add real"):
            FRAME(
                metrics=mean_gap,
                real=[[0.0], [1.0]],
                fake=[[0.0], [1.0], [2.0], [3.0]],
                real_sensitive_features=["f", "f"],
                fake_sensitive_features=["f", "m", "x", "x"],
            )

    def test_a_group_without_scores_is_left_out_and_named(self) -> None:
        frame = self.frame(missing_groups="nan")
        assert frame.by_group.loc["x"].isna().all()
        assert frame.by_group.loc[["f", "m"]].notna().all(axis=None)
        assert set(frame.results) == {"f", "m"}
        assert frame.group_min().isna().all()  # which may be that of x
        assert frame.group_max().isna().all()
        others = frame.by_group.drop(index="x")
        pd.testing.assert_series_equal(frame.difference(), others.max() - others.min())
        pd.testing.assert_series_equal(frame.ratio(), others.min() / others.max())
        disparities = frame.disparities()
        assert disparities.loc[("fid", "delta_fid"), "value"] == frame.difference()["fid"]
        assert {disparities.loc[("fid", "delta_fid"), side] for side in ("larger", "smaller")} == {"f", "m"}
        assert set(disparities.loc[["fid", "prdc"], "without"]) == {("x",)}
        assert set(disparities.loc[["proportions"], "without"]) == {()}
        assert all(frame.worst_group(column) is None for column in frame.by_group)
        assert json.loads(frame.to_json())["disparities"]["fid"]["delta_fid"]["without"] == ["x"]
        assert flat_scores(frame)["fid/missing"] == 1.0
        # 3, 2, 2 of 7 real and 3, 3, 0 of 6 fake samples: for proportions, an absent group is simply 0.
        assert disparities.loc[("proportions", "mgo"), "value"] == pytest.approx(2 / 7)
        assert disparities.loc[("proportions", "ego"), "value"] == 0.5

    @pytest.mark.parametrize("missing_groups", ["raise", "nan"])
    def test_no_group_in_common_has_no_remedy_but_other_labels(self, missing_groups: Any) -> None:
        message = (
            "^real_sensitive_features holds no sample of group 'F', 'M', which fake_sensitive_features has, and no "
            "group is on both sides; write 'f' and 'F', 'm' and 'M' alike$"
        )
        with pytest.raises(ValueError, match=message):
            FRAME(
                metrics=mean_gap,
                real=np.zeros((4, 1)),
                fake=np.zeros((4, 1)),
                real_sensitive_features=["f", "f", "m", "m"],
                fake_sensitive_features=["F", "F", "M", "M"],
                missing_groups=missing_groups,
            )

    def small(self, metrics: Any, *, strict: bool = False, sizes: tuple[int, ...] = (4, 20, 20)) -> Any:
        rng = np.random.default_rng(5)
        labels = np.repeat(["a", "b", "c"], sizes)
        real, fake = rng.normal(size=(2, len(labels), 2))
        return FRAME(
            metrics=metrics,
            real=real,
            fake=fake,
            real_sensitive_features=labels,
            fake_sensitive_features=labels,
            strict=strict,
            random_state=0,
        )

    @pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
    def test_a_group_too_small_for_a_metric_has_no_score_of_it(self) -> None:
        metrics = {"prdc": PRDC_OF_5, "fid": frechet_distance}
        with pytest.warns(MissingScoreWarning) as caught:
            frame = self.small(metrics)
        (warning,) = [one for one in caught if one.category is MissingScoreWarning]
        assert str(warning.message).startswith(
            "no score for group 'a': group 'a' (4 real, 4 fake), metric 'prdc': real "
        )
        assert warning.filename == __file__
        assert list(frame.by_group) == ["prdc_precision", "prdc_recall", "prdc_density", "prdc_coverage", "fid"]
        assert list(frame.tables) == ["prdc", "fid", "proportions"]
        assert frame.by_group.loc["a"].isna().tolist() == [True] * 4 + [False]
        assert frame.by_group.loc[["b", "c"]].notna().all(axis=None)
        assert {label: list(results) for label, results in frame.results.items()} == {
            "a": ["fid"],
            "b": ["prdc", "fid"],
            "c": ["prdc", "fid"],
        }
        assert frame.disparities()["without"].groupby("metric").first().to_dict() == {
            "fid": (),
            "prdc": ("a",),
            "proportions": (),
        }
        again = GenerativeMetricFrame.from_json(frame.to_json())
        assert again.to_json() == frame.to_json()
        reason = "real has 4 rows, but n_neighbors=5 needs at least 6; add samples or lower n_neighbors"
        assert frame.refusals == again.refusals == {"prdc": {"a": reason}}
        assert json.loads(frame.to_json())["refusals"] == {"overall": {}, "by_group": {"a": {"prdc": reason}}}
        assert f"prdc has no score for a. a: {reason}" in repr(frame)
        with pytest.raises(ValueError, match=r"group 'a' \(4 real, 4 fake\), metric 'prdc': real has 4 rows"):
            self.small(metrics, strict=True)

    @pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
    def test_a_group_too_small_for_every_metric(self) -> None:
        with pytest.warns(MissingScoreWarning, match="no score for group 'a', group 'b': group 'a'"):
            frame = self.small(PRDC_OF_5, sizes=(4, 4, 20))
        assert frame.by_group.notna().all(axis=1).to_dict() == {"a": False, "b": False, "c": True}
        assert frame.disparities().loc[["precision_recall_density_coverage"], "value"].isna().all()
        with warnings.catch_warnings():
            warnings.simplefilter("error", GroupSizeWarning)  # only c has scores that could depend on the size
            warnings.simplefilter("ignore", MissingScoreWarning)
            self.small(PRDC_OF_5, sizes=(4, 4, 20))

    @pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
    def test_a_metric_that_refuses_every_group_leaves_the_others(self) -> None:
        """One that declares its scores: its columns are known. Of all samples it has a score."""
        metrics = {"kid": functools.partial(kernel_distance, gamma=1e200), "fid": frechet_distance}
        with pytest.warns(MissingScoreWarning, match="no score for group 'a', group 'b', group 'c', all samples: "):
            frame = self.small(metrics)
        assert list(frame.by_group) == ["kid", "fid"]
        assert frame.by_group["kid"].isna().all()
        assert frame.by_group["fid"].notna().all()
        assert math.isnan(frame.overall["kid"])
        assert set(frame.refusals) == {"kid"}
        assert list(frame.refusals["kid"]) == ["a", "b", "c", None]
        assert frame.disparities().loc[("kid", "delta_kid"), "without"] == ("a", "b", "c")
        again = GenerativeMetricFrame.from_json(frame.to_json())
        assert again.refusals == frame.refusals
        assert again.to_json() == frame.to_json()
        with pytest.raises(ValueError, match=r"group 'a' .* metric 'kid': the kernel of real and fake overflows"):
            self.small({"kid": metrics["kid"]})

    @pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
    def test_a_metric_may_refuse_all_samples_alone(self) -> None:
        def of_few(real: Any, fake: Any) -> float:
            if len(real) > 20:
                raise ValueError("too many rows")
            return 1.0

        with pytest.warns(MissingScoreWarning, match=r"no score for all samples: all samples \(44 real, 44 fake\)"):
            frame = self.small({"few": of_few, "fid": frechet_distance})
        assert frame.by_group["few"].tolist() == [1.0, 1.0, 1.0]
        assert math.isnan(frame.overall["few"])
        assert frame.refusals == {"few": {None: "too many rows"}}
        assert math.isnan(flat_scores(frame)["few/overall"])
        other = frame.from_json(frame.to_json())
        assert math.isnan(other.overall["few"])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n_neighbors": 0}, r"group 'b' \(20 real, 20 fake\), metric 'prdc': n_neighbors=0 is not an integer"),
            ({"n_neighbors": 20}, "group 'b' .* metric 'prdc': real has 20 rows, but n_neighbors=20 needs at least 21"),
        ],
    )
    def test_options_that_no_group_can_meet_are_refused_before_anything_runs(
        self, options: dict[str, Any], message: str
    ) -> None:
        def unreached(real: Any, fake: Any) -> float:
            raise AssertionError("a metric was called")

        metrics = {"first": unreached, "prdc": functools.partial(PRDC, **options)}
        with pytest.raises(ValueError, match=message):
            self.small(metrics)

    def test_a_fault_of_a_metric_is_no_missing_score(self) -> None:
        def faulty(real: Any, fake: Any) -> Any:
            return len(real) + "x" if len(real) == 4 else 0.0  # type: ignore[operator]

        with pytest.raises(TypeError, match=r"group 'a' .* metric 'faulty' raised TypeError: unsupported operand"):
            self.small({"faulty": faulty, "fid": frechet_distance})

    def test_checking_options_spends_no_random_numbers(self) -> None:
        first, second = (
            self.small({"kid": functools.partial(kernel_distance, n_subsets=2, random_state=rng)}, sizes=(20, 20, 20))
            for rng in (np.random.default_rng(8), np.random.default_rng(8))
        )
        alone = kernel_distance(
            first.samples.group("a").real,
            first.samples.group("a").fake,
            n_subsets=2,
            random_state=np.random.default_rng(8),
        )
        assert first.by_group["kid"]["a"] == second.by_group["kid"]["a"] == alone.kid

    def test_unknown_choice(self) -> None:
        with pytest.raises(ValueError, match="missing_groups='drop' is unknown; choose 'raise' or 'nan'"):
            self.frame(missing_groups="drop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unnamed(MetricResult):
    value: float


class TestMetrics:
    def test_an_error_names_group_and_metric(self, data: GroupedSamples) -> None:
        refusing = functools.partial(precision_recall_density_coverage, n_neighbors=10)
        with pytest.raises(
            ValueError, match=r"^group '0' \(10 real, 10 fake\), metric 'prdc': real has 10 rows"
        ) as caught:
            frame_of(data, {"prdc": refusing})
        assert isinstance(caught.value.__cause__, ValueError)

    def test_an_error_names_the_intersection(self) -> None:
        labels = {"gender": list("ffmm"), "age": list("oooo")}
        x = np.zeros((4, 1))
        with pytest.raises(ValueError, match=r"^group 'gender=f, age=o' \(2 real"):
            FRAME(
                metrics=functools.partial(PRDC, n_neighbors=5),
                real=x,
                fake=x,
                real_sensitive_features=labels,
                fake_sensitive_features=labels,
            )

    def test_an_interruption_is_not_caught(self, data: GroupedSamples) -> None:
        def interrupted(real: Any, fake: Any) -> float:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            frame_of(data, interrupted)

    @pytest.mark.parametrize("result", ["0.5", None, np.zeros(3), {}, {"precision": "1"}, {3: 1.0}])
    def test_refuses_results_that_are_not_scores(self, data: GroupedSamples, result: Any) -> None:
        with pytest.raises(TypeError, match=r"metric 'm' returned .*, expected a number, a mapping of names to"):
            frame_of(data, {"m": lambda real, fake: result})

    @pytest.mark.parametrize("result", [0.5, np.float32(0.5), np.array(0.5), {"m": 0.5}, {"m": np.array(0.5)}])
    def test_accepts_numbers_0d_arrays_and_mappings(self, data: GroupedSamples, result: Any) -> None:
        assert frame_of(data, {"m": lambda real, fake: result}).by_group["m"].tolist() == [0.5] * 3

    def test_accepts_a_0d_tensor(self, data: GroupedSamples) -> None:
        torch = pytest.importorskip("torch")
        tensor = torch.tensor(0.5, requires_grad=True)
        assert frame_of(data, {"m": lambda real, fake: tensor}).by_group["m"].tolist() == [0.5] * 3

    def test_a_mapping_of_several_scores(self, data: GroupedSamples) -> None:
        frame = frame_of(data, {"m": lambda real, fake: {"precision": 0.5, "recall": len(fake) / 10}})
        assert frame.by_group.columns.tolist() == ["m_precision", "m_recall"]
        assert frame.disparities()["value"].loc["m"].index.tolist() == [
            "delta_p",
            "delta_r",
            "delta_pr",
            "delta_p_plus_delta_r",
        ]

    def test_metrics_by_name(self, data: GroupedSamples) -> None:
        expected = frame_of(data, {"fid": frechet_distance, "ipr": improved_precision_recall}).by_group
        for names in ("fid,ipr", "fid, ipr", ["fid", "ipr"], ("fid", "ipr")):
            pd.testing.assert_frame_equal(frame_of(data, names).by_group, expected)
        assert frame_of(data, ["fid", mean_gap]).by_group.columns.tolist() == ["fid", "mean_gap"]
        with pytest.raises(ValueError, match=r"metric 'fidd' is unknown; choose from .*, fid, .*, topp"):
            frame_of(data, "fidd")

    def test_result_without_scores(self, data: GroupedSamples) -> None:
        result = Unnamed(value=1.0, backend="numpy", n_real=1, n_fake=1)
        with pytest.raises(TypeError, match=r"metric 'm' returned Unnamed, expected .* or a MetricResult with scores"):
            frame_of(data, {"m": lambda real, fake: result})

    def test_scores_that_differ_between_groups(self, data: GroupedSamples) -> None:
        def unsteady(real: Any, fake: Any) -> Any:
            first = np.array_equal(fake, data.fake[data.fake_groups == 0])
            return (PRDC if first else frechet_distance)(real, fake)

        with pytest.raises(ValueError, match=r"metric 'm' returned the scores \['fid'\] for group 1 and \['precision'"):
            frame_of(data, {"m": unsteady})

    @pytest.mark.parametrize(
        ("metrics", "error", "message"),
        [
            ({}, ValueError, "metrics is empty; pass names such as"),
            ({"m": 3}, TypeError, r"metrics\['m'\] is int, expected names \(str\) mapped to functions"),
            ({3: mean_gap}, TypeError, r"metrics\[3\] is function, expected names"),
            (3, TypeError, r"metrics\['int'\] is int, expected names"),
            (
                {"a": PRDC, "a_recall": mean_gap},
                ValueError,
                r"two columns the same name: .*'a_recall'\]; rename a metric",
            ),
        ],
    )
    def test_bad_metrics(self, data: GroupedSamples, metrics: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            frame_of(data, metrics)


class TestGroups:
    def test_counts(self) -> None:
        frame = FRAME(
            metrics=mean_gap,
            real=np.zeros((6, 1)),
            fake=np.zeros((5, 1)),
            real_sensitive_features=pd.Series(list("mmmfff"), name="gender", index=[9, 8, 7, 6, 5, 4]),
            fake_sensitive_features=list("fmfmf"),
        )
        assert frame.group_counts.to_dict("index") == {
            "f": {"n_real": 3, "n_fake": 3, "real_proportion": 0.5, "fake_proportion": 0.6},
            "m": {"n_real": 3, "n_fake": 2, "real_proportion": 0.5, "fake_proportion": 0.4},
        }
        assert frame.group_counts.index.name == frame.by_group.index.name == "gender"

    def test_one_group(self, data: GroupedSamples) -> None:
        one = data._replace(real_groups=np.zeros(30, int), fake_groups=np.zeros(30, int))
        with pytest.raises(ValueError, match="hold only one group, '0', but a disparity needs at least two"):
            frame_of(one)

    def test_labels_of_different_types(self, data: GroupedSamples) -> None:
        mixed = data._replace(fake_groups=data.fake_groups.astype(str))
        with pytest.raises(
            TypeError, match=r"labels 0, 1, 2 and fake.* '0', '1', '2', .*different types; .*so that 0 and '0', .*alike"
        ):
            frame_of(mixed)

    @pytest.mark.parametrize(("large", "warns"), [(8, False), (9, True)])
    @pytest.mark.parametrize("side", ["real", "fake"])
    def test_warns_of_very_unequal_sizes(self, large: int, warns: bool, side: str) -> None:
        counts = {"real": 4, "fake": 4} | {side: large}
        labels = {name: ["f"] * 4 + ["m"] * count for name, count in counts.items()}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            FRAME(
                metrics=mean_gap,
                real=np.zeros((len(labels["real"]), 1)),
                fake=np.zeros((len(labels["fake"]), 1)),
                real_sensitive_features=labels["real"],
                fake_sensitive_features=labels["fake"],
            )
        messages = [str(warning.message) for warning in caught if warning.category is GroupSizeWarning]
        assert len(messages) == int(warns)
        if warns:
            assert f"{side} samples, from 4 in group 'f' to 9 in 'm'" in messages[0]
            assert "; mean_gap may depend on it, so differences between groups cannot be relied on" in messages[0]
            assert caught[0].filename == __file__

    def test_metrics_that_do_not_depend_on_the_sizes_cause_no_warning(self) -> None:
        rng = np.random.default_rng(0)
        groups = np.repeat(["f", "m"], [20, 80])
        samples = {
            "real": rng.normal(size=(100, 2)),
            "fake": rng.normal(size=(100, 2)),
            "real_sensitive_features": groups,
            "fake_sensitive_features": groups,
        }
        kid = functools.partial(kernel_distance, subset_size=10, n_subsets=2)
        matched = at_sample_size(frechet_distance, 20, n_repeats=2)
        with warnings.catch_warnings():
            warnings.simplefilter("error", GroupSizeWarning)
            FRAME(metrics={"kid": kid, "matched": matched, "limit": extrapolate(frechet_distance)}, **samples)
        with pytest.warns(GroupSizeWarning, match="; fid, prdc may depend on it") as caught:
            FRAME(metrics={"kid": kid, "fid": frechet_distance, "prdc": PRDC}, **samples)
        assert len(caught) == 1


class TestSummaries:
    def test_brute_force(self, data: GroupedSamples) -> None:
        frame = frame_of(data, {"prdc": PRDC, "fid": frechet_distance})
        for column, scores in frame.by_group.items():
            values = scores.tolist()
            assert frame.group_min()[column] == min(values)
            assert frame.group_max()[column] == max(values)
            assert frame.difference()[column] == max(abs(a - b) for a, b in itertools.combinations(values, 2))
            assert frame.ratio()[column] == min(values) / max(values)

    def test_disparities_table(self, data: GroupedSamples) -> None:
        frame = frame_of(data, {"prdc": PRDC, "gap": mean_gap, "fid": frechet_distance})
        disparities = frame.disparities()
        assert disparities.index.names == ["metric", "disparity"]
        assert disparities.index.tolist() == [
            ("prdc", "delta_p"),
            ("prdc", "delta_r"),
            ("prdc", "delta_pr"),
            ("prdc", "delta_p_plus_delta_r"),
            ("prdc", "delta_density"),
            ("prdc", "delta_coverage"),
            ("gap", "delta_gap"),
            ("fid", "delta_fid"),
            ("proportions", "mgo"),
            ("proportions", "ego"),
        ]
        fid = frame.by_group["fid"]
        assert disparities.loc[("fid", "delta_fid")].tolist() == [
            fid.max() - fid.min(),
            fid.idxmax(),
            fid.idxmin(),
            True,
            (),
        ]
        assert disparities.loc[("proportions", "mgo")].tolist() == [0.0, None, None, True, ()]

    def test_mgo_names_the_group_that_attains_it(self) -> None:
        def mgo_row(fake: str) -> list[Any]:
            frame = FRAME(
                metrics=mean_gap,
                real=np.zeros((9, 1)),
                fake=np.zeros((len(fake), 1)),
                real_sensitive_features=list("aaabbbccc"),
                fake_sensitive_features=list(fake),
            )
            row: list[Any] = frame.disparities().loc[("proportions", "mgo")].tolist()
            return row

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GroupSizeWarning)
            assert mgo_row("aaaabc") == [pytest.approx(1 / 3), "a", None, True, ()]
            assert mgo_row("aaaabbbbc") == [pytest.approx(2 / 9), None, "c", True, ()]

    def test_ratio_of_zeros_and_of_negative_scores(self, data: GroupedSamples) -> None:
        def signed(real: Any, fake: Any) -> float:
            return float(fake.mean())

        zeros, negative = frame_of(data, lambda real, fake: 0.0), frame_of(data, signed)
        assert zeros.ratio().tolist() == [1.0]
        assert negative.group_min().iloc[0] < 0
        assert negative.ratio().isna().all()

    def test_a_nan_score_is_left_out_of_its_column_alone(self, data: GroupedSamples) -> None:
        def undefined(real: Any, fake: Any) -> float:
            return math.nan if np.array_equal(real, data.real[data.real_groups == 1]) else float(real[0, 0])

        def scored_once(real: Any, fake: Any) -> float:
            return 1.0 if np.array_equal(real, data.real[data.real_groups == 1]) else math.nan

        frame = frame_of(data, {"bad": undefined, "once": scored_once, "good": mean_gap})
        first, third = frame.by_group["bad"].tolist()[::2]
        assert frame.difference()["bad"] == frame.disparities().loc[("bad", "delta_bad"), "value"] == abs(first - third)
        assert frame.difference().isna().to_dict() == {"bad": False, "once": True, "good": False}
        assert frame.ratio().isna()["once"]
        without = frame.disparities()["without"]
        assert without["bad", "delta_bad"] == (1,)
        assert without["once", "delta_once"] == (0, 2)
        assert without["good", "delta_good"] == ()
        assert math.isnan(frame.disparities().loc[("once", "delta_once"), "value"])


class TestToDict:
    @pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")
    def test_is_valid_json_with_every_number(self, data: GroupedSamples) -> None:
        topp = functools.partial(topp_precision_recall, n_bootstrap=3)
        small = two_groups(data)
        frame = frame_of(small, {"topp": topp, "gap": mean_gap}, n_threads=1)
        content = json.loads(json.dumps(frame.to_dict(), allow_nan=False))
        assert content["settings"] == {
            "metrics": {"topp": "topp_precision_recall(n_bootstrap=3)", "gap": "mean_gap()"},
            "sensitive_features": ["group"],
            "random_state": 0,
            "missing_groups": "raise",
            "strict": False,
            "backend": "auto",
            "n_threads": 1,
        }
        assert content["overall"] == frame.overall.to_dict()
        assert content["by_group"] == {str(group): row.to_dict() for group, row in frame.by_group.iterrows()}
        assert content["group_counts"]["1"] == {
            "n_real": 15,
            "n_fake": 15,
            "real_proportion": 0.5,
            "fake_proportion": 0.5,
        }
        assert isinstance(content["group_counts"]["1"]["n_real"], int)
        for (metric, name), row in frame.disparities().iterrows():
            pair = content["disparities"][metric][name]
            assert pair["value"] == row["value"]
            assert pair["larger"] == (None if row["larger"] is None else str(row["larger"]))
        result = frame.results[1]["topp"]
        assert isinstance(result, MetricResult)
        assert content["results"]["by_group"]["1"]["topp"]["n_bootstrap"] == 3
        assert content["results"]["by_group"]["1"]["topp"]["precision"] == result.scores()["precision"]
        assert content["results"]["overall"]["gap"]["values"] == {"gap": frame.overall["gap"]}

    def test_nan_infinity_and_intersections(self) -> None:
        labels = {"gender": list("ffmmff"), "age": list("ooooyy")}
        x = np.arange(6.0)[:, None]
        frame = FRAME(
            metrics={"inf": lambda real, fake: math.inf if real[0, 0] == 2.0 else np.float32(1.0)},
            real=x,
            fake=x[:4],
            real_sensitive_features=labels,
            fake_sensitive_features={name: column[:4] for name, column in labels.items()},
            missing_groups="nan",
        )
        content = json.loads(json.dumps(frame.to_dict(), allow_nan=False))
        assert content["by_group"] == {
            "gender=f, age=o": {"inf": 1.0},
            "gender=f, age=y": {"inf": None},
            "gender=m, age=o": {"inf": "inf"},
        }
        assert content["disparities"]["inf"]["delta_inf"] == {
            "value": "inf",
            "larger": "gender=m, age=o",
            "smaller": "gender=f, age=o",
            "reliable": True,
            "without": ["gender=f, age=y"],
        }
        assert set(content["results"]["by_group"]) == {"gender=f, age=o", "gender=m, age=o"}


def test_progress_counts_the_calls_of_metrics(
    data: GroupedSamples, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lines, "first_after", 1e-9)
    frame_of(data, {"gap": mean_gap, "fid": frechet_distance}, progress=True)
    assert "8/8" in capsys.readouterr().err  # 2 metrics, 3 groups and all samples
    frame_of(data, mean_gap)
    assert capsys.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
@pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")  # FID of few rows
class TestLaws:
    @LAW
    @given(grouped_samples(), st.permutations([9, 4, 7, 1]))
    def test_renaming_groups_permutes_rows_and_keeps_disparities(self, data: GroupedSamples, names: list[int]) -> None:
        renamed = data._replace(
            real_groups=np.array(names)[data.real_groups], fake_groups=np.array(names)[data.fake_groups]
        )
        first, second = frame_of(data), frame_of(renamed)
        n_groups = len(first.by_group)
        np.testing.assert_array_equal(second.by_group.loc[names[:n_groups]], first.by_group)
        pd.testing.assert_series_equal(first.disparities()["value"], second.disparities()["value"], check_exact=True)
        pd.testing.assert_series_equal(first.overall, second.overall, check_exact=True)

    @LAW
    @given(grouped_samples())
    def test_identical_groups_have_no_disparity(self, data: GroupedSamples) -> None:
        real, fake = data.real[data.real_groups == 0], data.fake[data.fake_groups == 0]
        twins = GroupedSamples(
            np.concatenate([real, real]),
            np.concatenate([fake, fake]),
            np.repeat([0, 1], len(real)),
            np.repeat([0, 1], len(fake)),
        )
        frame = frame_of(twins, {"prdc": PRDC, "fid": frechet_distance})
        assert (frame.difference() == 0.0).all()
        assert (frame.ratio() == 1.0).all()
        assert (frame.disparities()["value"] == 0.0).all()

    @LAW
    @given(grouped_samples(), st.randoms(use_true_random=False))
    def test_order_of_samples_does_not_matter(self, data: GroupedSamples, random: Any) -> None:
        real_order, fake_order = (random.sample(range(len(side)), len(side)) for side in (data.real, data.fake))
        shuffled = GroupedSamples(
            data.real[real_order], data.fake[fake_order], data.real_groups[real_order], data.fake_groups[fake_order]
        )
        first, second = (frame_of(samples, {"prdc": PRDC, "gap": mean_gap}) for samples in (data, shuffled))
        pd.testing.assert_frame_equal(first.by_group, second.by_group, check_exact=True)
        pd.testing.assert_frame_equal(first.group_counts, second.group_counts, check_exact=True)

    @LAW
    @given(grouped_samples())
    def test_a_group_does_not_depend_on_the_others(self, data: GroupedSamples) -> None:
        keep_real, keep_fake = data.real_groups < 2, data.fake_groups < 2
        two = GroupedSamples(
            data.real[keep_real], data.fake[keep_fake], data.real_groups[keep_real], data.fake_groups[keep_fake]
        )
        np.testing.assert_array_equal(frame_of(two).by_group, frame_of(data).by_group.loc[[0, 1]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared(MetricResult):
    gap: float = score(label="gap of the means", better="lower", bounds=(0.0, math.inf), unit="pixels")
    level: float = score(label="mean level", better=1.0)


def declared(real: Any, fake: Any) -> Declared:
    return Declared(
        gap=mean_gap(real, fake), level=float(fake.mean()), backend="numpy", n_real=len(real), n_fake=len(fake)
    )


class TestWorstGroup:
    def test_knows_the_direction(self, data: GroupedSamples) -> None:
        frame = frame_of(data, {"prdc": PRDC, "fid": frechet_distance, "own": declared, "plain": mean_gap})
        assert frame.worst_group("fid") == frame.by_group["fid"].idxmax()
        assert frame.worst_group("prdc_recall") == frame.by_group["prdc_recall"].idxmin()
        assert frame.worst_group("own_gap") == frame.by_group["own_gap"].idxmax()
        assert frame.worst_group("own_level") == (frame.by_group["own_level"] - 1.0).abs().idxmax()
        assert frame.worst_group("plain") is None
        with pytest.raises(
            ValueError, match=r"score='prdc' is not a column of by_group; choose one of prdc_precision, "
        ):
            frame.worst_group("prdc")

    def test_is_none_if_groups_are_equal_or_one_has_no_score(self, data: GroupedSamples) -> None:
        equal = frame_of(data, {"own": lambda real, fake: dataclasses.replace(declared(real, fake), gap=0.5)})
        assert equal.worst_group("own_gap") is None
        labels = np.where(data.fake_groups == 2, 1, data.fake_groups)
        missing = frame_of(data._replace(fake_groups=labels), "fid", missing_groups="nan")
        assert missing.worst_group("fid") is None


class TestJson:
    def frame(self, data: GroupedSamples, **options: Any) -> GenerativeMetricFrame:
        metrics = {"prdc": PRDC, "fid": frechet_distance, "own": declared, "plain": mean_gap}
        return frame_of(data, metrics, **options)

    def test_is_read_back_with_every_number_and_description(self, data: GroupedSamples) -> None:
        frame = self.frame(data)
        again = GenerativeMetricFrame.from_json(frame.to_json())
        assert again.to_dict() == frame.to_dict()
        assert again.describe() == frame.describe()
        assert again.by_group.to_numpy().tolist() == frame.by_group.to_numpy().tolist()
        assert again.disparities()["value"].tolist() == frame.disparities()["value"].tolist()
        assert again.worst_group("own_gap") == str(frame.worst_group("own_gap"))
        assert again.overall_results["prdc"].settings() == frame.overall_results["prdc"].settings()
        with pytest.raises(ValueError, match="needs the samples, but this frame was read from JSON"):
            again.test()

    def test_a_function_called_like_a_registered_metric_keeps_its_own_scores(self, data: GroupedSamples) -> None:
        def frechet_distance(real: Any, fake: Any) -> dict[str, float]:
            return {"fid": mean_gap(real, fake), "other": 1.0}

        frame = frame_of(data, frechet_distance)
        again = GenerativeMetricFrame.from_json(frame.to_json())
        assert again.describe() == frame.describe()
        assert again.describe()["frechet_distance_fid"] == Score(label="fid")
        assert frame.title("frechet_distance") == again.title("frechet_distance") == "frechet_distance"

    def test_a_function_called_like_a_registered_metric_keeps_its_own_settings(self, data: GroupedSamples) -> None:
        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Own(MetricResult):
            gap: float = score(label="gap")
            n_subsets: int  # a setting of the registered one, a detail of this

        def kernel_distance(real: Any, fake: Any) -> Own:
            return Own(gap=mean_gap(real, fake), n_subsets=3, backend="numpy", n_real=len(real), n_fake=len(fake))

        frame = frame_of(data, kernel_distance)
        again = GenerativeMetricFrame.from_json(frame.to_json())
        assert again.overall_results["kernel_distance"].settings() == {}
        assert again.to_json() == frame.to_json()

    def test_a_resampled_metric_keeps_its_name(self, data: GroupedSamples) -> None:
        frame = frame_of(data, {"few": at_sample_size(frechet_distance, 8)})
        again = GenerativeMetricFrame.from_json(frame.to_json())
        assert frame.title("few") == again.title("few") == "few"
        assert again.describe() == frame.describe()

    def test_intersections_nan_and_infinity(self) -> None:
        labels = {"gender": list("ffmmff"), "age": list("ooooyy")}
        x = np.arange(6.0)[:, None]
        frame = FRAME(
            metrics={"inf": lambda real, fake: math.inf if real[0, 0] == 2.0 else 1.0},
            real=x,
            fake=x[:4],
            real_sensitive_features=labels,
            fake_sensitive_features={name: column[:4] for name, column in labels.items()},
            missing_groups="nan",
        )
        again = GenerativeMetricFrame.from_json(frame.to_json())
        assert again.to_json() == frame.to_json()
        assert again.by_group.index.tolist() == ["gender=f, age=o", "gender=f, age=y", "gender=m, age=o"]
        np.testing.assert_array_equal(again.by_group["inf"], [1.0, math.nan, math.inf])

    def test_saved_intervals(self) -> None:
        rng = np.random.default_rng(0)
        labels = np.repeat(["f", "m"], 60)
        real, fake = rng.normal(size=(2, 120, 2))
        frame = FRAME(
            metrics="fid", real=real, fake=fake, real_sensitive_features=labels, fake_sensitive_features=labels
        )
        intervals = frame.interval(0.9)
        again = GenerativeMetricFrame.from_json(frame.to_json(intervals))
        found = again.interval(0.9)
        pd.testing.assert_frame_equal(found.by_group, intervals.by_group)
        pd.testing.assert_frame_equal(found.disparities, intervals.disparities)
        assert again.to_json(found) == frame.to_json(intervals)
        with pytest.raises(ValueError, match="needs the samples"):
            again.interval(0.95)

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"settings": {}}', "null", "[" * 99_999])
    def test_refuses_text_that_is_not_a_frame(self, text: str) -> None:
        with pytest.raises(ValueError, match="text is not the JSON of a frame"):
            GenerativeMetricFrame.from_json(text)


class TestSamples:
    def test_give_the_same_frame_as_the_four_arguments(self, data: GroupedSamples) -> None:
        samples = egtmetrics.GroupedSamples(
            real=data.real,
            fake=data.fake,
            real_sensitive_features=data.real_groups,
            fake_sensitive_features=data.fake_groups,
        )
        frame = GenerativeMetricFrame(metrics=PRDC, samples=samples, random_state=0)
        assert frame.to_dict() == frame_of(data).to_dict()
        assert frame.samples is samples
        with pytest.raises(TypeError, match="samples and real were both given; pass one or the other"):
            GenerativeMetricFrame(metrics=PRDC, samples=samples, real=data.real)
        with pytest.raises(TypeError, match="fake, fake_sensitive_features missing; pass real, fake"):
            GenerativeMetricFrame(metrics=PRDC, real=data.real, real_sensitive_features=data.real_groups)
        with pytest.raises(TypeError, match="samples is ndarray, expected GroupedSamples"):
            GenerativeMetricFrame(metrics=PRDC, samples=data.real)  # type: ignore[arg-type]

    def test_a_metric_cannot_change_them(self, data: GroupedSamples) -> None:
        def centring(real: Any, fake: Any) -> float:
            real -= real.mean()
            return mean_gap(real, fake)

        with pytest.raises(ValueError, match="read-only"):
            frame_of(data, {"centring": centring})


def test_titles_are_those_of_registered_metrics_also_in_a_saved_frame() -> None:
    def own(real: Any, fake: Any) -> float:
        return 1.0

    points, labels = np.random.default_rng(0).normal(size=(12, 2)), ["a", "b"] * 6
    frame = GenerativeMetricFrame(
        metrics={"fid": frechet_distance, "own": own},
        real=points,
        fake=points[::-1],
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
    )
    for one in (frame, GenerativeMetricFrame.from_json(frame.to_json())):
        assert [one.title(name) for name in ("fid", "own")] == ["Fréchet distance", "own"]
