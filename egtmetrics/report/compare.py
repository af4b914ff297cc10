"""Several models on one set of real samples, side by side, and which of them differ from the first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from egtmetrics import __version__
from egtmetrics._random import RandomState
from egtmetrics._validation import check_positive_int
from egtmetrics.groups import GenerativeMetricFrame, compare_models
from egtmetrics.groups._evaluation import Metric
from egtmetrics.groups.inference import holm
from egtmetrics.report._page_parts import Gap, find_gaps, gap_name, infer, metric_name
from egtmetrics.report.tables import Format, check_format, fact, method_notes, number, section

_LEVEL = 0.95


def compare_with_first(
    real: Any,
    fakes: Mapping[str, Any],
    metrics: Mapping[str, Metric],
    scores: Mapping[str, Sequence[str]],
    *,
    n_permutations: int | None = None,
    random_state: RandomState = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Test every model against the first, score by score, on all samples: a permutation test each, corrected by Holm.

    Parameters
    ----------
    real
        Features ``(n, d)``.
    fakes
        Features ``(m, d)`` by model, two or more.
    metrics
        As for :class:`~egtmetrics.GenerativeMetricFrame`.
    scores
        The scores of each metric that are tested.
    n_permutations
        Of each test. None takes 199, or the fewest with which a corrected p-value can fall to 0.05.
    random_state, progress
        As for :func:`~egtmetrics.groups.compare_models`; one integer gives all tests the same permutations.

    Returns
    -------
    DataFrame
        Indexed by ``(model, metric, score)``: ``difference`` (model minus the first), ``p_value`` and
        ``adjusted_p_value``, for the hypothesis that model and first model have one law.

    Raises
    ------
    ValueError
        Fewer than two models, too few permutations for any corrected p-value to reach 0.05, samples that a metric
        refuses.

    Notes
    -----
    Cost: ``2 (n_permutations + 1)`` evaluations for each model but the first and each score.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> real = [[0.0], [1.0]] * 20
    >>> fakes = {"good": real, "bad": [[3.0], [4.0]] * 20}
    >>> tests = compare_with_first(real, fakes, {"gap": mean_gap}, {"gap": ["gap"]}, random_state=0)
    >>> tests.loc[("bad", "gap", "gap")].to_dict()
    {'difference': 3.0, 'p_value': 0.005, 'adjusted_p_value': 0.005}
    """
    if len(fakes) < 2:
        raise ValueError(f"fakes has {len(fakes)} models; pass two or more")
    first, *others = fakes
    keys = [(model, metric, score) for model in others for metric in metrics for score in scores[metric]]
    fewest = math.ceil(len(keys) / (1.0 - _LEVEL) - 1e-9) - 1
    if n_permutations is None:
        n_permutations = max(199, fewest)
    if check_positive_int(n_permutations, "n_permutations") < fewest:
        raise ValueError(
            f"n_permutations={n_permutations} cannot show a difference in any of {len(keys)} tests after correction "
            f"for their number; pass at least {fewest}, or fewer models or metrics"
        )
    rows = []
    for model, metric, score in tqdm(keys, desc="tests", unit="test", disable=not progress):
        test = compare_models(
            real,
            fakes[model],
            fakes[first],
            metric=metrics[metric],
            score=None if scores[metric] == [metric] else score,
            n_permutations=n_permutations,
            random_state=random_state,
        )
        rows.append({"difference": test.statistic, "p_value": test.p_value})
    index = pd.MultiIndex.from_tuples(keys, names=["model", "metric", "score"])
    table = pd.DataFrame(rows, index=index)
    table["adjusted_p_value"] = holm(table["p_value"].to_numpy())
    table.attrs["n_permutations"] = n_permutations
    return table


def render_comparison(
    frames: Mapping[str, GenerativeMetricFrame],
    *,
    tests: pd.DataFrame | None = None,
    format: Format = "table",
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Return a table for each metric: every model's score overall, in the worst group, and its disparities.

    A star marks an overall score that differs from the first model's (``tests``), a dagger a disparity that is more
    than noise (``frame.test``); both at the 0.05 level, corrected for the number of tests, of a model's disparities or
    of all comparisons.

    Parameters
    ----------
    frames
        One frame a model, all with the same metrics and groups.
    tests
        From :func:`compare_with_first`; without it no model is said to differ from another.
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
    >>> print(*render_comparison(frames).splitlines()[2:6], sep="\\n")
    model      gap    δ gap
    -------  -----  -------
    a         0.25      0.5
    b            1        2
    """
    check_format(format)
    _check_frames(frames)
    if format == "json":
        rows = [] if tests is None else tests.reset_index().to_dict("records")
        models = {name: frame.to_dict() for name, frame in frames.items()}
        content = {"egtmetrics": __version__, **(provenance or {}), "models": models, "tests": rows}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    first = next(iter(frames.values()))
    inferences = {name: infer(frame, _LEVEL) for name, frame in frames.items()}
    gaps = {name: find_gaps(frame, inferences[name]) for name, frame in frames.items()}
    parts = [
        section(metric_name(first, metric), _columns(frames, gaps, metric, tests), format)
        for metric in first.settings["metrics"]
    ]
    reasons = {name: inference.reason for name, inference in inferences.items() if inference.reason}
    notes = [*_marks(frames, tests, reasons), *method_notes(first, {})]
    notes += [f"{name}: {fact(value)}" for name, value in (provenance or {}).items()]
    mark = {"table": "", "markdown": "- ", "latex": "% "}[format]
    return "\n\n".join([*parts, "\n".join(f"{mark}{note}" for note in notes)]) + "\n"


def _check_frames(frames: Mapping[str, GenerativeMetricFrame]) -> None:
    if len(frames) < 2:
        raise ValueError(f"frames has {len(frames)} models; pass two or more to compare")
    first, *others = frames
    for name in others:
        for what, table in (("scores", "columns"), ("groups", "index")):
            mine, theirs = (list(getattr(frames[model].by_group, table)) for model in (name, first))
            if mine != theirs:
                raise ValueError(
                    f"model {name!r} has the {what} {mine} and {first!r} has {theirs}; evaluate all models with the "
                    "same metrics and groups"
                )


def _columns(
    frames: Mapping[str, GenerativeMetricFrame],
    gaps: Mapping[str, Sequence[Gap]],
    metric: str,
    tests: pd.DataFrame | None,
) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {"model": list(frames)}
    chosen = {name: [gap for gap in of_model if gap.metric == metric] for name, of_model in gaps.items()}
    for gap in next(iter(chosen.values())):
        if gap.score is None or gap.column is None:
            continue
        unit = " (%)" if gap.share else ""
        columns[f"{gap.score}{unit}"] = [
            number(frame.overall[gap.column], share=gap.share) + _star(tests, (name, metric, gap.score))
            for name, frame in frames.items()
        ]
        if gap.direction:
            columns[f"worst {gap.score}{unit}"] = [
                number(
                    frame.group_min()[gap.column] if gap.direction > 0 else frame.group_max()[gap.column],
                    share=gap.share,
                )
                for frame in frames.values()
            ]
    for i, gap in enumerate(next(iter(chosen.values()))):
        columns[f"δ {gap_name(gap)}"] = [
            number(of_model[i].value, share=gap.share) + ("†" if of_model[i].beyond_noise else "")
            for of_model in chosen.values()
        ]
    return columns


def _star(tests: pd.DataFrame | None, key: tuple[str, str, str]) -> str:
    p_values = {} if tests is None else tests["adjusted_p_value"].to_dict()
    return "*" if p_values.get(key, 1.0) <= 1.0 - _LEVEL else ""


def _marks(
    frames: Mapping[str, GenerativeMetricFrame], tests: pd.DataFrame | None, reasons: Mapping[str, str]
) -> list[str]:
    if tests is None:
        notes = ["No test between models was made: that one has a better score than another may be chance."]
    else:
        notes = [
            f"*: differs from {next(iter(frames))} at the 0.05 level, by permutation of the samples of the two models "
            f"({tests.attrs['n_permutations']} permutations; {len(tests)} tests, corrected by Holm)."
        ]
    sizes = {
        name: (frame.group_counts["n_real"].sum(), frame.group_counts["n_fake"].sum()) for name, frame in frames.items()
    }
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {n} and {m}" for name, (n, m) in sizes.items())
        notes.append(
            f"The models were scored on different numbers of real and fake samples ({told}), which moves scores."
        )
    notes.append("†: a disparity that is more than noise at the 0.05 level (corrected by Holm within the model).")
    notes += [f"No † for {name}: {reason}" for name, reason in reasons.items()]
    return [*notes, "δ: largest difference between two groups, in points where the score is in percent."]
