"""Does a gap survive another encoder? The same samples seen in several ways, with one test over all of them.

A view is one way to see the samples: an encoder, or an option of a metric such as ``n_neighbors``. A gap that shows up
under one encoder alone may be the encoder's, which may know one group better than another.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from egtmetrics._errors import listed
from egtmetrics._validation import check_level
from egtmetrics.groups._saved import plain
from egtmetrics.groups.baseline import Baseline
from egtmetrics.groups.disparity import PairDifference
from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.groups.inference import Inference, holm
from egtmetrics.labels import group_text
from egtmetrics.results import Score

_ROUNDING = 1e-9

View: TypeAlias = GenerativeMetricFrame | Baseline


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewComparison:
    """What :func:`compare_views` returns: the largest gap of every metric under every view."""

    of: str
    """What a view is, in one word."""
    level: float
    gaps: pd.DataFrame
    """Indexed by ``(metric, view)``: the primary ``disparity`` of the metric, its ``value`` in the unit of the score,
    its ``standard_error`` and ``in_errors``, the one over the other; the groups ``larger`` and ``smaller`` that attain
    it; ``against``, the one of them that is worse off, or that has the larger score if none is better; ``p_value``;
    ``without`` and ``reliable`` as in ``frame.test()``; ``adjusted_p_value``, by Holm's method over all rows; and
    ``beyond_noise``, whether that is at most ``1 - level``."""
    joint: pd.DataFrame
    """Indexed by ``metric``: ``n_views``, under how many views the gap has a test that can be relied on; ``p_any``, the
    smallest adjusted p-value among these: of no gap under any view; ``against``, the group that the gap is against
    under every view, or None; ``p_every``, by Holm's method over the metrics: of a view without a gap against that
    group. It is 1 if views disagree, and NaN if a view has no such test."""
    agreement: pd.DataFrame
    """Indexed by ``(metric, group)``: under how many views the gap is against the group as measured, ``n_against``, and
    by more than noise, ``n_beyond_noise``."""
    labels: Mapping[str, Score]
    """By metric, what the gap is in."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the tables say, a sentence or two for each metric."""
        return tuple(self._sentence(metric) for metric in self.joint.index)

    def _sentence(self, metric: str) -> str:
        rows = self.gaps.loc[metric]
        n, score = len(rows), self.labels[metric]
        tested = rows["p_value"].notna()
        judged = rows["reliable"] & tested
        beyond = rows[judged & rows["beyond_noise"]]
        parts = []
        groups = [group for group, _ in Counter(beyond["against"]).most_common()]
        for group in groups:
            views = beyond.index[[one == group for one in beyond["against"]]].tolist()
            where = f"all {n} {self.of}s" if len(views) == n else f"{len(views)} of {n} {self.of}s ({listed(views)})"
            is_worse = "is worse off" if isinstance(score.better, str) else f"has the larger {score.label}"
            parts.append(f"under {where} group {group_text(group)} {is_worse} by more than noise")
        noise = rows.index[judged & ~rows["beyond_noise"]].tolist()
        if len(noise) == n:
            parts.append(f"under none of {n} {self.of}s is the gap distinguishable from noise")
        elif noise:
            parts.append(f"under {listed(noise)} the gap is not distinguishable from noise")
        for views, what in (
            (rows.index[tested & ~rows["reliable"]].tolist(), "the gap cannot be relied on"),
            (rows.index[~tested].tolist(), "there is no gap to test"),
        ):
            if views:
                parts.append(f"under {listed(views)} {what}")
        if len(groups) > 1:
            parts.append(f"so the {self.of}s disagree on the group")
        counts = self.agreement.loc[metric]["n_against"]
        most = counts.idxmax()
        measured = ""
        if counts.max() > len(beyond):
            measured = f" As measured, the gap is against {group_text(most)} under {counts.max()} of {n}."
        return f"{metric} ({score.label}): {'; '.join(parts)}.{measured}"

    def plot(self, *, ax: Any = None) -> Any:
        """Draw every gap in its standard errors, one row each, in the colour of the group that it is against.

        Hollow points are within noise. Returns the axes. Needs matplotlib.
        """
        from egtmetrics.plots import plot_views

        return plot_views(self.gaps, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON: null for what is unknown, groups by their names."""
        content: dict[str, Any] = {"of": self.of, "level": self.level, "sentences": list(self.sentences)}
        for name in ("gaps", "joint", "agreement"):
            table: pd.DataFrame = getattr(self, name)
            groups = [column for column in ("larger", "smaller", "against") if column in table]
            named = table.assign(**{column: table[column].map(_name, na_action=None) for column in groups})
            if "without" in named:
                named["without"] = [list(map(group_text, found)) for found in named["without"]]
            rows = named.reset_index()
            if "group" in rows:
                rows["group"] = rows["group"].map(group_text)
            content[name] = rows.astype(object).to_dict("records")
        found: dict[str, Any] = plain(content)
        return found

    def __repr__(self) -> str:
        head = f"{type(self).__name__}: the same samples under {len(self.gaps.index.unique(self.of))} {self.of}s"
        columns = ["value", "standard_error", "in_errors", "against", "adjusted_p_value", "beyond_noise"]
        return "\n\n".join([head, *self.sentences, f"{self.gaps[columns]}"])

    def _repr_html_(self) -> str:
        """Return what notebooks show."""
        tables = {"Gaps": self.gaps, "Over all": self.joint, "Agreement": self.agreement}
        return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in self.sentences) + "".join(
            f"<h4>{title}</h4>{table.to_html(border=0, float_format='{:.4g}'.format, na_rep='nan')}"
            for title, table in tables.items()
        )


def compare_views(views: Mapping[str, View], *, of: str = "view", level: float = 0.95) -> ViewComparison:
    r"""Compare the gaps between groups of the same samples under several encoders, or options of a metric.

    Of every metric it takes the primary disparity (``frame.test()``): of ``precision + recall`` where there are both,
    else of the first score. Scores of different encoders have different scales, and no unit in common: an FID of 3 is
    little under one and much under another. So gaps are put side by side in standard errors,

    .. math::

        z = \frac{e_a - e_b}{\mathrm{se}(e_a - e_b)}, \quad e = \text{model} - \text{placebo},

    where the placebo is what other real samples score (``frame.baseline()``). With frames in the place of baselines, e
    is the score itself, and part of a gap may come from the groups. The placebo's gap is subtracted and is no divisor:
    it is near 0 for groups that are alike, and a ratio to that says nothing. So z says how sure a gap is, not how large
    it is: it grows with the root of the number of samples.

    Parameters
    ----------
    views
        Baselines, or frames, of the same samples under the names to print: one for each encoder, or for each value of
        an option. All with the same metrics, groups and numbers of samples, at least 50 samples in every set.
    of
        What a view is, in one word for sentences: ``"encoder"``.
    level
        A gap is more than noise if its adjusted p-value is at most ``1 - level``.

    Returns
    -------
    ViewComparison
        ``gaps``, ``joint`` and ``agreement``, tables; ``sentences``, which say what is in them; ``plot()``.

    Raises
    ------
    ValueError
        There are fewer than two views, they differ in what must be the same, ``level`` is not in (0, 1), or as for
        ``interval`` of a view.
    TypeError
        A view is no frame or baseline, or there are both.

    Notes
    -----
    Tests of the same samples depend on each other. Holm's method holds under any dependence: the probability that any
    gap without a cause is called more than noise, over all views and metrics, is at most ``1 - level``. ``p_every`` is
    the largest p-value of a metric over the views (an intersection-union test), which needs no correction for their
    number and no independence either. With more than two groups, a p-value is that of the two groups that attain the
    gap, corrected for all pairs.

    A gap that survives all encoders need not be the model's: the encoders may share what they were trained on.

    Cost: that of ``interval`` of every view, nothing where it was paid.

    Source: Holm 1979; Berger 1982 (intersection-union); ``docs/adr/0036-views.md``.

    Examples
    --------
    Two encoders see that group f is off; one sees nothing of it.

    >>> import numpy as np
    >>> from egtmetrics import GenerativeMetricFrame
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(["f", "m"], 200)
    >>> views = {}
    >>> for name, shift in {"dinov2": 1.0, "clip": 0.0, "siglip": 0.7}.items():
    ...     real, fake = rng.normal(size=(2, 400, 2))
    ...     fake[groups == "f"] += shift
    ...     frame = GenerativeMetricFrame(metrics="fid", real=real, fake=fake, random_state=0,
    ...                                   real_sensitive_features=groups, fake_sensitive_features=groups)
    ...     views[name] = frame.baseline()
    >>> print(*compare_views(views, of="encoder").sentences)
    ... # doctest: +NORMALIZE_WHITESPACE
    fid (excess FID): under 2 of 3 encoders (dinov2, siglip) group f is worse off by more than noise; under clip the
    gap is not distinguishable from noise. As measured, the gap is against f under 3 of 3.
    """
    level = check_level(level)
    _check_views(views, of)
    inferences = {name: _inference(view, f"{of} {name!r}") for name, view in views.items()}
    metrics = _metrics_of(next(iter(views.values())))
    rows = {(metric, name): _gap(one, metric) for metric in metrics for name, one in inferences.items()}
    index = pd.MultiIndex.from_tuples(rows, names=["metric", of])
    objects = {"larger", "smaller", "against", "without"}
    gaps = pd.DataFrame(
        {
            column: pd.Series([row[column] for row in rows.values()], index, object if column in objects else None)
            for column in next(iter(rows.values()))
        }
    )
    adjusted = holm(gaps["p_value"].to_numpy(dtype=float))
    gaps["adjusted_p_value"], gaps["beyond_noise"] = adjusted, adjusted <= 1.0 - level  # NaN is not
    first = next(iter(inferences.values()))
    return ViewComparison(
        of=of,
        level=level,
        gaps=gaps,
        joint=_joint(gaps, metrics),
        agreement=_agreement(gaps, metrics, first.tables[metrics[0]].values.index),
        labels={metric: first.tables[metric].primary.score for metric in metrics},
    )


def _check_views(views: Mapping[str, View], of: str) -> None:
    if len(views) < 2:
        raise ValueError(f"views has {len(views)} {of}s, but a comparison needs two; evaluate under another one")
    kinds = {name: type(view) for name, view in views.items()}
    for name, view in views.items():
        if not isinstance(view, View):
            raise TypeError(f"views[{name!r}] is a {type(view).__name__}; pass frames, or their baselines")
    if len({isinstance(view, Baseline) for view in views.values()}) > 1:
        shown = listed(f"{name} is a {kind.__name__}" for name, kind in kinds.items())
        raise TypeError(f"views holds frames and baselines ({shown}); pass one kind, better baselines")
    (first, start), *others = views.items()
    for name, view in others:
        mine, theirs = _counts(start), _counts(view)
        if not mine.equals(theirs):
            raise ValueError(
                f"views[{name!r}] has not the groups and numbers of samples of views[{first!r}]: {_text(theirs)} "
                f"instead of {_text(mine)}; see the same samples in every view, with the same groups"
            )
        if (found := _metrics_of(view)) != (expected := _metrics_of(start)):
            raise ValueError(
                f"views[{name!r}] has the metrics {listed(found)} instead of {listed(expected)}, as views[{first!r}]; "
                "evaluate every view with the same metrics, under the same names"
            )


def _counts(view: View) -> pd.DataFrame:
    """Return the numbers of samples by group that two views of the same samples have in common."""
    return view.sizes if isinstance(view, Baseline) else view.group_counts[["n_real", "n_fake"]]


def _text(counts: pd.DataFrame) -> str:
    return "; ".join(f"{group_text(label)} {row.tolist()}" for label, row in counts.iterrows())


def _inference(view: View, name: str) -> Inference:
    try:
        return view._infer()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _metrics_of(view: View) -> list[str]:
    tables = view.tables() if isinstance(view, Baseline) else view.tables
    return [metric for metric in tables if metric != "proportions"]


def _gap(inference: Inference, metric: str) -> dict[str, Any]:
    table = inference.tables[metric]
    disparity = table.primary
    largest = inference.largest[metric, disparity.name]
    pair = table.gap(disparity, largest.without)
    error = math.sqrt(float(largest.attained()["total"]))
    if pair.value <= _ROUNDING * error:  # an excess of 0 - 0 comes out as 1e-17 for some group
        pair = PairDifference(value=0.0, larger=None, smaller=None)
    directed = isinstance(disparity.score.better, str)
    return {
        "disparity": disparity.name,
        "value": pair.value,
        "standard_error": error,
        "in_errors": pair.value / error if error > 0.0 else math.nan,
        "larger": pair.larger,
        "smaller": pair.smaller,
        "against": disparity.worse(table.values, pair) if directed else pair.larger,
        "p_value": largest.p_value_of_attained(),
        "without": largest.without,
        "reliable": table.reliable(largest.without),
    }


def _joint(gaps: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    rows = []
    for metric in metrics:
        of_metric = gaps.loc[metric]
        against = list(dict.fromkeys(of_metric["against"]))
        agree = len(against) == 1 and against[0] is not None
        p_values = of_metric["p_value"].where(of_metric["reliable"])
        rows.append(
            {
                "n_views": int(p_values.notna().sum()),
                "p_any": float(of_metric["adjusted_p_value"].where(of_metric["reliable"]).min()),
                "against": against[0] if agree else None,
                "p_every": math.nan if p_values.isna().any() else float(p_values.max()) if agree else 1.0,
            }
        )
    joint = pd.DataFrame(rows, index=pd.Index(metrics, name="metric")).astype({"against": object})
    joint["p_every"] = holm(joint["p_every"].to_numpy(dtype=float))
    return joint


def _agreement(gaps: pd.DataFrame, metrics: Sequence[str], groups: pd.Index[Any]) -> pd.DataFrame:
    rows: dict[tuple[str, Hashable], dict[str, int]] = {}
    for metric in metrics:
        of_metric = gaps.loc[metric]
        judged = of_metric["beyond_noise"] & of_metric["reliable"]
        for group in groups:
            against = pd.Series([one == group for one in of_metric["against"]], of_metric.index)
            rows[metric, group] = {"n_against": int(against.sum()), "n_beyond_noise": int((against & judged).sum())}
    index = pd.MultiIndex.from_arrays(
        [[metric for metric, _ in rows], pd.Index([group for _, group in rows], tupleize_cols=False)],
        names=["metric", "group"],
    )
    return pd.DataFrame(list(rows.values()), index=index)


def _name(group: Hashable | None) -> str | None:
    return None if group is None else group_text(group)
