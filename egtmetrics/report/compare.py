"""Several models on one set of real samples, side by side, and which of them differ from the first."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from egtmetrics import __version__
from egtmetrics._errors import listed
from egtmetrics._random import RandomState
from egtmetrics._validation import check_positive_int
from egtmetrics.groups import (
    FrameIntervals,
    GenerativeMetricFrame,
    GroupSizeWarning,
    compare_frames,
    permutation_test_frames,
)
from egtmetrics.groups.inference import holm
from egtmetrics.labels import group_text
from egtmetrics.report._page_parts import Gap, Inference, find_gaps, infer
from egtmetrics.report.tables import (
    Columns,
    Format,
    check_format,
    fact,
    groups_title,
    mark,
    method_notes,
    note_lines,
    section,
)
from egtmetrics.results import UNRELIABLE, Score

_LEVEL = 0.95


def compare_with_first(
    frames: Mapping[str, GenerativeMetricFrame],
    *,
    n_permutations: int | None = None,
    random_state: RandomState = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Test every model against the first: every score, overall and by group, and every disparity, corrected by Holm.

    Parameters
    ----------
    frames
        One frame per model, two or more, all with the same metrics, groups and real samples.
    n_permutations
        None tests for equal expected scores (:func:`~egtmetrics.groups.compare_frames`). A number tests for equal laws
        instead, by as many permutations of the samples for each test
        (:func:`~egtmetrics.groups.permutation_test_frames`). Then the real samples may differ.
    random_state
        Of the permutations; one integer gives all models the same ones.
    progress
        Show progress bars.

    Returns
    -------
    DataFrame
        One row for each test: ``model``, then what the function named above returns (``difference`` is model minus the
        first), and ``adjusted_p_value``, corrected for the number of rows with a p-value. ``attrs["null_hypothesis"]``
        says what was tested, ``attrs["n_permutations"]`` how many permutations there were.

    Raises
    ------
    ValueError
        Fewer than two models, frames of different metrics or groups, what the functions named above refuse, or too few
        permutations for any corrected p-value to reach 0.05.

    Notes
    -----
    Cost: that of the function named above for each model but the first.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> real, groups = rng.normal(size=(200, 2)), ["f", "m"] * 100
    >>> fakes = {"good": rng.normal(size=(200, 2)), "unfair": rng.normal([[1.0, 1.0], [0.0, 0.0]] * 100)}
    >>> frames = {
    ...     name: GenerativeMetricFrame(metrics="fid", real=real, fake=fake, random_state=0,
    ...                                 real_sensitive_features=groups, fake_sensitive_features=groups)
    ...     for name, fake in fakes.items()}
    >>> tests = compare_with_first(frames)
    >>> tests.attrs["null_hypothesis"]
    'equal expected scores'
    >>> tests[["model", "score", "group"]].assign(differs=tests["adjusted_p_value"] <= 0.05)
        model      score group  differs
    0  unfair        fid  None     True
    1  unfair        fid     f     True
    2  unfair        fid     m    False
    3  unfair  delta_fid  None     True
    """
    _check_frames(frames)
    first, *others = frames
    if n_permutations is not None:
        n_tests = sum(_n_tests(frames[model], frames[first]) for model in others)
        fewest = math.ceil(n_tests / (1.0 - _LEVEL) - 1e-9) - 1
        if check_positive_int(n_permutations, "n_permutations") < fewest:
            raise ValueError(
                f"n_permutations={n_permutations} cannot show a difference in any of {n_tests} tests after correction "
                f"for their number; pass at least {fewest}, or fewer models or metrics"
            )

    def compare(frame: GenerativeMetricFrame, other: GenerativeMetricFrame) -> pd.DataFrame:
        if n_permutations is None:
            with warnings.catch_warnings():  # render_comparison prints the sizes
                warnings.simplefilter("ignore", GroupSizeWarning)
                return compare_frames(frame, other, progress=progress)
        return permutation_test_frames(
            frame, other, n_permutations=n_permutations, random_state=random_state, progress=progress
        )

    parts = []
    for model in others:
        part = compare(frames[model], frames[first])
        part.insert(0, "model", model)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    table["adjusted_p_value"] = holm(table["p_value"].to_numpy())
    table.attrs = {
        "null_hypothesis": "equal expected scores" if n_permutations is None else "equal laws",
        "n_permutations": n_permutations,
    }
    return table


def _n_tests(frame: GenerativeMetricFrame, first: GenerativeMetricFrame) -> int:
    """Return how many differences between the two frames are numbers, not NaN."""
    tables = (one.disparities().drop(index="proportions", level="metric") for one in (frame, first))
    gaps, first_gaps = (table["value"].where(table["without"].map(len) == 0) for table in tables)  # of all groups
    differences = (frame.overall - first.overall, frame.by_group - first.by_group, gaps - first_gaps)
    return sum(int(np.isfinite(difference.to_numpy(dtype=float)).sum()) for difference in differences)


def render_comparison(
    frames: Mapping[str, GenerativeMetricFrame],
    *,
    tests: pd.DataFrame | None = None,
    untested: str = "",
    intervals: Mapping[str, FrameIntervals] | None = None,
    format: Format = "table",
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Return a table for each metric: every model's scores, overall and by group, and its disparities.

    A star marks what differs from the first model (``tests``). A dagger marks a disparity that is more than noise
    (``frame.test``; a frame that was read from JSON has no tests). Both are at the 0.05 level, corrected for the number
    of tests: of all models for stars, of one model for daggers. ``?`` stands behind what cannot be relied on
    (``frame.caveats``), which has neither, nor have differences from it.

    Parameters
    ----------
    frames
        One frame per model, all with the same metrics and groups.
    tests
        From :func:`compare_with_first`; without it the table has no stars.
    untested
        Why there are no ``tests``.
    intervals
        What ``frame.interval(...)`` returned for every model: printed beside the scores of groups and the disparities.
    format, provenance
        As for :func:`~egtmetrics.report.render`.

    Raises
    ------
    ValueError
        Fewer than two models, or frames of different metrics or groups.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> real, groups = [[0.0], [0.0], [1.0], [1.0]], ["f", "f", "m", "m"]
    >>> frames = {name: GenerativeMetricFrame(
    ...     metrics={"gap": mean_gap}, real=real, fake=fake, random_state=0,
    ...     real_sensitive_features=groups, fake_sensitive_features=groups)
    ...     for name, fake in {"a": [[0.5], [0.5], [1.0], [1.0]], "b": [[0.0], [0.0], [3.0], [3.0]]}.items()}
    >>> print(*render_comparison(frames).splitlines()[2:8], sep="\\n")
    score    group       a    b
    -------  -------  ----  ---
    gap      overall  0.25    1
             f         0.5    0
             m           0    2
    δ gap              0.5    2
    """
    check_format(format)
    _check_frames(frames)
    if format == "json":
        models = {name: frame.to_dict((intervals or {}).get(name)) for name, frame in frames.items()}
        about: dict[str, Any] = {"untested": untested, "tests": []}
        if tests is not None:
            about = {str(key): value for key, value in tests.attrs.items()}
            about["tests"] = _plain_rows(tests, next(iter(frames.values())))
        content = {"egtmetrics": __version__, **(provenance or {}), "models": models, **about}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    first = next(iter(frames.values()))
    inferences = {name: infer(frame, _LEVEL) for name, frame in frames.items()}
    gaps = {name: find_gaps(frame, inferences[name]) for name, frame in frames.items()}
    differing = set() if tests is None else _differing(tests)
    shown = {name: Inference(level=found.level, intervals=found) for name, found in (intervals or {}).items()}
    parts = [
        section(first.title(metric), _columns(frames, gaps, metric, differing, shown), format)
        for metric in first.settings["metrics"]
    ]
    reasons = {name: inference.reason for name, inference in inferences.items() if inference.reason}
    notes = [*_marks(frames, tests, untested, reasons), *method_notes(first, {})]
    if intervals:
        level = next(iter(intervals.values())).level
        notes.insert(
            0, f"[low, high]: {100 * level:g} % intervals of each model alone, approximate, as in egtmetrics evaluate."
        )
    notes += [f"{name}: {fact(value)}" for name, value in (provenance or {}).items()]
    return "\n\n".join([*parts, note_lines(notes, format)]) + "\n"


def undecided(tests: pd.DataFrame, metric: str) -> list[tuple[str, Hashable]]:
    """Return model and group of every point that may differ from the first model by chance only.

    :func:`~egtmetrics.report.plot_precision_recall` takes them as ``hollow``.
    """
    differing = _differing(tests)
    points = tests[(tests["metric"] == metric) & tests["group"].notna()][["model", "group"]]
    return [
        (model, group)
        for model, group in dict.fromkeys(points.itertuples(index=False, name=None))
        if not any((model, metric, score, group) in differing for score in ("precision", "recall"))
    ]


def _differing(tests: pd.DataFrame) -> set[tuple[str, str, str, Hashable | None]]:
    """Return model, metric, score and group of every test that rejects at the 0.05 level and can be relied on."""
    found = tests[(tests["adjusted_p_value"] <= 1.0 - _LEVEL) & tests["reliable"]]
    return set(found[["model", "metric", "score", "group"]].itertuples(index=False, name=None))


def _check_frames(frames: Mapping[str, GenerativeMetricFrame]) -> None:
    if len(frames) < 2:
        raise ValueError(f"frames has {len(frames)} models; pass two or more to compare")
    first, *others = frames
    for name in others:
        for what, table in (("scores", "columns"), ("groups", "index")):
            mine, theirs = (list(getattr(frames[model].by_group, table)) for model in (name, first))
            if mine != theirs:
                raise ValueError(
                    f"model {name!r} has the {what} [{listed(map(repr, mine))}] and {first!r} has "
                    f"[{listed(map(repr, theirs))}]; evaluate all models with the same metrics and groups"
                )


def _columns(
    frames: Mapping[str, GenerativeMetricFrame],
    gaps: Mapping[str, Sequence[Gap]],
    metric: str,
    differing: set[tuple[str, str, str, Hashable | None]],
    shown: Mapping[str, Inference],
) -> Columns:
    """A row for every score overall and of every group, and for every disparity; a column for every model."""
    first = next(iter(frames.values()))
    groups = first.by_group.index.tolist()
    table = first.tables[metric]
    names: list[str] = []
    labels: list[str] = []
    for name, score in table.described.items():
        names += [f"{name} ({score.printed_unit})" if score.printed_unit else name, *([""] * len(groups))]
        labels += ["overall", *map(group_text, groups)]
    names += [f"δ {disparity.column or disparity.label}" for disparity in table.disparities]
    columns = [("score", names), (groups_title(first), labels + [""] * (len(names) - len(labels)))]
    for model, frame in frames.items():
        known = shown.get(model)
        cells = []
        for name, score in table.described.items():
            column = table.column(name)
            values = [frame.overall[column], *frame.by_group[column]]
            for value, group in zip(values, [None, *groups], strict=True):
                star = "*" if (model, metric, name, group) in differing else ""
                bounds = None if known is None or group is None else known.score_bounds(column, group)
                cells.append(score.text(value) + mark(frame, metric, group) + star + _beside(bounds, score))
        for gap in (gap for gap in gaps[model] if gap.table.metric == metric):
            key, score = (metric, gap.disparity.name), gap.disparity.score
            star = "*" if (model, *key, None) in differing else ""
            dagger = "†" if gap.beyond_noise else ""
            bounds = None if known is None else known.bounds(key)
            doubt = "" if gap.reliable else UNRELIABLE
            cells.append(score.text(gap.pair.value) + doubt + star + dagger + _beside(bounds, score))
        columns.append((model, cells))
    return columns


def _beside(bounds: tuple[float, float] | None, score: Score) -> str:
    return "" if bounds is None else " [{}, {}]".format(*map(score.text, bounds))


def _plain_rows(tests: pd.DataFrame, frame: GenerativeMetricFrame) -> list[dict[str, Any]]:
    """Return the tests as JSON has them: groups under their names in the frames, null for NaN and infinity."""
    names = dict(zip(frame.by_group.index, frame.to_dict()["by_group"], strict=True))
    rows = []
    for row in tests.to_dict("records"):
        plain = {str(key): None if isinstance(value, float) and not math.isfinite(value) else value
                 for key, value in row.items()}  # fmt: skip
        rows.append({**plain, "group": names.get(row["group"])})
    return rows


def _marks(
    frames: Mapping[str, GenerativeMetricFrame], tests: pd.DataFrame | None, untested: str, reasons: Mapping[str, str]
) -> list[str]:
    first = next(iter(frames))
    if tests is None:
        reason = f" ({untested})" if untested else ""
        notes = [f"The models were not tested against each other{reason}: a better score may be noise."]
    else:
        notes = [
            f"*: differs from {first} at the 0.05 level. Tested: every score, overall and of every group, and every δ, "
            f"of every other model; {tests['p_value'].count()} tests, corrected together by Holm's method. A "
            "difference without a star is not distinguishable from noise at this size. Proportions of groups are "
            "not tested."
        ]
        n_permutations = tests.attrs["n_permutations"]
        if n_permutations is None:
            notes.append(
                f"Each test asks whether the model and {first} have equal scores, or equal δ, but for chance. It is a "
                "normal approximation from the scores of random halves and quarters of the samples. The halves of the "
                "real samples are the same for both models."
            )
        else:
            notes.append(
                f"Each test asks whether the model and {first} generate the same distribution. Two models that do not "
                "may have equal scores and still get a star. A test permutes the samples that the scores were computed "
                f"on, {n_permutations} times: between the two models within each group for scores of groups and δ, "
                "regardless of groups for overall scores."
            )
    notes += [f"{name}: {note}" for name, frame in frames.items() for note in frame._refusal_notes()]
    notes += _size_notes(frames)
    notes.append("†: a δ that is more than noise at the 0.05 level, corrected for their number within the model.")
    caveats = [f"{name}: {note}" for name, frame in frames.items() for note in frame._caveat_notes()]
    if caveats:
        notes.append(
            f"{UNRELIABLE}: cannot be relied on, nor can any difference from another model, which has no * therefore."
        )
        notes += caveats
    notes += [f"No † for {name}: {reason}" for name, reason in reasons.items()]
    return [*notes, "δ: the largest difference between two groups, in points where the score is in percent."]


def _size_notes(frames: Mapping[str, GenerativeMetricFrame]) -> list[str]:
    """Say where the models were scored on different numbers of samples."""
    counts = {name: frame.scored_counts for name, frame in frames.items()}
    totals = {name: table.sum() for name, table in counts.items()}
    sizes = {"in all": {name: tuple(total) for name, total in totals.items()}}
    for group in next(iter(counts.values())).index:
        sizes[group_text(group)] = {name: tuple(table.loc[group]) for name, table in counts.items()}
    unequal = [
        f"{where}: " + ", ".join(f"{name} {n} and {m}" for name, (n, m) in of_models.items())
        for where, of_models in sizes.items()
        if len(set(of_models.values())) > 1
    ]
    if not unequal:
        return []
    more = f"; and {len(unequal) - 4} more groups" if len(unequal) > 4 else ""
    return [
        f"The models were scored on different numbers of real and fake samples ({'; '.join(unequal[:4])}{more}). Most "
        "scores depend on these numbers, so a difference may come from them."
    ]
