"""The page says what the frame says, escapes what users wrote, and is one file that any browser shows as it should.

The last tests need a chromium on the path (``apt-get install chromium``) and are skipped without one.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from egtmetrics.divergences import f_divergence
from egtmetrics.groups import DoseResponse, GenerativeMetricFrame, LabelSensitivity, MissingScoreWarning, off_support
from egtmetrics.metrics import frechet_distance, improved_precision_recall
from egtmetrics.report.explanations import decompose_samples, rank_samples
from egtmetrics.report.page import RankedSamples, render_page
from egtmetrics.samples import GroupedSamples

pytest.importorskip("jinja2")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium")
HOSTILE = ('<script>alert("x")</script>', "$\\frac{&", "_hidden' onload='x", "{{ 7 * 7 }}")
# Elements that have no end tag.
VOID = {"meta", "link", "img", "br"}


def make_samples(names: Sequence[str], shift: float = 0.0, n: int = 120, seed: int = 0) -> dict[str, Any]:
    """Groups of n real and n fake samples; those of the first group are off by ``shift``."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.array(names, dtype=object), n)
    real, fake = rng.normal(size=(2, len(labels), 4))
    fake[labels == names[0]] += shift
    return {"real": real, "fake": fake, "real_sensitive_features": labels, "fake_sensitive_features": labels}


def make_frame(samples: dict[str, Any]) -> GenerativeMetricFrame:
    metrics = {"ipr": improved_precision_recall, "fid": frechet_distance}
    return GenerativeMetricFrame(metrics=metrics, **samples, random_state=0, backend="reference")


class Reader(HTMLParser):
    """Collects elements, the text outside of drawings and styles, and complains of what is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.drawn: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "svg" in self._open or "style" in self._open:
            self.drawn.append(data)
            return
        self.words.append(data)
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] = f"{self.tables[-1][-1][-1]} {data}".strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def unequal() -> GenerativeMetricFrame:
    return make_frame(make_samples(["f", "m"], shift=1.5))


@functools.cache
def full_page(names: tuple[str, ...]) -> str:
    """Every section, with texts for the first group and images for the others."""
    samples = make_samples(names, shift=1.5)
    ranking = rank_samples(GroupedSamples(**samples), n_samples=2, backend="reference")
    levels = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    contents: dict[int, Any] = {
        row: f"She wrote <b>{row}</b> " + "x" * 700 if row < 120 else levels for row in ranking["row"].tolist()
    }
    return render_page(
        make_frame(samples),
        divergence=decompose_samples(GroupedSamples(**samples), n_permutations=50, random_state=0),
        samples=RankedSamples(ranking=ranking, contents=contents),
        provenance={"real": {"file": "a<b>.npz"}},
        command="egtmetrics report 'a<b>.npz'",
    )


def test_the_summary_names_the_worse_group_the_gap_and_its_interval(unequal: GenerativeMetricFrame) -> None:
    text = Reader(render_page(unequal)).text
    disparities, intervals = unequal.disparities(), unequal.interval().disparities
    assert "The groups score unequally: 3 of 3 gaps are more than noise" in text
    assert "Whether the model is the cause is not known here" in text
    assert "f is worse off in 3 scores" in text
    by_group, row = 100 * unequal.by_group, ("ipr", "delta_p")
    low, high = 100 * intervals.loc[row, "low"], 100 * intervals.loc[row, "high"]
    assert (
        f"Improved precision and recall: precision is worse for f: {by_group.loc['f', 'ipr_precision']:.2f} % against "
        f"{by_group.loc['m', 'ipr_precision']:.2f} % for m, a gap of {100 * disparities.loc[row, 'value']:.2f} points "
        f"(95% interval {low:.2f} to {high:.2f}, corrected p < 0.001). more than noise"
    ) in text
    fid = unequal.by_group["fid"]
    assert f"Fréchet distance is worse for f: {fid['f']:.4g} against {fid['m']:.4g} for m" in text  # lower is better
    expected = 100 * intervals.loc[row, "expected_if_equal"]
    assert f"{low:.2f} to {high:.2f} {expected:.2f} < 0.001 m f" in text  # in the table


def test_equal_groups_are_not_said_to_differ() -> None:
    reader = Reader(render_page(make_frame(make_samples(["f", "m"], seed=3))))
    assert "None of the 3 gaps between the groups is distinguishable from noise with these samples" in reader.text
    assert reader.text.count(". not distinguishable") == 3
    assert "worse off" not in reader.text
    assert not any("tag alarm" in (attributes.get("class") or "") for attributes in reader.all("span"))


def test_the_summary_speaks_of_the_excess_over_other_real_samples(unequal: GenerativeMetricFrame) -> None:
    baseline = unequal.baseline(n_splits=2)
    reader = Reader(render_page(unequal, baseline=baseline))
    assert "The model is not equally good for every group. How far it is from other real samples" in reader.text
    assert "in 3 of 3 scores, by more than noise" in reader.text
    assert "f is worse off in 3 scores" in reader.text
    size = baseline.sizes["n_samples"]["f"]
    model, placebo, excess = (
        100 * table["ipr_precision"] for table in (baseline.model, baseline.placebo, baseline.excess)
    )
    assert (
        f"With {size} samples in each set, the model scores {model['f']:.2f} % for f and {model['m']:.2f} % for m. A "
        f"perfect generator would score about {placebo['f']:.2f} % for f and {placebo['m']:.2f} % for m"
    ) in reader.text
    assert (
        f"The excess of the model is {excess['f']:+.2f} points for f and {excess['m']:+.2f} points for m" in reader.text
    )
    rows = next(table for table in reader.tables if "excess (%)" in " ".join(table[0]))
    assert rows[1][1] == f"{model['f']:.2f}"


def test_a_perfect_generator_is_not_said_to_be_unequal() -> None:
    frame = make_frame(make_samples(["f", "m"], seed=4))
    text = Reader(render_page(frame, baseline=frame.baseline(n_splits=2))).text
    assert "No gap between the groups is shown to be the model's" in text
    detectable = 100 * frame.baseline(n_splits=2).test()["detectable"]["ipr", "delta_p"]
    assert f"not distinguishable from noise at this size; {detectable:.2f} points would have been found" in text


def damaged_page(doses: dict[str, float], damages: str = "off_support,copies") -> tuple[Reader, DoseResponse]:
    """Of a model whose samples are off the data, by group; group m has a third of the dimensions of f."""
    samples = make_samples(list(doses), seed=5)
    flat = np.where(samples["real_sensitive_features"][:, None] == "m", [1.0, 0.05, 0.05, 0.05], 1.0)
    samples["real"], samples["fake"] = samples["real"] * flat, samples["fake"] * flat
    for seed, (group, dose) in enumerate(doses.items()):
        rows = samples["fake_sensitive_features"] == group
        samples["fake"][rows] = off_support(samples["fake"][rows], dose, np.random.default_rng(seed))
    frame = make_frame(samples)
    response = frame.dose_response(damages, n_splits=1)
    return Reader(render_page(frame, baseline=frame.baseline(n_splits=1), dose=response)), response


def test_the_summary_speaks_of_unequal_doses() -> None:
    reader, response = damaged_page({"f": 0.05, "m": 0.5})
    summary = response.summary()
    text = reader.text
    assert f"The model is not equally good for every group. T{summary[1:]}. Doses are equal for equal damage" in text
    assert re.search(r"They differ by more than noise in \d of \d scores that read them", text)
    tried = next(table for table in reader.tables if table[0][0] == "damage")
    low, high, dose = (100 * response.agreement.loc[("off_support", "m"), key] for key in ("low", "high", "dose"))
    assert tried[1] == [
        "share of the samples off the data (off_support)",
        "yes, best",
        tried[1][2],
        f"{dose:.2f} % {low:.2f} to {high:.2f} %",
    ]
    assert tried[2][1:] == ["no", "every dose fits", "no dose fits"]
    read = next(table for table in reader.tables if table[0] == ["group", "precision", "recall", "FID"])
    assert read[2][1].startswith(f"{100 * response.doses.loc[('off_support', 'm'), 'ipr_precision']:.2f} ")
    gap = 100 * response.disparities().loc[("fid", "delta_fid"), "value"]
    assert any(
        row[0] == "fid: FID" and row[1].startswith(f"{gap:.2f} points") for table in reader.tables for row in table
    )
    assert "the model, for" in " ".join(reader.drawn)


def test_equal_damage_of_unlike_groups_is_not_said_to_be_unequal_treatment() -> None:
    """Though the scores differ: FID grows with the spread of the group that the samples lie off."""
    reader, response = damaged_page({"f": 0.3, "m": 0.3}, "off_support")
    assert response.explanation == "off_support"
    assert "No group is shown to be damaged more than another." in reader.text
    assert "equal damage can cost unlike groups unequally" in reader.text
    assert "not equally good" not in reader.text


def test_where_no_known_damage_explains_the_scores_the_page_states_no_dose() -> None:
    reader, response = damaged_page({"f": 0.3, "m": 0.3}, "copies")
    assert response.explanation is None
    assert "No known damage explains the scores (copies were tried). At no dose" in reader.text
    assert "How far it is from other real samples" in reader.text  # the summary
    assert "as if" not in reader.text


def test_without_intervals_nothing_is_said_to_exceed_noise(unequal: GenerativeMetricFrame) -> None:
    text = Reader(render_page(unequal, level=None)).text
    assert "more than noise is not known, because there are no tests: none were asked for" in text
    assert "corrected p" not in text
    small = make_frame(make_samples(["f", "m"], shift=1.5, n=20))
    text = Reader(render_page(small)).text
    assert "group 'f' has 20 samples on one side, and an interval needs at least 50" in text
    with pytest.raises(ValueError, match="level=1"):
        render_page(unequal, level=1.0)


def test_the_page_of_a_saved_frame_has_its_intervals_and_says_why_it_has_no_tests(
    unequal: GenerativeMetricFrame,
) -> None:
    saved = GenerativeMetricFrame.from_json(unequal.to_json(unequal.interval()))
    reader = Reader(render_page(saved))
    assert reader.tables[:2] == [
        [[cell.replace("worse ", "") for cell in row] for row in table]
        for table in Reader(render_page(unequal)).tables[:2]
    ]
    assert "because there are no tests: an interval or a test needs the samples" in reader.text
    assert "As measured, f is worse off in 3 scores" in reader.text
    assert "more than noise" not in reader.text.replace("differ by more than noise is not known", "")
    low, high = 100 * unequal.interval().disparities.loc[("ipr", "delta_p"), ["low", "high"]]
    assert f"points (95% interval {low:.2f} to {high:.2f}). not tested" in reader.text


def test_every_score_of_every_group_is_in_a_table(unequal: GenerativeMetricFrame) -> None:
    reader = Reader(render_page(unequal))
    bounds = unequal.interval().by_group
    rows = {(i, row[0]): row[1:] for i, table in enumerate(reader.tables) for row in table}
    for group in "fm":
        for i, columns in ((0, ["ipr_precision", "ipr_recall"]), (1, ["fid"])):
            for cell, column in zip(rows[i, group], columns, strict=True):
                scale, style = (1, ".4g") if column == "fid" else (100, ".2f")
                low, high = scale * bounds.loc[(column, group), ["low", "high"]]
                value = scale * unequal.by_group.loc[group, column]
                assert cell.replace("worse ", "") == f"{value:{style}} {low:{style}} to {high:{style}}"
                assert ("worse" in cell) == (group == "f")
    gaps = {row[0]: row[1:] for row in reader.tables[2]}
    value = 100 * unequal.disparities().loc[("ipr", "delta_pr"), "value"]
    assert gaps["ipr: precision + recall"][0].startswith(f"{value:.2f} points")
    assert gaps["fid: FID (squared feature units)"][-2:] == ["f", "m"]


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_proportions_of_all_samples_are_shown_where_the_scores_saw_a_part() -> None:
    rng = np.random.default_rng(3)
    samples = GroupedSamples(
        real=rng.normal(size=(400, 2)),
        fake=rng.normal(size=(200, 2)),
        real_sensitive_features=["f"] * 300 + ["m"] * 100,
        fake_sensitive_features=["f"] * 100 + ["m"] * 100,
    )
    whole, matched = (
        Reader(render_page(GenerativeMetricFrame(metrics="fid", samples=one), level=None)).text
        for one in (samples, samples.matched(across_groups=True, random_state=0))
    )
    for text in (whole, matched):
        assert "50.00 % of the generated samples are f, and 75.00 % of the real ones" in text
        assert "MGO (matching generative odds), is 25.00 points" in text
        assert "up to 0.00 points: EGO" in text
    assert ("before some were left out" in matched, "before some were left out" in whole) == (True, False)
    assert ("number of real samples" in matched, "number of real samples" in whole) == (False, True)


def test_cautions_name_unequal_sizes_and_rows_in_no_group() -> None:
    samples = make_samples(["f", "m"])
    samples["fake_sensitive_features"] = samples["fake_sensitive_features"].copy()
    samples["fake_sensitive_features"][:40] = None
    text = Reader(render_page(make_frame(samples))).text
    assert "number of generated samples, from 80 in f to 120 in m" in text
    assert "number of real samples" not in text
    assert "0 real and 40 generated samples are in no group" in text


def test_the_rate_of_wrong_labels_that_changes_a_finding_is_a_caution(unequal: GenerativeMetricFrame) -> None:
    (metric, *_) = unequal.settings["metrics"]
    found = LabelSensitivity(metric=metric, finding="beyond", changed="undecided", error_rate=0.031, contamination=0.2)
    text = Reader(render_page(unequal, level=None, sensitivity={metric: found})).text
    assert f"{unequal.title(metric)}: The gap is beyond if the labels" in text
    assert "undecided if 3.1 % of every group had another" in text


def test_what_users_wrote_is_text() -> None:
    page = full_page(HOSTILE)
    reader = Reader(page)
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"script", "b", "iframe", "object", "foreignobject"}
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    for name in HOSTILE:
        assert name in reader.text
    drawn = " ".join(re.findall(r"<text[^>]*>(.*?)</text>", page, flags=re.DOTALL))
    for shown in ("&lt;script", "$\\frac{&amp;", "_hidden", "{{ 7 * 7 }}"):
        assert shown in drawn
    assert "a<b>.npz" in reader.text
    assert "She wrote <b>" in reader.text
    assert "x" * 601 not in reader.text


def test_the_page_is_one_file_and_repeats() -> None:
    page = full_page(("f", "m"))
    assert page == full_page.__wrapped__(("f", "m"))
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", page) == []
    assert re.findall(r"@import|url\((?!#)|<script", page) == []
    identifiers = re.findall(r'\bid="([^"]*)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', page)) <= set(identifiers)
    for image in re.findall(r'src="data:image/png;base64,([^"]*)"', page):
        assert PIL.Image.open(io.BytesIO(base64.b64decode(image))).size == (8, 8)


def test_the_page_can_be_listened_to() -> None:
    reader = Reader(full_page(("f", "m")))
    assert reader.all("html") == [{"lang": "en"}]
    assert len(reader.all("h1")) == 1
    assert all(image["alt"] for image in reader.all("img"))
    assert len(reader.all("img")) == 4
    drawings = reader.all("svg")
    assert len(drawings) == 3
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    assert len(reader.all("caption")) == len(reader.tables) >= 5
    assert all(header["scope"] in ("col", "row") for header in reader.all("th"))


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")
def test_groups_of_several_features_and_a_group_without_scores() -> None:
    samples = make_samples(["f", "m"], shift=1.5)
    ages = np.tile(["old", "young"], 120)
    labels = pd.DataFrame({"gender": samples["real_sensitive_features"], "age": ages})
    samples |= {"real_sensitive_features": labels, "fake_sensitive_features": labels}
    text = Reader(
        render_page(make_frame(samples), divergence=decompose_samples(GroupedSamples(**samples), n_permutations=9))
    ).text
    assert "f, old" in text
    fake_labels = labels.copy()
    fake_labels.loc[(labels == ["f", "old"]).all(axis=1), "age"] = "young"
    samples["fake_sensitive_features"] = fake_labels
    frame = GenerativeMetricFrame(
        metrics=improved_precision_recall, **samples, missing_groups="nan", backend="reference"
    )
    divergence = decompose_samples(GroupedSamples(**samples), n_permutations=9)
    text = Reader(render_page(frame, divergence=divergence)).text
    assert "Improved precision and recall has no score for f, old. Its gaps are those between the other groups" in text
    assert "points, without f, old" in text
    assert "improved_precision_recall: precision, without f, old" in text
    assert "Not judged in every metric, for want of samples: f, old." in text
    few = make_samples(["f", "m"], shift=1.5)
    groups = np.where(np.arange(240) % 8 == 0, "x", few["real_sensitive_features"])
    few |= {"real_sensitive_features": groups, "fake_sensitive_features": groups}
    with pytest.warns(MissingScoreWarning, match="no interval for group 'x'"):
        text = Reader(render_page(make_frame(few | {"missing_groups": "nan"}))).text
    assert "Fréchet distance has no interval for x. Its gaps are those between the other groups" in text
    assert "3 of 3 gaps are more than noise" in text
    tiny = np.where(np.arange(240) % 80 == 0, "w", few["real_sensitive_features"])
    with pytest.warns(MissingScoreWarning, match="no score for group 'w'"):
        frame = GenerativeMetricFrame(
            metrics=improved_precision_recall,
            **few | {"real_sensitive_features": tiny, "fake_sensitive_features": tiny},
            backend="reference",
        )
    text = Reader(render_page(frame, level=None)).text
    assert "Improved precision and recall has no score for w. Its gaps are" in text
    assert "w: real has 3 rows, but n_neighbors=3 needs at least 4; add samples or lower n_neighbors." in text
    samples["fake_sensitive_features"] = pd.DataFrame({"gender": ["m"] * 240, "age": "old"})
    frame = GenerativeMetricFrame(
        metrics=improved_precision_recall, **samples, missing_groups="nan", backend="reference"
    )
    text = Reader(render_page(frame)).text
    assert "precision has no gap, because fewer than two groups have a score" in text


# What the page explains


def test_the_parts_of_the_divergence_add_up() -> None:
    samples = make_samples(["f", "m", "x"], shift=1.5)
    samples["fake_sensitive_features"] = np.array(["f"] * 60 + ["m"] * 180 + ["x"] * 120, dtype=object)
    result = decompose_samples(GroupedSamples(**samples), n_permutations=200, random_state=0)
    parts = result.decomposition
    assert parts.weights is not None
    added = sum(weight * (parts.by_group[group] or 0.0) for group, weight in parts.weights.items())
    assert parts.total == pytest.approx(parts.proportion_term + added)
    assert parts.proportion_term == pytest.approx(
        f_divergence([1 / 3] * 3, [60 / 360, 180 / 360, 120 / 360], f="hellinger")
    )
    assert result.n_clusters == 4  # 60 to the power of 1/3
    assert (parts.by_group["f"] or 0.0) > result.chance["f"]


def test_equal_laws_exceed_chance_as_often_as_stated() -> None:
    """400 groups of one law: 5 % are above the 95 % level, give or take 3.2 standard errors (false alarm 1 in 700)."""
    exceeded = []
    for seed in range(100):
        samples = make_samples(list("abcd"), n=40, seed=seed)
        result = decompose_samples(GroupedSamples(**samples), n_clusters=6, n_permutations=199, random_state=seed)
        exceeded += [(result.decomposition.by_group[a] or 0.0) > chance for a, chance in result.chance.items()]
    assert abs(np.mean(exceeded) - 0.05) < 3.2 * np.sqrt(0.05 * 0.95 / 400)


def test_ranks_are_those_of_a_search_over_all_pairs() -> None:
    samples = make_samples(["f", "m"], shift=0.7, n=30)
    ranked = rank_samples(GroupedSamples(**samples), n_samples=3, n_neighbors=2, backend="reference")
    for group in "fm":
        rows = np.flatnonzero(samples["fake_sensitive_features"] == group)
        real = samples["real"][rows]

        def second(x: Any, real: Any = real) -> Any:
            return np.sort(np.linalg.norm(x[:, None] - real, axis=2), axis=1)

        scores = second(samples["fake"][rows])[:, 1] / np.median(second(real)[:, 2])  # column 0 is the point itself
        chosen = ranked[ranked["group"] == group]
        order = rows[np.argsort(scores)]
        assert chosen[chosen["end"] == "farthest"]["row"].tolist() == order[::-1][:3].tolist()
        assert chosen[chosen["end"] == "nearest"]["row"].tolist() == order[:3].tolist()
        np.testing.assert_allclose(chosen["score"], scores[chosen["row"] - rows[0]])


def test_groups_that_cannot_be_ranked_have_no_rows() -> None:
    groups = ["a"] * 4 + ["b"] * 4
    real = [[0.0]] * 4 + [[0.0], [1.0], [2.0], [3.0]]
    samples = GroupedSamples(real=real, fake=real, real_sensitive_features=groups, fake_sensitive_features=groups)
    ranked = rank_samples(samples, n_neighbors=9, n_samples=9)
    assert ranked["group"].tolist() == ["b"] * 4
    assert len(set(ranked["row"])) == 4  # no sample at both ends


def test_notebooks_show_tables_with_names_escaped() -> None:
    frame = make_frame(make_samples(["<i>f", "m"]))
    shown = frame._repr_html_()
    assert "&lt;i&gt;f" in shown
    assert "<i>" not in shown
    assert "delta_pr" in shown
    assert f"{frame.by_group.loc['m', 'fid']:.4g}" in shown
    result = frame.overall_results["ipr"]._repr_html_()  # type: ignore[union-attr]
    assert "ImprovedPrecisionRecallResult: 240 real and 240 fake samples" in result
    assert f"<td>{100 * frame.overall['ipr_precision']:.2f} %</td>" in result
    assert Reader(result).all("th") == [{"scope": "row", "style": "text-align: left"}] * 2


# In a browser

PROBE = """<script>
const linear = x => x <= 10 ? x / 3294.6 : ((x / 255 + .055) / 1.055) ** 2.4;
const luminance = c => { const v = c.map(linear);
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const colour = text => (text.match(/[\\d.]+/g) || []).map(Number);
const behind = e => { for (; e; e = e.parentElement) { const c = colour(getComputedStyle(e).backgroundColor);
  if (c.length === 3) return c; } return [255, 255, 255]; };
let worst = 21;
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  if (!own || e.tagName === "STYLE" || e.tagName === "SCRIPT") continue;
  const style = getComputedStyle(e), ink = colour(e.namespaceURI.includes("svg") ? style.fill : style.color);
  const [a, b] = [luminance(ink), luminance(behind(e))].sort((x, y) => y - x);
  worst = Math.min(worst, (a + .05) / (b + .05));
}
parent.postMessage(JSON.stringify({
  contrast: worst, width: document.documentElement.scrollWidth, window: innerWidth,
  headless: [...document.querySelectorAll("table")].filter(t => !t.querySelector("thead th") || !t.caption).length,
  broken: [...document.images].filter(i => !i.naturalWidth).length,
  texts: [...document.querySelectorAll("svg text")].map(t => t.getBoundingClientRect().height),
}), "*");
</script></body>"""


FRAME = """<!DOCTYPE html><title>frame</title><link rel="icon" href="data:,"><body>
<script>onmessage = event => document.body.dataset.probe = event.data;</script>
<iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe></body>"""


def browse(page: str, folder: Path, width: int) -> tuple[dict[str, Any], str]:
    """What a probe in the page says, and the console, where the page's policy reports whatever it would load."""
    assert CHROMIUM is not None
    assert "default-src 'none'" in page
    file = folder / "page.html"
    policy = page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    file.write_text(policy.replace("</body>", PROBE), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    frame = folder / "frame.html"  # because a window has a least width, and a frame has none
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    command = [CHROMIUM, *options, "--window-size=1300,900", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    probe = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert probe is not None, done.stderr
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html.unescape(probe[1])), console


@needs_browser
def test_the_browser_test_sees_what_is_wrong(tmp_path: Path) -> None:
    wrong = '<img src="http://example.invalid/x.png"><p style="color: #aaa; width: 900px">pale</p></main>'
    found, console = browse(full_page(("f", "m")).replace("</main>", wrong), tmp_path, 360)
    assert "Content Security Policy" in console
    assert found["contrast"] < 3
    assert found["width"] > 800
    assert found["broken"] == 1


@needs_browser
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_it_without_complaint(width: int, tmp_path: Path) -> None:
    found, console = browse(full_page(HOSTILE), tmp_path, width)
    assert console == ""
    assert found["window"] == width
    assert found["width"] <= width  # nothing to scroll sideways but inside a table
    assert found["contrast"] >= 4.5  # WCAG 2.2, level AA
    assert found["headless"] == 0
    assert found["broken"] == 0
    assert min(found["texts"]) > 7.5  # pixels


def test_control_characters_and_names_of_files_that_are_not_utf8_are_escapes(unequal: GenerativeMetricFrame) -> None:
    page = render_page(unequal, title="red \x1b[31m\x00", level=None, provenance={"file": "caf\udce9\x07.npz"})
    assert "<h1>red \\x1b[31m\\x00</h1>" in page
    assert "file: caf\\udce9\\x07.npz" in page
    page.encode()
