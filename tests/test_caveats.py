"""Scores that say nothing say so: in the result, the frame, its JSON, tables, page and comparison."""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from numpy.typing import NDArray

from egtmetrics import (
    GenerativeMetricFrame,
    MetricResult,
    at_sample_size,
    compare_frames,
    compare_models,
    egt,
    flat_scores,
    permutation_test,
    topp_precision_recall,
)
from egtmetrics.cli import main
from egtmetrics.groups import permutation_test_frames
from egtmetrics.integrations import fairlearn_metric
from egtmetrics.metrics import TopPRResult
from egtmetrics.metrics._topp_result import find_caveats
from egtmetrics.metrics._topp_variance import _bandwidths
from egtmetrics.metrics.subsampling import draw_subsamples
from egtmetrics.ops import select_host_backend
from egtmetrics.plots import plot_precision_recall
from egtmetrics.report import render
from egtmetrics.report.compare import compare_with_first, render_comparison
from egtmetrics.report.page import render_page
from egtmetrics.results import UnreliableScoreWarning, score, share

Array = NDArray[Any]

unreliable = pytest.mark.filterwarnings("ignore::egtmetrics.results.UnreliableScoreWarning")


def sample(law: str, n: int, d: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if law == "t3":
        return rng.standard_t(3, size=(n, d))
    points = rng.normal(size=(n, d))
    if law == "clusters":
        points += 10.0 * np.eye(3, d)[rng.choice(3, n, p=[0.6, 0.3, 0.1])]
    return np.round(points) if law == "discrete" else points


def topp(real: Array, fake: Array, **options: Any) -> TopPRResult:
    return topp_precision_recall(real, fake, **{"random_state": 0, "n_bootstrap": 100, **options})


LAWS = ["gauss", "t3", "clusters"]


# --- TopP&R ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("n", "d"), [(300, 1), (2000, 1), (1300, 2)])
def test_with_few_features_it_says_that_it_cannot_speak_and_how_it_can(law: str, n: int, d: int) -> None:
    """Two samples of one law, which should score near 1, and a shift by 6 standard deviations, near 0."""
    real, fake = sample(law, n, d, 0), sample(law, n, d, 1)
    with pytest.warns(UnreliableScoreWarning, match=r"hardly any point .* pass k_rule='sample-size'"):
        mute = topp(real, fake)
    assert min(mute.precision, mute.recall) < 0.6
    assert len(mute.caveats) == 1
    spoken = topp(real, fake, k_rule="sample-size")
    assert spoken.caveats == ()
    assert min(spoken.precision, spoken.recall) > 0.8
    shifted = topp(real, fake - 6.0 * np.eye(d)[0], k_rule="sample-size")
    assert max(shifted.precision, shifted.recall) < 0.25


@pytest.mark.parametrize(("n", "d"), [(243, 32), (200, 40), (60, 8)])
def test_near_saturation_it_says_so(n: int, d: int) -> None:
    with pytest.warns(UnreliableScoreWarning, match=rf"hold nearly any point.*of {n}\).*samples \(({10 * min(d, 32)})"):
        result = topp(sample("gauss", n, d, 0), sample("gauss", n, d, 1))
    assert len(result.caveats) == 1


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("n", "d"), [(100, 4), (300, 8), (400, 16), (500, 32), (500, 40)])
def test_in_ordinary_dimensions_it_speaks(law: str, n: int, d: int) -> None:
    result = topp(sample(law, n, d, 0), sample(law, n, d, 1))  # a warning would be an error
    assert result.caveats == ()
    assert min(result.precision, result.recall) > 0.6


def test_points_that_coincide_are_no_sign_of_a_small_bandwidth() -> None:
    assert topp(sample("discrete", 2000, 1, 0), sample("discrete", 2000, 1, 1)).caveats == ()


def test_k_rules() -> None:
    """126 > 1000^0.8 / 2 of 1000 points in 2 dimensions; 80 of 300 in 16, where 5 d' is the larger number."""
    points = sample("gauss", 1000, 2, 0)
    (plane,) = topp(points, points[:300], k_rule="sample-size", n_bootstrap=2).per_projection
    assert (plane.real_n_neighbors, plane.fake_n_neighbors) == (126, 48)
    real, fake = sample("gauss", 300, 16, 0), sample("gauss", 200, 16, 1)
    paper, rate = topp(real, fake), topp(real, fake, k_rule="sample-size")
    assert (paper.k_rule, rate.k_rule) == ("paper", "sample-size")
    assert dataclasses.replace(rate, k_rule="paper") == paper
    for backend in ("reference", "cpu"):
        assert topp(points, points[:300], k_rule="sample-size", n_bootstrap=2, backend=backend).per_projection[
            0
        ].real_bandwidth == pytest.approx(np.median(np.sort(np.hypot(*(points[:, None] - points).T), axis=1)[:, 126]))


def test_bad_k_rules() -> None:
    points = sample("gauss", 100, 2, 0)
    with pytest.raises(ValueError, match=r"k_rule='best' is unknown; pass 'paper' or 'sample-size'"):
        topp(points, points, k_rule="best")
    with pytest.raises(ValueError, match=r"k_rule='sample-size' does not go with compatibility='top-pr'"):
        topp(points, points, k_rule="sample-size", compatibility="top-pr")


@unreliable
def test_the_remedy_goes_with_the_options() -> None:
    points = sample("gauss", 2000, 1, 0)
    assert "pass k_rule='sample-size'" in topp(points, points).caveats[0]
    assert "without compatibility='top-pr'" in topp(points, points, compatibility="top-pr").caveats[0]
    (evaluation,) = topp(points, points, k_rule="sample-size").per_projection
    few = dataclasses.replace(evaluation, n_real_kept=20)
    (caveat,) = find_caveats([few], "sample-size", None, real=2000, fake=2000)
    assert "real (20 of 2000 points, k = 219)." in caveat
    assert "take another metric" in caveat


def test_the_variance_follows_the_rule() -> None:
    """A half of a set has the bandwidth of the set if it takes half as many neighbours, whatever the rule says."""
    points = sample("gauss", 400, 2, 0)
    (evaluation,) = topp(points, points, k_rule="sample-size").per_projection
    halves = draw_subsamples(points, np.random.default_rng(0), 4)
    found = _bandwidths(select_host_backend("cpu"), halves, evaluation.real_bandwidth, evaluation.real_n_neighbors)[
        :2, halves.pairs_of_halves
    ]
    np.testing.assert_allclose(found, evaluation.real_bandwidth, rtol=0.1)


NOTE = "doubtful cannot be relied on for A, overall, nor can differences between them and others. A: it <cannot> speak"


# --- any metric ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap(MetricResult):
    gap: float = score(label="gap", better="lower")


def doubtful(real: Array, fake: Array) -> Gap:
    """A user's metric, which cannot speak about sets whose first value is negative."""
    caveats = ("it <cannot> speak",) if real[0, 0] < 0 else ()
    return Gap(
        gap=float(fake.mean() - real.mean()), backend="numpy", n_real=len(real), n_fake=len(fake), caveats=caveats
    )


def frame_of(groups: str, metrics: Any = doubtful, *, shift: float = 0.0) -> GenerativeMetricFrame:
    """Groups whose names are given as letters; those in upper case have caveats under ``doubtful``."""
    rng = np.random.default_rng(0)
    labels = [group for group in groups for _ in range(60)]
    real, fake = rng.normal(10.0, 1.0, size=(2, len(labels), 1))
    real[[group.isupper() for group in labels]] *= -1.0
    return GenerativeMetricFrame(
        metrics=metrics,
        real=real,
        fake=fake + shift,
        real_sensitive_features=labels,
        fake_sensitive_features=labels,
        random_state=0,
    )


def test_a_frame_warns_once_and_names_the_groups() -> None:
    names = "".join(map(chr, range(ord("A"), ord("A") + 13)))
    with pytest.warns(UnreliableScoreWarning) as caught:
        frame_of("a" + names)
    (warning,) = caught
    assert str(warning.message).startswith(
        "doubtful cannot be relied on for group 'A', group 'B', group 'C', group 'D', group 'E', group 'F', group 'G', "
        "group 'H', group 'I', group 'J' and 3 more, nor can differences"
    )
    assert warning.filename == __file__


def test_a_frame_of_topp_warns_once_not_for_every_call() -> None:
    with pytest.warns(
        UnreliableScoreWarning, match=r"group 'a', group 'b', all samples.*k_rule='sample-size'"
    ) as caught:
        frame = frame_of("ab", "topp")
    assert len(caught) == 1
    assert set(frame.caveats()["topp"]) == {None, "a", "b"}


def test_without_caveats_nothing_is_marked() -> None:
    frame = frame_of("ab")
    assert frame.caveats() == {}
    assert frame.disparities()["reliable"].all()
    assert "?" not in render(frame)
    assert "unreliable" not in repr(frame) + str(flat_scores(frame))


@unreliable
def test_frame_disparities_json_and_flat_scores_carry_the_caveats() -> None:
    frame = frame_of("Abc")
    assert frame.caveats() == {"doubtful": {None: ("it <cannot> speak",), "A": ("it <cannot> speak",)}}
    reliable = frame.disparities()["reliable"].to_dict()
    assert reliable == {
        ("doubtful", "delta_gap"): False,
        ("proportions", "mgo"): True,
        ("proportions", "ego"): True,
    }
    content = json.loads(frame.to_json())
    assert content["results"]["by_group"]["A"]["doubtful"]["caveats"] == ["it <cannot> speak"]
    assert content["results"]["by_group"]["b"]["doubtful"]["caveats"] == []
    assert content["disparities"]["doubtful"]["delta_gap"]["reliable"] is False
    again = GenerativeMetricFrame.from_json(frame.to_json())
    assert again.caveats() == frame.caveats()
    assert again.to_json() == frame.to_json()
    assert render(again) == render(frame)
    flat = flat_scores(frame)
    assert flat["doubtful/unreliable"] == 2.0
    assert NOTE in repr(frame)
    assert "it &lt;cannot&gt; speak" in frame._repr_html_()
    assert "unreliable: it <cannot> speak" in repr(frame.results["A"]["doubtful"])
    assert "Unreliable: it &lt;cannot&gt; speak" in frame.results["A"]["doubtful"]._repr_html_()


@unreliable
@pytest.mark.parametrize("format", ["table", "markdown", "latex"])
def test_tables_mark_scores_and_disparities_and_say_why(format: Any) -> None:
    frame = frame_of("Ab")
    text = render(frame, format=format, intervals=frame.interval())
    gaps = frame.by_group["doubtful"]
    assert f"{gaps['A']:.4g}? [" in text
    assert f"{gaps['b']:.4g} [" in text
    assert f"{frame.overall['doubtful']:.4g}?" in text
    assert f"{abs(gaps['A'] - gaps['b']):.4g}?" in text
    assert "?: a score or a disparity that cannot be relied on" in text
    assert NOTE in " ".join(text.replace("\\<", "<").split())  # Markdown escapes it, a terminal breaks the line


@unreliable
def test_the_page_greys_out_and_claims_nothing() -> None:
    """The gap of 20 standard deviations would be "more than noise", were it not for the caveat."""
    page = render_page(frame_of("Ab"))
    assert page.count('<td class="number unreliable">') == 5  # overall, A, the gap, if equal, p-value
    assert page.count('<span class="tag">unreliable</span>') == 5
    assert '<span class="tag open">unreliable</span>' in page
    assert html.escape(NOTE) in page
    assert "no gap here can be relied on" in page
    assert "Grey dots cannot be relied on." in page
    for claim in ("more than noise</span>", "may be chance</span>", ">worse</span>", "score unequally"):
        assert claim not in page
    assert "more than noise</span>" in render_page(frame_of("Ab", lambda real, fake: fake.mean() - real.mean()))


@unreliable
def test_a_page_judges_what_can_be_relied_on() -> None:
    def sound(real: Array, fake: Array) -> float:
        return float(fake.mean() - real.mean())

    page = render_page(frame_of("Ab", {"doubtful": doubtful, "sound": sound}))
    assert "1 of 1 gaps is more than noise" in page


def sure(real: Array, fake: Array) -> Gap:
    return dataclasses.replace(doubtful(real, fake), caveats=())


@unreliable
def test_a_comparison_marks_what_cannot_be_relied_on() -> None:
    frames = {"one": frame_of("Ab"), "two": frame_of("Ab", {"doubtful": sure})}
    text = render_comparison(frames)
    rows = {line.split()[-3]: line.split()[-2:] for line in text.splitlines() if len(line.split()) > 2}
    a, b = frames["one"].by_group["doubtful"]
    assert rows["A"] == [f"{a:.4g}?", f"{a:.4g}"]
    assert rows["b"] == [f"{b:.4g}", f"{b:.4g}"]
    assert rows["gap"] == [f"{abs(a - b):.4g}?", f"{abs(a - b):.4g}†"]  # noise would not explain it
    assert f"one: {NOTE}" in " ".join(text.split())
    assert "two: doubtful" not in text


@unreliable
@pytest.mark.parametrize("doubted", ["first", "second"])
def test_no_difference_from_what_cannot_be_relied_on_counts(doubted: str) -> None:
    """The fakes are 10 apart, so every score differs by more than chance, the doubted ones of group A included."""
    metrics = {"first": {"doubtful": sure}, "second": {"doubtful": sure}} | {doubted: {"doubtful": doubtful}}
    frames = {"first": frame_of("Ab", metrics["first"]), "second": frame_of("Ab", metrics["second"], shift=10.0)}
    table = permutation_test_frames(*frames.values(), n_permutations=19, random_state=0)
    assert table[["score", "group", "reliable"]].to_numpy().tolist() == [
        ["gap", None, False],
        ["gap", "A", False],
        ["gap", "b", True],
        ["delta_gap", None, False],
    ]
    tests = compare_with_first(frames, n_permutations=99, random_state=0)
    assert (tests["adjusted_p_value"][:3] <= 0.05).all()
    text = render_comparison(frames, tests=tests)
    cells = [line.split()[-1] for line in text.splitlines() if line.startswith(("gap", "   "))][:3]
    assert ["*" in cell for cell in cells] == [False, False, True]
    assert "has no *" in text
    content = json.loads(render_comparison(frames, tests=tests, format="json"))
    assert [row["reliable"] for row in content["tests"]] == [False, False, True, False]


@unreliable
def test_a_comparison_of_models_says_which_differences_can_be_relied_on() -> None:
    table = compare_frames(frame_of("Ab"), frame_of("Ab", shift=10.0))
    assert table["reliable"].tolist() == [False, False, True, False]  # overall, A, b, and the disparity


@unreliable
def test_the_worst_group_is_unknown_if_a_score_cannot_be_relied_on() -> None:
    frame = frame_of("Ab")
    assert frame.worst_group("doubtful") is None
    assert "doubtful/worst" not in flat_scores(frame)
    assert GenerativeMetricFrame.from_json(frame.to_json()).worst_group("doubtful") is None
    known = frame_of("Ab", {"doubtful": sure})
    assert known.worst_group("doubtful") == "A"
    assert flat_scores(known)["doubtful/worst"] == known.by_group["doubtful"]["A"]


@unreliable
def test_intervals_and_tests_say_which_can_be_relied_on() -> None:
    frame = frame_of("Ab")
    intervals = frame.interval()
    expected = {("doubtful", "delta_gap"): False, ("proportions", "mgo"): True, ("proportions", "ego"): True}
    assert intervals.disparities["reliable"].to_dict() == expected
    assert frame.test()["reliable"].to_dict() == expected
    assert intervals.by_group["reliable"].to_dict() == {("doubtful", "A"): False, ("doubtful", "b"): True}


def test_fairlearn_gets_a_warning() -> None:
    value = fairlearn_metric(doubtful)
    with pytest.warns(UnreliableScoreWarning, match="it <cannot> speak"):
        value([[-1.0], [-2.0]], [[1.0], [2.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value([[1.0], [2.0]], [[1.0], [2.0]])


# --- figures --------------------------------------------------------------------------------------------------------

DOUBT = "cannot be relied on"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Both(MetricResult):
    precision: float = share(label="precision")
    recall: float = share(label="recall")


def both(real: Array, fake: Array) -> Both:
    caveats = doubtful(real, fake).caveats
    p, r = np.clip(np.abs([real.mean(), fake.mean()]) / 20.0, 0.0, 1.0)
    return Both(precision=p, recall=r, backend="numpy", n_real=len(real), n_fake=len(fake), caveats=caveats)


def is_grey(color: Any) -> bool:
    red, green, blue, _ = to_rgba(color)
    return red == green == blue and 0.3 < red < 0.9


def legend_of(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [" ".join(text.get_text().split()) for text in legend.get_texts()]


@unreliable
def test_points_that_cannot_be_relied_on_are_grey_and_the_legend_says_so() -> None:
    """Also those that would be hollow because they may differ by chance only."""
    frames = {"one": frame_of("Abc", both), "two": frame_of("abc", both, shift=1.0)}
    ax = plot_precision_recall(frames, hollow=[("one", "A"), ("two", "b")])
    grey = [[is_grey(face) for face in dots.get_facecolor()] for dots in ax.collections]
    assert grey == [[True], [False, False], [False, False], [False]]  # A, b of both, c of both, a
    white = [[tuple(face[:3]) == (1.0, 1.0, 1.0) for face in dots.get_facecolor()] for dots in ax.collections]
    assert white == [[False], [False, True], [False, False], [False]]
    assert legend_of(ax) == ["A", "b", "c", "a", "may differ from one by chance only", DOUBT]
    assert DOUBT not in legend_of(plot_precision_recall(frames["two"]))


@unreliable
def test_rows_that_cannot_be_relied_on_are_grey_and_the_legend_says_so() -> None:
    frame = frame_of("Ab")
    for ax, expected in (
        (frame.plot(intervals=frame.interval()), [True, False]),
        (frame.interval().plot(), [True, False, False]),
    ):
        dots = [line for line in ax.get_lines() if line.get_marker() == "o"]
        assert [is_grey(dot.get_color()) for dot in dots] == expected
        bars = [line for line in ax.get_lines() if line.get_linewidth() == 2]
        assert [is_grey(bar.get_color()) for bar in bars][: len(expected)] == expected
        assert legend_of(ax) == [DOUBT]
    (overall,) = frame.plot().texts
    assert overall.get_text() == f"overall ({DOUBT})"
    known = frame_of("ab")
    assert [text.get_text() for text in known.plot().texts] == ["overall"]
    assert legend_of(known.plot()) == legend_of(known.interval().plot()) == []


def test_single_disparities_tests_and_resampled_metrics_warn_once() -> None:
    real, fake = sample("gauss", 140, 8, 0), sample("gauss", 140, 8, 1)
    labels = {"real_sensitive_features": ["f", "m"] * 70, "fake_sensitive_features": ["f", "m"] * 70}
    metric = functools.partial(topp_precision_recall, n_bootstrap=20)
    calls = {
        "topp_precision_recall cannot be relied on for group 'f', group 'm',": lambda: egt(
            real, fake, metric=metric, score="precision", random_state=0, **labels
        ),
        "topp_precision_recall cannot be relied on for group 'f',  group 'm',": lambda: permutation_test(
            real, fake, metric=metric, score="precision", n_permutations=19, random_state=0, **labels
        ),
        "cannot be relied on for samples 'fake', samples 'other_fake',": lambda: compare_models(
            real[:70], fake[:70], fake[70:], metric=metric, score="precision", random_state=0
        ),
        "hold nearly any point": lambda: at_sample_size(metric, 70)(real, fake, random_state=0),
    }
    for message, call in calls.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        (warning,) = [one for one in caught if one.category is UnreliableScoreWarning]
        assert " ".join(message.split()) in str(warning.message)
        assert warning.filename == __file__


@unreliable
@pytest.mark.filterwarnings("ignore:.* is undefined:RuntimeWarning")
def test_a_resampled_metric_keeps_the_caveats() -> None:
    real, fake = sample("gauss", 400, 1, 0), sample("gauss", 400, 1, 1)
    result = at_sample_size(functools.partial(topp_precision_recall, n_bootstrap=20), 200)(real, fake, random_state=0)
    assert "hardly any point" in result.caveats[0]


@pytest.mark.filterwarnings("always::egtmetrics.results.UnreliableScoreWarning")
def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side, seed in (("real", 0), ("fake", 1)):
        frame = pd.DataFrame({"x": sample("gauss", 800, 1, seed)[:, 0], "sex": ["f", "m"] * 400})
        frame.to_csv(tmp_path / f"{side}.csv", index=False)
    files = [
        "evaluate",
        "--metrics",
        "topp",
        str(tmp_path / "real.csv"),
        str(tmp_path / "fake.csv"),
        "--real-groups",
        "sex",
    ]
    files += ["--fake-groups", "sex", "--n-bootstrap", "100"]
    out = tmp_path / "result.json"
    assert main([*files, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("--k-rule sample-size") == 1
    assert "?: a score or a disparity that cannot be relied on" in printed.out
    assert json.loads(out.read_text())["disparities"]["topp"]["delta_p"]["reliable"] is False
    assert main([*files, "--k-rule", "sample-size", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "k_rule='sample-size'" in printed.out
    assert "?" not in printed.out
    assert "support" not in printed.err
    assert min(json.loads(out.read_text())["by_group"]["f"].values()) > 0.9
