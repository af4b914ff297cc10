"""An alarm for unequal treatment that stays valid however often one looks."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr

from egtmetrics._errors import listed
from egtmetrics._validation import check_number, check_positive_int
from egtmetrics.groups.baseline import Baseline
from egtmetrics.groups.disparity import Disparity, ScoreTable
from egtmetrics.groups.frame import GenerativeMetricFrame
from egtmetrics.groups.inference import Largest
from egtmetrics.groups.planning import VARIANCE_OF_VARIANCE
from egtmetrics.groups.verdict import check_metric
from egtmetrics.labels import group_text

Floats = NDArray[np.float64]

_GAPS = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4])
"""Gaps beyond the tolerance that evidence is gathered for. Each has an equal share of the stake."""
_MOST_STAKED = 0.9
"""Of the capital, on one sample."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What one look at the groups said."""

    number: int
    """From 1."""
    step: int | None
    """Of the training run, as it was given."""
    value: float
    """The gap as measured; NaN if fewer than two groups have a score."""
    larger: str | None
    smaller: str | None
    """The groups that attain it."""
    p_value: float
    """Of this look alone; with ``given_real`` of all looks so far, and still valid. NaN if there is no test."""
    limit: float
    """The look raises the alarm if its p-value is not above this."""
    alarm: bool
    reason: str = ""
    """Why there is no test."""


class DisparityMonitor:
    r"""Watch a gap between groups during a run, and raise an alarm with few false ones, however often one looks.

    A test at 5 % that is repeated at every look finds a gap between equal groups sooner or later. This one finds any
    with probability ``alpha`` at most, over all looks together. There are two ways, for two claims:

    **Each look for itself** (the default). Look t raises the alarm if its p-value is at most :math:`\alpha_t`, with
    :math:`\alpha_t = \alpha / n` for n planned looks, else :math:`\alpha_t = \alpha / (t (t + 1))`; both sum to
    ``alpha``. The claim of an alarm is on the checkpoint of that look: its groups have expected scores that differ by
    more than the tolerance. With probability ``1 - alpha`` all alarms of a run are right. For any score. Checkpoints
    may differ, looks may share samples, and the real samples may be the same in all of them.

    **Given the real samples** (``given_real=True``). Against fixed real samples, precision is the mean of one 0 or 1
    for each generated sample, all independent. So evidence adds up over looks at fresh samples. For a pair of groups a,
    b with x_a and x_b hits of m_a and m_b samples,

    .. math::

        E = [1 + \lambda_a (1 - c_a)]^{x_a} [1 - \lambda_a c_a]^{m_a - x_a}
            [1 - \lambda_b (1 - c_b)]^{x_b} [1 + \lambda_b c_b]^{m_b - x_b},
        \quad m_a \lambda_a = m_b \lambda_b, \quad c_a - c_b = \text{tolerance},

    has an expectation of at most 1 if a's score exceeds b's by no more than the tolerance. The products over looks,
    averaged over pairs and over several :math:`\lambda`, reach :math:`1 / \alpha` with probability ``alpha`` at most
    (Ville's inequality). c and :math:`\lambda` come from the looks before, so the first look only sets them. The claim
    of an alarm: at some look so far, two groups' scores against *these* real samples differed by more than the
    tolerance. If all looks are at one model, it is about that model.

    Parameters
    ----------
    metric
        Whose gap is watched; None if frames have only one metric.
    disparity
        Such as ``"delta_r"``; None for the metric's primary one, or with ``given_real`` the one of precision.
    tolerance
        Gaps up to this are no reason for an alarm; in the unit of the score, 0.05 for five points of a share. Choose
        one with ``given_real``: two groups of one law differ by chance against any given real samples.
    alpha
        The probability of any false alarm, over all looks.
    n_looks
        How many looks are planned. Later looks are recorded and raise no alarm.
    given_real
        As above; for ``"ipr"`` and ``"prdc"``. Exact for any number of samples.

    Attributes
    ----------
    looks : list of Look

    Notes
    -----
    An alarm says that scores differ, not that the model is the cause: groups that are harder to imitate score unequally
    for a perfect generator as well. Update with ``frame.baseline()`` to watch the excess over other real samples.

    The test of a look is a t test of every pair of groups, corrected for their number. The variance is estimated from
    parts of the samples, and has 2 n / 35 degrees of freedom with n samples (measured). Without them, limits as low as
    these would be exceeded too often. Validity and delay by simulation: ``benchmarks/results/monitor.md``.

    Cost of an update: that of ``frame.interval``, paid once per frame; nothing with ``given_real``.

    Source: alpha spending, Bonferroni's inequality over looks. Betting: Waudby-Smith and Ramdas 2024, Estimating means
    of bounded random variables by betting; Turner, Ly and Grünwald 2024, Generic E-variables for exact sequential
    k-sample tests, whose argument gives the bound for unequal m. ``docs/adr/0027-looking-often.md``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat(["f", "m"], 200)
    >>> real = rng.normal(size=(400, 2))
    >>> monitor = DisparityMonitor()
    >>> for step in range(4):
    ...     fake = rng.normal(size=(400, 2)) + 0.5 * step * (groups == "m")[:, None]
    ...     look = monitor.update(GenerativeMetricFrame(
    ...         metrics="fid", real=real, fake=fake, real_sensitive_features=groups, fake_sensitive_features=groups,
    ...         random_state=0), step=step)
    >>> [look.alarm for look in monitor.looks], monitor.alarm
    ([False, True, True, True], True)
    """

    def __init__(
        self,
        metric: str | None = None,
        disparity: str | None = None,
        *,
        tolerance: float = 0.0,
        alpha: float = 0.05,
        n_looks: int | None = None,
        given_real: bool = False,
    ) -> None:
        self.metric, self.disparity, self.given_real = metric, disparity, bool(given_real)
        self.tolerance = check_number(tolerance, "tolerance", minimum=0.0)
        self.alpha = check_number(alpha, "alpha", above=0.0, below=1.0)
        self.n_looks = None if n_looks is None else check_positive_int(n_looks, "n_looks")
        self.looks: list[Look] = []
        self._groups: list[str] = []
        self._hits: list[dict[str, tuple[int, int]]] = []

    def update(self, source: GenerativeMetricFrame | Baseline, *, step: int | None = None) -> Look:
        """Look at the groups once more.

        Parameters
        ----------
        source
            A frame of generated samples, with ``given_real`` of fresh ones; or what its ``baseline()`` returned.
        step
            Of the training run, for the record.

        Raises
        ------
        ValueError
            If the metric, the disparity or the groups are not those of the looks before, or with ``given_real`` if the
            score is not one, or the samples come in clusters. Nothing is recorded.
        TypeError
            If ``source`` is neither a frame nor a baseline.

        Notes
        -----
        A look whose scores cannot be relied on, or that is refused an interval, has no test (``reason``), but counts as
        one: what is left of ``alpha`` does not depend on the samples. With ``given_real`` every look is evidence.
        """
        if not isinstance(source, GenerativeMetricFrame | Baseline):
            raise TypeError(f"source is {type(source).__name__}, expected a GenerativeMetricFrame or its baseline()")
        excess = isinstance(source, Baseline)
        tables = source.tables() if isinstance(source, Baseline) else source.tables
        metric = check_metric(self.metric, [name for name in tables if name != "proportions"])
        table = tables[metric]
        disparity = self._disparity(table, excess)
        groups = [group_text(label) for label in table.values.index]
        if self.looks and groups != self._groups:
            raise ValueError(
                f"this look has the groups {listed(groups)}, and those before had {listed(self._groups)}; evaluate the "
                "same groups every time, with missing_groups='nan' if one may have no samples"
            )
        number = len(self.looks) + 1
        hits: dict[str, tuple[int, int]] = {}
        reason, p_value, limit = "", math.nan, self._limit(number)
        if isinstance(source, GenerativeMetricFrame) and self.given_real:
            if "clusters" in source.settings:
                raise ValueError(
                    "with given_real every sample is evidence of its own, and those of this frame come in clusters; "
                    "pass single samples, or monitor without given_real"
                )
            hits = _hits(source, metric, str(disparity.column))
            p_value, limit = self._evidence([*self._hits, hits], groups), self.alpha
        elif doubt := table.doubt():
            reason = doubt
        else:
            try:
                found = source._infer().largest[metric, disparity.name]
                p_value = _p_value(found, table, source._units(), self.tolerance)
            except ValueError as error:  # one look with too few samples does not end a training run
                reason = str(error)
        if not reason and math.isnan(p_value):
            reason = "fewer than two groups have a score with a known error"
        pair = table.gap(disparity)
        look = Look(
            number=number,
            step=step,
            value=pair.value,
            larger=None if pair.larger is None else group_text(pair.larger),
            smaller=None if pair.smaller is None else group_text(pair.smaller),
            p_value=p_value,
            limit=limit,
            alarm=p_value <= limit,  # False for NaN
            reason=reason,
        )
        self.metric, self.disparity, self._groups = metric, disparity.name, groups
        self.looks.append(look)
        self._hits.append(hits)
        return look

    @property
    def alarm(self) -> bool:
        """Whether any look raised the alarm."""
        return any(look.alarm for look in self.looks)

    @property
    def text(self) -> str:
        """What is known so far, in a sentence without a full stop."""
        watched = f"{self.metric} {self.disparity}"
        n, rate = len(self.looks), f"{100.0 * self.alpha:g} %"
        first = next((look for look in self.looks if look.alarm), None)
        if first is None:
            untested = [look for look in self.looks if look.reason]
            lacking = f" ({len(untested)} without a test: {untested[-1].reason})" if untested else ""
            return f"no alarm in {n} looks at {watched}{lacking}, which does not show that it is small"
        where = f"look {first.number}" if first.step is None else f"step {first.step}"
        beyond = "0" if self.tolerance == 0.0 else f"{self.tolerance:g}"
        if self.given_real:
            claim = f"at some look up to {where}, the gap against these real samples was above {beyond}"
        else:
            claim = f"at {where}, the gap was above {beyond}"
        return f"alarm in {watched}: {claim}; false in at most {rate} of such runs, however many looks"

    def table(self) -> pd.DataFrame:
        """Return all looks, one row each."""
        names = [field.name for field in dataclasses.fields(Look)]
        return pd.DataFrame([dataclasses.astuple(look) for look in self.looks], columns=names).set_index("number")

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.text}"

    def state_dict(self) -> dict[str, Any]:
        """Return settings and looks as plain values, for a checkpoint of the training run; JSON can hold them."""
        looks = [{name: None if value != value else value for name, value in vars(look).items()} for look in self.looks]
        hits = [{group: list(counts) for group, counts in of_look.items()} for of_look in self._hits]
        return {**self._settings(), "groups": list(self._groups), "looks": looks, "hits": hits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the monitor stood whose ``state_dict`` this is.

        Raises
        ------
        ValueError
            If ``state`` is not such a dict, or that monitor had other settings: what was spent of ``alpha`` would not
            be known.
        """
        settings = self._settings()
        if not isinstance(state, Mapping) or set(state) != {*settings, "groups", "looks", "hits"}:
            raise ValueError("state is not what DisparityMonitor.state_dict returned; pass all of that")
        watched = ("metric", "disparity")  # None until the first look chooses them
        different = [
            name
            for name, value in settings.items()
            if state[name] != value and not (name in watched and value is None and not self.looks)
        ]
        if different:
            found = "; ".join(f"{name} is {state[name]!r} there and {settings[name]!r} here" for name in different)
            raise ValueError(f"state comes from a monitor with other settings: {found}. Make both with the same")
        self.metric, self.disparity, self._groups = state["metric"], state["disparity"], list(state["groups"])
        numbers = ("value", "p_value")
        self.looks = [
            Look(**{**look, **{name: math.nan for name in numbers if look[name] is None}}) for look in state["looks"]
        ]
        self._hits = [{group: (int(x), int(m)) for group, (x, m) in hits.items()} for hits in state["hits"]]

    def _settings(self) -> dict[str, Any]:
        names = ("metric", "disparity", "tolerance", "alpha", "n_looks", "given_real")
        return {name: getattr(self, name) for name in names}

    def _disparity(self, table: ScoreTable, excess: bool) -> Disparity:
        named = {disparity.name: disparity for disparity in table.disparities}
        if self.disparity is not None and self.disparity not in named:
            raise ValueError(
                f"disparity={self.disparity!r} is not one of {table.metric}; choose one of {listed(named)}"
            )
        if self.given_real:
            allowed = {
                name: disparity
                for name, disparity in named.items()
                if not excess
                and disparity.column is not None
                and table.described[disparity.column].per_sample == "indicator"
            }
            why = "the mean of a 0 or 1 for each generated sample; precision of 'ipr' and 'prdc' is"
        else:
            allowed = {name: disparity for name, disparity in named.items() if len(disparity.families) == 1}
            why = "the largest difference of two groups in one sum of scores; watch its parts instead"
        chosen = self.disparity or (next(iter(allowed), None) if self.given_real else table.primary.name)
        if chosen not in allowed:
            what = "the excess" if excess and self.given_real else f"{chosen or 'no score'} of {table.metric}"
            raise ValueError(f"disparity={self.disparity!r} with given_real={self.given_real}: {what} is not {why}")
        return allowed[chosen]

    def _limit(self, number: int) -> float:
        if self.n_looks is None:
            return self.alpha / (number * (number + 1))
        return self.alpha / self.n_looks if number <= self.n_looks else 0.0

    def _evidence(self, looks: Sequence[Mapping[str, tuple[int, int]]], groups: Sequence[str]) -> float:
        """Return a p-value that is valid at every look: one over the largest capital so far."""
        pairs = list(itertools.permutations(groups, 2))
        logs = np.zeros((len(pairs), len(_GAPS)))
        best, share = 0.0, math.nan
        for hits in looks:
            if not math.isnan(share):
                for row, (a, b) in enumerate(pairs):
                    if a in hits and b in hits:
                        logs[row] += _log_capital(hits[a], hits[b], share, self.tolerance)
                best = max(best, float(np.logaddexp.reduce(logs, axis=None)) - math.log(logs.size))
            if hits:
                share = (sum(x for x, _ in hits.values()) + 0.5) / (sum(m for _, m in hits.values()) + 1.0)
        return math.exp(-best)


def _hits(frame: GenerativeMetricFrame, metric: str, score: str) -> dict[str, tuple[int, int]]:
    """Return by group how many generated samples count as 1, and how many there are."""
    found = {}
    for label, results in frame.results.items():
        if metric in results:
            m = results[metric].n_fake
            found[group_text(label)] = (round(results[metric].scores()[score] * m), m)
    return found


def _log_capital(of_a: tuple[int, int], of_b: tuple[int, int], share: float, tolerance: float) -> Floats:
    """Return the logarithm of E for every gap that is bet on; see :class:`DisparityMonitor`.

    With n = m_a + m_b, E's expectation is the product of n means, at most the n-th power of their mean, and that is
    1 + L (p_a - p_b - tolerance) / n with L = m_a lambda_a. So it is at most 1 under the null hypothesis.
    """
    (x_a, m_a), (x_b, m_b) = of_a, of_b
    c_a, c_b = share + tolerance / 2.0, share - tolerance / 2.0
    stake = _GAPS / (share * (1.0 - share) * (1.0 / m_a + 1.0 / m_b))  # the best for such a gap, to the second order
    stake = np.minimum(stake, _MOST_STAKED * min(m_a / c_a, m_b / (1.0 - c_b)))  # no factor below is negative then
    on_a, on_b = stake / m_a, stake / m_b
    logs: Floats = (
        x_a * np.log1p(on_a * (1.0 - c_a))
        + (m_a - x_a) * np.log1p(-on_a * c_a)
        + x_b * np.log1p(-on_b * (1.0 - c_b))
        + (m_b - x_b) * np.log1p(on_b * c_b)
    )
    return logs


def _p_value(largest: Largest, table: ScoreTable, sizes: Mapping[Hashable, int], tolerance: float) -> float:
    """Return the probability of a gap this far beyond the tolerance if no two groups differ by more; NaN without two.

    A t test of every pair in both directions, corrected for their number by Bonferroni's inequality: the limits lie in
    a tail where little is lost by it, and which draws would not reach.
    """
    (contrasts,), (estimates,), (errors,) = largest.families, largest.estimates, largest.errors
    if not largest.known:
        return math.nan
    n_groups, n_scores = table.values.shape
    data = np.nan_to_num(largest.uncertainty.data).reshape(n_groups, n_scores, n_groups, n_scores)
    own = data[np.arange(n_groups), :, np.arange(n_groups), :]  # groups share no samples
    by_group = contrasts.reshape(-1, n_groups, n_scores)
    variances = np.einsum("cgi,gij,cgj->cg", by_group, own, by_group)
    freedom = np.array([2.0 * sizes.get(label, 0) / VARIANCE_OF_VARIANCE for label in table.values.index])
    with np.errstate(divide="ignore", invalid="ignore"):
        of_contrast = errors**4 / np.where(variances > 0, variances**2 / freedom, 0.0).sum(axis=1)
        statistics = (estimates - tolerance) / errors
    known = errors > 0.0  # of a score without any variance nothing is known
    p_values = stdtr(np.minimum(of_contrast[known], 1e9), -statistics[known])
    return float(min(1.0, len(contrasts) * p_values.min(initial=1.0)))
