"""Several models on one set of real samples, side by side, and which of them differ from the first."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import warnings
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from egtmetrics import __version__
from egtmetrics._errors import listed
from egtmetrics._random import RandomState
from egtmetrics._validation import check_positive_int
from egtmetrics.groups import (
    Baseline,
    FrameIntervals,
    GenerativeMetricFrame,
    GroupSizeWarning,
    LabelCorrection,
    ScoreTable,
    Verdict,
    compare_frames,
    permutation_test_frames,
)
from egtmetrics.groups.controlled import ControlledScores
from egtmetrics.groups.inference import holm
from egtmetrics.labels import group_text
from egtmetrics.report._page_parts import Gap, Inference, TrueGroups, WithinStrata, find_gaps, gaps_of, infer
from egtmetrics.report.tables import (
    WIDTH,
    Columns,
    Format,
    baseline_source,
    bounds_text,
    check_format,
    content_of,
    fact,
    groups_title,
    label_columns,
    method_notes,
    note_lines,
    section,
    title_line,
    verdict_columns,
)
from egtmetrics.report.words import in_words
from egtmetrics.results import UNRELIABLE

_LEVEL = 0.95
_Key: TypeAlias = tuple[str, str, str, Hashable | None]
"""Model, metric, score (or disparity) and group (None for all samples and for disparities)."""


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
    baselines: Mapping[str, Baseline] | None = None,
    verdicts: Mapping[str, Mapping[str, Verdict]] | None = None,
    controlled: Mapping[str, ControlledScores] | None = None,
    corrections: Mapping[str, LabelCorrection] | None = None,
    format: Format = "table",
    provenance: Mapping[str, Any] | None = None,
    width: int = WIDTH,
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
    baselines
        What ``frame.baseline()`` returned for every model: a table of the excess for each metric.
    verdicts
        By model and metric, what ``frame.certify(...)`` returned. With baselines or verdicts, the result of every model
        is also said in words.
    controlled
        What ``frame.controlled()`` returned for every model: a table of the averages over strata for each metric. They
        are not tested between models.
    corrections
        What ``frame.correct_labels(...)`` returned for every model: a table of the scores and disparities of true
        groups for each metric that can be corrected, and one of the labels.
    format, provenance, width
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

    def about_model(name: str) -> dict[str, Any]:
        known = {"intervals": intervals, "baseline": baselines, "verdicts": verdicts}
        return {what: (by_model or {}).get(name) for what, by_model in known.items()}

    level = None if not intervals else next(iter(intervals.values())).level
    strata = {name: WithinStrata.of(one, level) for name, one in (controlled or {}).items()}
    true = {name: TrueGroups.of(one, level, (verdicts or {}).get(name)) for name, one in (corrections or {}).items()}
    if format == "json":
        models = {name: content_of(frame, **about_model(name)) for name, frame in frames.items()}
        for name, of_strata in strata.items():
            models[name]["controlled"] = of_strata.to_dict()
        for name, one in true.items():
            models[name]["label_correction"] = one.to_dict()
        about: dict[str, Any] = {"untested": untested, "tests": []}
        if tests is not None:
            about = {str(key): value for key, value in tests.attrs.items()}
            about["tests"] = _plain_rows(tests, next(iter(frames.values())))
        content = {"egtmetrics": __version__, **(provenance or {}), "models": models, **about}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    first = next(iter(frames.values()))
    inferences = {name: infer(frame, _LEVEL) for name, frame in frames.items()}
    gaps = {name: find_gaps(frame, inferences[name]) for name, frame in frames.items()}
    of_excess = {name: infer(baseline, _LEVEL) for name, baseline in (baselines or {}).items()}
    of_averages = {name: infer(one, _LEVEL) for name, one in (controlled or {}).items()}
    differing = set() if tests is None else _differing(tests)
    parts = []
    for metric in first.settings["metrics"]:
        scored = {
            name: _Model(
                table=frame.tables[metric],
                gaps=[gap for gap in gaps[name] if gap.table.metric == metric],
                known=_printed((intervals or {}).get(name)),
                overall={str(column): value for column, value in frame.overall.items()},
                doubtful=frame.caveats().get(metric, {}),
            )
            for name, frame in frames.items()
        }
        parts.append(section(first.title(metric), _columns(scored, groups_title(first), differing), format))
        excess = {
            name: _Model(
                table=baseline.tables()[metric],
                gaps=gaps_of({metric: baseline.tables()[metric]}, of_excess[name]),
                known=_printed(baseline.interval(intervals[name].level) if intervals else None),
                doubtful=baseline.tables()[metric].caveats,
            )
            for name, baseline in (baselines or {}).items()
        }
        if excess:
            title = f"{first.title(metric)}: excess over other real samples"
            parts.append(section(title, _columns(excess, groups_title(first), set()), format))
        averages = {
            name: _Model(
                table=one.scores.tables()[metric],
                gaps=gaps_of({metric: one.scores.tables()[metric]}, of_averages[name]),
                known=_printed(one.inference.intervals),
                doubtful=one.scores.tables()[metric].caveats,
            )
            for name, one in strata.items()
        }
        if averages:
            title = f"{first.title(metric)}: averages over strata"
            parts.append(section(title, _columns(averages, groups_title(first), set()), format))
        corrected = {
            name: _Model(
                table=one.tables[metric],
                gaps=gaps_of({metric: one.tables[metric]}, one.inference),
                known=_printed(one.inference.intervals),
            )
            for name, one in true.items()
            if metric in one.tables
        }
        if corrected:
            title = f"{first.title(metric)}: between true groups"
            parts.append(section(title, _columns(corrected, groups_title(first), set()), format))
    if true:
        rows = {name: label_columns(frames[name], one) for name, one in true.items()}
        joined = [
            (header, [cell for columns in rows.values() for cell in columns[place][1]])
            for place, (header, _) in enumerate(next(iter(rows.values())))
        ]
        models_of_rows = [name for name, columns in rows.items() for _ in columns[0][1]]
        parts.append(section("Labels of the generated samples", [("model", models_of_rows), *joined], format))
    if any((verdicts or {}).values()):
        parts.append(section("Verdicts", _verdicts(verdicts or {}), format))
    if any(one.verdicts for one in true.values()):
        on_true = {name: one.verdicts for name, one in true.items()}
        parts.append(section("Verdicts on true groups", _verdicts(on_true), format))
    if baselines or any((verdicts or {}).values()):
        for name, frame in frames.items():
            words = in_words(frame, **about_model(name))
            parts.append(title_line(f"{name}, in words", format))
            parts[-1] += note_lines(itertools.chain(*words.values()), format, width)
    reasons = {name: found.reason for name, found in inferences.items() if found.reason}
    reasons |= {f"the excess of {name}": found.reason for name, found in of_excess.items() if found.reason}
    reasons |= {f"the averages of {name}": found.reason for name, found in of_averages.items() if found.reason}
    notes = [*_marks(frames, tests, untested, reasons), *_baseline_notes(baselines or {}), *method_notes(first, {})]
    notes += _strata_notes(strata)
    notes += [f"{name}: {note}" for name, one in true.items() for note in one.sentences()]
    if level is not None:
        notes.insert(
            0, f"[low, high]: {100 * level:g} % intervals of each model alone, approximate, as in egtmetrics evaluate."
        )
    notes += [f"{name}: {fact(value)}" for name, value in (provenance or {}).items()]
    return "\n\n".join([*parts, note_lines(notes, format, width)]) + "\n"


def _printed(intervals: FrameIntervals | None) -> Inference | None:
    return None if intervals is None else Inference(level=intervals.level, intervals=intervals)


def _verdicts(verdicts: Mapping[str, Mapping[str, Verdict]]) -> Columns:
    """Return a row for each model and metric."""
    rows = [(model, verdict) for model, by_metric in verdicts.items() for verdict in by_metric.values()]
    return [("model", [model for model, _ in rows]), *verdict_columns(verdict for _, verdict in rows)]


def _strata_notes(strata: Mapping[str, WithinStrata]) -> list[str]:
    """Say what holds of the averages of all models, what of some, and where they are of unlike strata."""
    models: dict[str, list[str]] = {}
    for name, one in strata.items():
        for sentence in one.sentences():
            models.setdefault(sentence, []).append(name)
    notes = [text if len(names) == len(strata) else f"{listed(names)}: {text}" for text, names in models.items()]
    weights = [one.scores.strata["weight"] for one in strata.values()]
    if any(one[one > 0.0].to_dict() != weights[0][weights[0] > 0.0].to_dict() for one in weights):
        notes.append(
            "The averages of the models are of other strata, or with other weights, so a difference between models may "
            "come from that."
        )
    return notes


def _baseline_notes(baselines: Mapping[str, Baseline]) -> list[str]:
    sources = dict.fromkeys(map(baseline_source, baselines.values()))
    return [
        f"excess: the score of a model less that of other real samples in its place ({source}). A perfect generator "
        "has an excess of about 0 in every group."
        for source in sources
    ] + [f"{name}: {note}" for name, baseline in baselines.items() for note in baseline._refusal_notes()]


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


def _differing(tests: pd.DataFrame) -> set[_Key]:
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Model:
    """What a table shows of one metric of a model."""

    table: ScoreTable
    gaps: Sequence[Gap]
    known: Inference | None
    """The intervals to print."""
    overall: Mapping[str, float] | None = None
    """Scores of all samples, by column; None where there are none."""
    doubtful: Collection[Hashable | None] = ()
    """Groups whose scores cannot be relied on; None stands for all samples."""


def _columns(models: Mapping[str, _Model], title: str, differing: set[_Key]) -> Columns:
    """A row for every score of every group, and overall, and for every disparity; a column for every model."""
    first = next(iter(models.values()))
    groups: list[Hashable | None] = [*([] if first.overall is None else [None]), *first.table.values.index]
    names: list[str] = []
    labels: list[str] = []
    for name, score in first.table.described.items():
        names += [f"{name} ({score.printed_unit})" if score.printed_unit else name, *([""] * (len(groups) - 1))]
        labels += ["overall" if group is None else group_text(group) for group in groups]
    names += [f"δ {gap.disparity.column or gap.disparity.label}" for gap in first.gaps]
    columns = [("score", names), (title, labels + [""] * (len(names) - len(labels)))]
    for model, one in models.items():
        metric, cells = one.table.metric, []
        for name, score in one.table.described.items():
            column, by_group = one.table.column(name), one.table.values[name].to_dict()
            for group in groups:
                value = (one.overall or {})[column] if group is None else by_group[group]
                star = "*" if (model, metric, name, group) in differing else ""
                doubt = UNRELIABLE if group in one.doubtful else ""
                bounds = None if one.known is None or group is None else one.known.score_bounds(column, group)
                cells.append(score.text(value) + doubt + star + bounds_text(bounds, score))
        for gap in one.gaps:
            key, score = (metric, gap.disparity.name), gap.disparity.score
            star = "*" if (model, *key, None) in differing else ""
            dagger = "†" if gap.beyond_noise else ""
            bounds = None if one.known is None else one.known.bounds(key)
            doubt = "" if gap.reliable else UNRELIABLE
            cells.append(score.text(gap.pair.value) + doubt + star + dagger + bounds_text(bounds, score))
        columns.append((model, cells))
    return columns


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
    notes.append(
        "†: a δ that is more than noise at the 0.05 level, corrected for their number within the model. A perfect "
        "generator may have one, too, since groups differ in how hard they are to imitate: a baseline shows how much, "
        "and the excess leaves it out."
    )
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
