"""How many more samples of which groups make the interval of the largest gap short enough, or decide a tolerance."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, softmax

from egtmetrics._errors import listed
from egtmetrics.groups._evaluation import MetricSet, naming_metric
from egtmetrics.groups._saved import plain
from egtmetrics.groups.disparity import Disparity
from egtmetrics.groups.inference import Inference, Largest, normal_quantile
from egtmetrics.groups.planning import MOST, check_power, variance_exponent
from egtmetrics.groups.verdict import Samples, upper_errors
from egtmetrics.labels import group_text
from egtmetrics.metrics.subsampling import draw_all, extrapolated_covariance
from egtmetrics.metrics.variance import Calls
from egtmetrics.ops import Features, take_rows, to_host
from egtmetrics.registry import callable_name
from egtmetrics.results import Score, as_result, collecting_caveats
from egtmetrics.samples import GroupedSamples

Floats: TypeAlias = NDArray[np.float64]
Limit = Literal["", "real samples", "samples", "projections"]

_DIVISIONS = 12
"""Of each side of a group into quarters."""
_EXPONENTS = (0.5, 2.0)
"""Least and largest: 2 is that of a squared distance between equal laws."""
_STEP = 1.05
"""By which sizes grow on the way to the plan."""
_SHARPNESS = 30.0
"""Of the smooth maximum that says which sizes matter: over the largest of its terms."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleBudget:
    """What :meth:`~egtmetrics.GenerativeMetricFrame.plan` returns."""

    metric: str
    disparity: str
    """What is planned for: the primary disparity for a width, the largest of those that a tolerance bounds."""
    goal: Literal["width", "tolerance"]
    target: float
    """The width or the tolerance, in the unit of the score."""
    now: float
    """The width of the interval today."""
    planned: float
    """The width to be expected with the planned samples, if the gap is as measured."""
    unlimited: float
    """The width to be expected with unlimited generated samples and the real ones of today."""
    power: float | None
    """How probable a verdict is once the planned samples are added to those of today; None for a width."""
    unlimited_power: float | None
    """How probable one is with unlimited generated samples and the real ones of today; None for a width."""
    samples: pd.DataFrame
    """By group: ``n_real``, ``n_fake``, ``more_real`` and ``more_fake``."""
    variances: pd.DataFrame
    """By group, for what is compared: the parts of its variance that the ``real`` samples of today cause, the ``fake``
    ones, and ``both`` together. The first two fall as n to the power of minus ``real_exponent`` and ``fake_exponent``,
    1 for a mean, the third with the number of either."""
    reached: bool
    """Whether the planned samples reach the target."""
    limit: Limit
    """What no number of further samples gets around: ``"real samples"`` if unlimited generated ones do not reach the
    target, ``"projections"`` (or bootstraps) if unlimited samples of both sides do not, ``"samples"`` if the target
    takes more than twice as many as there are, which cannot be foreseen. Empty if the plan reaches it."""
    score: Score
    """What is compared."""

    @property
    def text(self) -> str:
        """The plan in words, without a full stop."""
        width = {key: self.score.difference_text(getattr(self, key)) for key in ("now", "planned", "unlimited")}
        target = self.score.difference_text(self.target)
        goal = f"an interval of {target}" if self.goal == "width" else f"a verdict for a tolerance of {target}"
        today = f"the interval of the largest gap is {width['now']} wide today"
        more = listed(
            f"{int(row[key])} more {side} samples of {group_text(label)}"
            for label, row in self.samples.iterrows()
            for key, side in (("more_fake", "generated"), ("more_real", "real"))
            if row[key]
        )
        if self.reached and not more:
            return f"for {goal}, the samples at hand are enough ({today})"
        if self.reached:
            then = f", which gives it {_probably(self.power)}" if self.power is not None else ""
            return f"for {goal}, add {more}{then} ({today})"
        if self.limit == "projections":
            return (
                f"no number of samples is enough for {goal}: random projections and bootstraps alone make the interval "
                f"longer; take more of these ({today})"
            )
        if self.limit == "real samples":
            left = f"the interval would still be about {width['unlimited']} wide"
            if self.unlimited_power is not None:
                left = f"it would come {_probably(self.unlimited_power)}"
            return (
                f"no number of generated samples is enough for {goal}: with unlimited ones, {left}, because of the "
                f"real samples; add real samples ({today})"
            )
        then = f"makes the interval about {width['planned']} wide"
        if self.power is not None:
            then = f"gives it {_probably(self.power)}"
        return (
            f"{goal} takes more than {MOST} times the samples, which cannot be foreseen from these: add {more}, which "
            f"{then}, and plan again ({today})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all but the description of the score as plain values, groups under their names, and the text."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "score"}
        for key in ("samples", "variances"):
            content[key] = {group_text(label): row.to_dict() for label, row in content[key].astype(object).iterrows()}
        return {key: plain(value) for key, value in {**content, "text": self.text}.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VarianceModel:
    """The standard errors of all contrasts of a disparity by the sizes of both sides of every group."""

    sizes: Floats
    """``(G, 2)``: real and generated samples today."""
    variances: Floats
    """``(G, 3)``: the parts of the variance of each group's sum of scores: of real ones, of generated ones, of both."""
    exponents: Floats
    """``(G, 2)``: of the first two. What both cause together falls with the number of either."""
    members: NDArray[np.int64]
    """``(C, 2)``: the two groups of each contrast."""
    constant: Floats
    """``(C,)``: the part of each contrast's variance that no sample changes."""

    def parts(self, sizes: Floats) -> Floats:
        ratios = self.sizes / sizes
        falls = np.concatenate([ratios**self.exponents, ratios.prod(axis=1, keepdims=True)], axis=1)
        parts: Floats = self.variances * falls
        return parts

    def errors(self, sizes: Floats) -> Floats:
        errors: Floats = np.sqrt(self.parts(sizes).sum(axis=1)[self.members].sum(axis=1) + self.constant)
        return errors

    def slopes(self, sizes: Floats, of_errors: Floats) -> Floats:
        """Return by how much a sample more of each kind changes a function with these derivatives, ``(G, 2)``."""
        by_group = np.zeros(len(self.sizes))
        np.add.at(by_group, self.members, (of_errors / (2.0 * self.errors(sizes).clip(1e-300)))[:, None])
        parts = self.parts(sizes)
        slopes: Floats = -by_group[:, None] * (self.exponents * parts[:, :2] + parts[:, 2:]) / sizes
        return slopes


Goal = Callable[[Floats], tuple[float, Floats]]
"""From the errors of all contrasts: how much is missing (0 or less: reached), and how much smaller errors help."""


def plan_budget(
    models: Mapping[str, VarianceModel],
    inference: Inference,
    metric: str,
    *,
    known: Samples,
    width: float | None,
    tolerance: float | None,
    more_real: bool,
    power: float,
    level: float,
) -> SampleBudget:
    """Plan for a metric with what :func:`variance_models` returned; see ``GenerativeMetricFrame.plan``."""
    table = inference.tables[metric]
    planned_for = [one for one in ([table.primary] if tolerance is None else table.judged) if one.name in models]
    disparity = max(planned_for, key=lambda one: inference.largest[metric, one.name].value)
    chosen = [models[one.name] for one in planned_for]
    uncertainty = inference.uncertainties[metric]
    contrasts = np.concatenate([inference.largest[metric, one.name].families[0] for one in planned_for])
    largest = Largest(uncertainty=uncertainty, families=[contrasts])
    (estimates,), q = largest.estimates, largest.simultaneous(level)
    limit = disparity.limit(table.described)
    sizes_now = chosen[0].sizes

    def errors_at(sizes: Floats) -> Floats:
        return np.concatenate([model.errors(sizes) for model in chosen])

    def width_of(errors: Floats) -> float:
        low, high = _ends(estimates, errors, q, normal_quantile(level))
        return min(high, limit) - max(low, 0.0)

    verdict: _Verdict | None = None
    if tolerance is None:
        assert width is not None
        goal, target = _short(estimates, q, normal_quantile(level), width), width
    else:
        z = float(ndtri(level))
        upper = z * upper_errors(largest, known, z) / largest.errors[0].clip(1e-300)
        verdict = _Verdict(estimates=estimates, now=errors_at(sizes_now), lower=q, upper=upper, tolerance=tolerance)
        goal, target = functools.partial(verdict.lacking, power=power), tolerance
    free = np.array([more_real, True])
    sizes, reached = _grow(chosen, goal, free)
    without_end = np.where(free, math.inf, sizes_now)
    blocked: Limit = ""
    if not reached:
        blocked = "samples"
        if goal(errors_at(np.full_like(sizes_now, math.inf)))[0] > 0.0:
            blocked = "projections"
        elif goal(errors_at(without_end))[0] > 0.0:
            blocked = "real samples"
        if blocked != "samples":
            sizes = sizes_now
    model = models[disparity.name]
    more = np.ceil(sizes - sizes_now).astype(int)
    planned, unlimited = errors_at(sizes), errors_at(np.where([False, True], math.inf, sizes_now))
    return SampleBudget(
        metric=metric,
        disparity=disparity.name,
        goal="tolerance" if width is None else "width",
        target=target,
        now=width_of(largest.errors[0]),
        planned=width_of(planned),
        unlimited=width_of(unlimited),
        power=None if verdict is None else verdict.probability(planned),
        unlimited_power=None if verdict is None else verdict.probability(unlimited),
        samples=pd.DataFrame(
            {
                "n_real": sizes_now[:, 0].astype(int),
                "n_fake": sizes_now[:, 1].astype(int),
                "more_real": more[:, 0],
                "more_fake": more[:, 1],
            },
            index=table.values.index,
        ),
        variances=pd.DataFrame(
            np.concatenate([model.variances, model.exponents], axis=1),
            columns=["real", "fake", "both", "real_exponent", "fake_exponent"],
            index=table.values.index,
        ),
        reached=reached,
        limit=blocked,
        score=disparity.score,
    )


def calls_of_models(n_rows: int) -> Calls:
    """Return what :func:`variance_models` costs for a group of so many real and fake rows together."""
    # Each division makes three pairs of halves, 2 x 2 scores each, and quarters, 4 x 4.
    return Calls(28 * _DIVISIONS, 10 * _DIVISIONS * n_rows)


def variance_models(
    metrics: MetricSet, samples: GroupedSamples, inference: Inference, metric: str
) -> dict[str, VarianceModel]:
    """Find out what the variances of a metric's disparities are due to; ValueError if it refuses quarters.

    The disparities are those that plans are for: the primary one and those that a tolerance bounds.
    """
    table = inference.tables[metric]
    planned_for = {one.name: one for one in (table.primary, *table.judged) if inference.largest[metric, one.name].known}
    if not planned_for:
        raise ValueError(
            f"{metric}: fewer than two groups have a score whose error is known, so nothing can be planned; add samples"
        )
    missing = inference.uncertainties[metric].missing
    left_out = np.all([one.lacks(missing) for one in planned_for.values()], axis=0)
    tables = {
        label: _scores_of_parts(metrics, metric, samples.group(label), samples.groups.name(label))
        for label in table.values.index[~left_out]
    }
    sizes = samples.groups.counts().loc[table.values.index, ["n_real", "n_fake"]].to_numpy(dtype=float)
    return {name: _model(one, inference.largest[metric, name], sizes, tables) for name, one in planned_for.items()}


def _model(
    disparity: Disparity, largest: Largest, sizes: Floats, tables: Mapping[Hashable, Sequence[Floats]]
) -> VarianceModel:
    table, weights = largest.uncertainty.table, disparity.families[0].weights
    variances, exponents = np.zeros((len(sizes), 3)), np.ones_like(sizes)
    (contrasts,) = largest.families
    touched = (contrasts.reshape(len(contrasts), *table.shape) != 0).any(axis=2)
    own = np.nan_to_num(largest.uncertainty.data).reshape(*table.shape, *table.shape)
    vector = np.array([weights.get(str(name), 0.0) for name in table.columns])
    for g, label in enumerate(table.index):
        if not touched[:, g].any():  # a group without a score
            continue
        shares, exponents[g] = _shares([scores @ vector for scores in tables[label]])
        variances[g] = shares * (vector @ own[g, :, g] @ vector)
    parts = largest.uncertainty.parts(contrasts)
    return VarianceModel(
        sizes=sizes,
        variances=variances,
        exponents=exponents,
        members=np.array([np.flatnonzero(row) for row in touched]),
        constant=(parts["total"] - parts["data"]).to_numpy().clip(0.0),
    )


def _scores_of_parts(metrics: MetricSet, metric: str, group: GroupedSamples, name: str) -> list[Floats]:
    """Score every half of the real samples against every generated one, ``(T, 2, 2, S)``, and so quarters."""
    rng = np.random.default_rng([metrics.seed, 2])
    real, fake = draw_all([to_host(side)[:] for side in (group.real, group.fake)], group.clusters, rng, _DIVISIONS)
    found = []
    sizes = f"({len(group.real)} real, {len(group.fake)} fake)"
    with naming_metric(metric, f"a plan needs scores of halves and quarters of group {name!r} {sizes}"):
        for n_parts, columns in real.by_size():
            tables = [
                [
                    [_scores(metrics, metric, take_rows(real.points, x == i), take_rows(fake.points, y == j))
                     for j in range(n_parts)]
                    for i in range(n_parts)
                ]
                for x, y in zip(real.parts[:, columns].T, fake.parts[:, columns].T, strict=True)
            ]  # fmt: skip
            found.append(np.array(tables))
    return found


def _shares(tables: Sequence[Floats]) -> tuple[Floats, list[float]]:
    """Return how much of the variance real samples, generated ones and both together cause, and how it falls.

    What a score of ``tables``, of halves and of quarters, owes to its row, to its column and to neither are the three
    parts (components of variance, in a two-way layout of random effects). With P parts they are P, P and P^2 times as
    large as of all samples, if variances fall with 1 / n.
    """
    halves, quarters = map(variance_components, tables)
    exponents = [float(np.clip(variance_exponent(halves[i], quarters[i]), *_EXPONENTS)) for i in range(2)]
    parts = np.array([_extrapolated(*pair) for pair in zip(halves, quarters, strict=True)])
    shares = parts / parts.sum() if parts.sum() > 0.0 else np.array([0.5, 0.5, 0.0])
    return shares, exponents


def variance_components(tables: Floats) -> Floats:
    """Return the variances that rows, columns and both together cause at full size, from ``(T, P, P)`` scores of parts.

    They are unbiased before they are cut at 0.

    >>> rows, columns = np.array([[0.0], [2.0]]), np.array([[0.0, 1.0]])
    >>> variance_components((rows + columns)[None]).tolist()
    [1.0, 0.25, 0.0]
    """
    n_parts = tables.shape[1]
    mean = tables.mean(axis=(1, 2), keepdims=True)
    of_rows, of_columns = (tables.mean(axis=axis, keepdims=True) - mean for axis in (2, 1))
    rest = tables - mean - of_rows - of_columns
    own = [n_parts * float((one**2).sum(axis=(1, 2)).mean()) / (n_parts - 1) for one in (of_rows, of_columns)]
    both = float((rest**2).sum(axis=(1, 2)).mean()) / (n_parts - 1) ** 2
    parts = [(one - both) / n_parts**2 for one in own]
    components: Floats = np.array([*parts, both / n_parts**2]).clip(0.0)
    return components


def _extrapolated(of_halves: float, of_quarters: float) -> float:
    return float(extrapolated_covariance(np.array([[of_halves]]), np.array([[of_quarters]])).item())


def _scores(metrics: MetricSet, metric: str, real: Features, fake: Features) -> list[float]:
    with collecting_caveats():  # of a part, which say nothing about the whole
        value = metrics.bound[metric](real, fake)
    result = as_result(value, callable_name(metrics.bound[metric]), n_real=len(real), n_fake=len(fake))
    return list(result.scores().values())


def _ends(estimates: Floats, errors: Floats, q: float, z: float) -> tuple[float, float]:
    return float((estimates - q * errors).max()), float((estimates + z * errors).max())


def _short(estimates: Floats, q: float, z: float, width: float) -> Goal:
    """The interval of the largest gap, as ``Largest.interval`` has it, is no longer than ``width``."""

    def goal(errors: Floats) -> tuple[float, Floats]:
        low, high = _ends(estimates, errors, q, z)
        scale = _SHARPNESS / max(high, 1e-300)
        slopes = z * softmax(scale * (estimates + z * errors))
        if low > 0.0:
            slopes = slopes + q * softmax(scale * (estimates - q * errors))
        return high - max(low, 0.0) - width, slopes

    return goal


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Verdict:
    """What ``verdict.certify`` will say once samples are added, as far as those of today tell."""

    estimates: Floats
    now: Floats
    """Standard errors of all contrasts today."""
    lower: float
    """How many standard errors the lower bounds lie below the estimates."""
    upper: Floats
    """How many the upper ones lie above."""
    tolerance: float

    def probability(self, errors: Floats) -> float:
        """Return the probability of a verdict, of either kind, with these errors.

        What is added moves an estimate by a normal variate with variance ``now^2 - errors^2``. "Within" takes all
        contrasts, and is as probable as of the one that is least so; "beyond" takes one.
        """
        moves = np.sqrt((self.now**2 - errors**2).clip(0.0)) + 1e-12 * self.tolerance  # 0 with the samples of today
        within = ndtr((self.tolerance - self.estimates - self.upper * errors) / moves).min()
        beyond = ndtr((self.estimates - self.lower * errors - self.tolerance) / moves).max()
        return float(within + beyond)

    def lacking(self, errors: Floats, *, power: float) -> tuple[float, Floats]:
        """Return a :data:`Goal`: how far the probability is from ``power``, and which errors stand in the way."""
        if self.estimates.max() < self.tolerance:
            reach = self.upper * errors
            scale = _SHARPNESS / max(float(reach.max()), 1e-300)
            helps = self.upper * softmax(scale * (self.estimates + reach))
        else:
            helps = (np.arange(len(self.estimates)) == self.estimates.argmax()).astype(float)
        return power - self.probability(errors), helps


def _probably(probability: float) -> str:
    return f"with a probability of about {100.0 * probability:.0f} %"


def _grow(models: Sequence[VarianceModel], goal: Goal, free: NDArray[np.bool_]) -> tuple[Floats, bool]:
    """Return the sizes that reach the goal with few samples, or the largest ones that can be foreseen.

    The kind of sample that helps most grows, step by step.
    """
    sizes, most = models[0].sizes.copy(), MOST * models[0].sizes
    ends = np.cumsum([len(model.members) for model in models])[:-1]
    while True:
        excess, of_errors = goal(np.concatenate([model.errors(sizes) for model in models]))
        if excess <= 0.0:
            return sizes, True
        slopes = sum(model.slopes(sizes, own) for model, own in zip(models, np.split(of_errors, ends), strict=True))
        slopes = np.where(free & (sizes < most), slopes, 0.0)
        if not (slopes < 0.0).any():
            return sizes, False
        best = np.unravel_index(slopes.argmin(), slopes.shape)
        sizes[best] = min(_STEP * sizes[best], most[best])


def check_goal(width: Any, tolerance: Any, power: Any) -> None:
    """Raise ValueError unless exactly one goal was given, and it is a positive number."""
    given: Mapping[str, Any] = {"width": width, "tolerance": tolerance}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ValueError(
            f"{'both' if named else 'neither'} of width and tolerance {'were' if named else 'was'} given; pass one: "
            "how short the interval is to be, or the tolerance that is to be decided"
        )
    value = given[named[0]]
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0.0 < value < math.inf:
        raise ValueError(
            f"{named[0]}={value!r} is not a positive number; pass a gap in the unit of the score, for example 0.05 for "
            "five points of a share"
        )
    check_power(power)
