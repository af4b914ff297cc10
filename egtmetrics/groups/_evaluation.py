"""Call metrics on every group, and on all samples."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import time
import warnings
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn, Self, TypeAlias, get_args

import numpy as np

from egtmetrics._errors import TooFewSamplesError, listed
from egtmetrics._progress import tqdm
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_features, check_real_fake, keep_checked, take_checked
from egtmetrics.groups.disparity import ScoreTable
from egtmetrics.labels import group_text
from egtmetrics.metrics.subsampling import ClustersOfBoth
from egtmetrics.metrics.variance import Advance, ScoreCovariance, calls_of_covariance, score_covariance
from egtmetrics.ops import BackendName, Features, reading_device
from egtmetrics.registry import callable_name, metric_of, registered_metrics
from egtmetrics.results import MetricResult, UnreliableScoreWarning, as_result, collecting_caveats
from egtmetrics.samples import GroupedSamples, labels_of

ScoreFunction: TypeAlias = Callable[..., Any]
"""``(real, fake) -> number | mapping of names to numbers | MetricResult``; may take ``random_state``, ``backend`` and
``n_threads`` by keyword. One that takes ``backend`` may get features on a device; any other gets NumPy arrays."""
Metrics: TypeAlias = str | ScoreFunction | Sequence[str | ScoreFunction] | Mapping[str, ScoreFunction]
"""``"fid"``, ``"topp,fid"``, ``["topp", "fid"]``, a function, or a mapping of names to functions."""
MissingGroups = Literal["raise", "nan"]
Results: TypeAlias = dict[Hashable, dict[str, MetricResult]]
"""Results by group and metric."""
Refused: TypeAlias = dict[str, dict[Hashable | None, ValueError]]
"""By metric and group, None for all samples: why the metric cannot be had of them."""

_KEPT_ERRORS: tuple[type[Exception], ...] = (TypeError, MemoryError, ImportError, OSError)
_KEYWORD_KINDS = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class GroupSizeWarning(UserWarning):
    """Groups differ in size by more than a factor of two, or two models at all, so scores differ in bias, too.

    Scores that declare ``depends_on_size=False`` cause no warning.
    """


class MissingScoreWarning(UserWarning):
    """A group is too small for a metric, or for an interval, which is NaN for it; with ``strict=True`` an error."""


class MetricSet:
    """Named metrics with fixed options and seed, ready to be called on any samples.

    ``progress`` says whether covariances of their scores show any.

    A ValueError of a metric means that it cannot be had of these samples; a metric of a user's has no other way to say
    so. Every other error is a fault. ``strict`` says whether the former, too, is to end the evaluation.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        random_state: RandomState = None,
        backend: BackendName = "auto",
        n_threads: int | None = None,
        strict: bool = True,
        progress: bool = False,
    ) -> None:
        self.progress = progress
        self.seed = resolve_seed(random_state)
        self.backend, self.n_threads, self.strict = backend, n_threads, strict
        self.given = name_metrics(metrics)
        options = {"random_state": self.seed, "backend": backend, "n_threads": n_threads}
        self.bound = {name: bind(metric, options) for name, metric in self.given.items()}
        self.seconds_per_row: dict[str, float] = {}
        """By metric, in the fastest of the calls so far: the first one also loads modules."""

    def counting(self, what: str, results: Iterable[tuple[str, MetricResult]], *, progress: bool) -> tqdm[NoReturn]:
        """Return the progress of covariances of results of metrics; its ``update`` is told of their calls."""
        total = sum(calls_of_covariance(self.bound[name], result, 0).n for name, result in results)
        return tqdm(total=total, desc=what, unit="evaluation", leave=False, disable=not progress)

    def without(self, names: Container[str]) -> Self:
        """Return the same with fewer metrics."""
        fewer = copy.copy(self)
        fewer.given, fewer.bound = (
            {name: metric for name, metric in metrics.items() if name not in names}
            for metrics in (self.given, self.bound)
        )
        return fewer

    def group(
        self, real: Any, fake: Any, real_sensitive_features: Any, fake_sensitive_features: Any, **others: Any
    ) -> GroupedSamples:
        """Check and group samples, on the device where the backend reads them.

        ``others`` are further arguments of :class:`~egtmetrics.samples.GroupedSamples`.
        """
        real_sensitive_features = labels_of(real, real_sensitive_features)
        # Placed before they are grouped: an error names the side on the wrong device, and nothing is said of kernels
        # that the backend does not need.
        device = reading_device(self.backend, real, fake)
        real, fake = (keep_checked(features) for features in check_real_fake(real, fake, device=device))
        return GroupedSamples(
            real=real,
            fake=fake,
            real_sensitive_features=real_sensitive_features,
            fake_sensitive_features=fake_sensitive_features,
            **others,
        )

    def place(self, samples: GroupedSamples) -> GroupedSamples:
        """Return the samples on the device where the backend reads them, or on the host if it reads them there."""
        if self.backend == "auto":  # which reads them where they are
            return samples
        return samples.on(reading_device(self.backend, samples.real, samples.fake))

    def call(
        self,
        real: Features,
        fake: Features,
        where: str,
        advance: Callable[[], object] = lambda: None,
        refuse: Callable[[str, ValueError], object] | None = None,
    ) -> dict[str, MetricResult]:
        """Call every metric; ``where`` names the samples in errors, ``advance`` is called after each metric.

        With ``refuse``, a metric that raises a ValueError has no result, and ``refuse`` gets its name and the error.
        """
        results = {}
        for name in self.bound:
            try:
                results[name] = self._call_one(name, real, fake, where)
            except ValueError as error:
                if refuse is None:
                    raise
                refuse(name, error)
            advance()
        return results

    def _call_one(self, name: str, real: Features, fake: Features, where: str) -> MetricResult:
        metric = self.bound[name]
        start = time.perf_counter()
        with naming_metric(name, f"{where} ({len(real)} real, {len(fake)} fake)"), collecting_caveats():
            value = metric(real, fake) if takes(metric, "backend") else metric(_on_host(real), _on_host(fake))
        rate = (time.perf_counter() - start) / (len(real) + len(fake))
        self.seconds_per_row[name] = min(rate, self.seconds_per_row.get(name, rate))
        return as_result(value, name, n_real=len(real), n_fake=len(fake))

    def covariance(
        self,
        name: str,
        result: MetricResult,
        real: Features,
        fake: Features,
        where: str,
        *,
        clusters: ClustersOfBoth = (None, None),
        advance: Advance = lambda _: None,
    ) -> ScoreCovariance:
        """Return the covariance of the scores that a metric gave; ``where`` names the samples in errors."""
        sizes = f"({len(real)} real, {len(fake)} fake)"
        with naming_metric(name, f"an interval needs scores of random halves of {where} {sizes}"):
            return score_covariance(
                self.bound[name],
                result,
                real,
                fake,
                rng=np.random.default_rng([self.seed, 1]),  # the same for every group, whatever its name
                backend=self.backend,
                n_threads=self.n_threads,
                clusters=clusters,
                advance=advance,
            )

    def by_group(
        self, samples: GroupedSamples, advance: Callable[[], object] = lambda: None, refused: Refused | None = None
    ) -> Results:
        """Call every metric on every group that has samples on both sides.

        With ``refused``, a group that a metric refuses has no result of it, and ``refused`` gets the error.
        """
        results: Results = {}
        for label in samples.groups.on_both_sides():
            group = samples.group(label)
            where = f"group {samples.groups.name(label)!r}"
            results[label] = self.call(group.real, group.fake, where, advance, refusing(refused, label))
        return results

    def overall(
        self, samples: GroupedSamples, advance: Callable[[], object] = lambda: None, refused: Refused | None = None
    ) -> dict[str, MetricResult]:
        """Call every metric on all rows, including those in no group; ``refused`` as for ``by_group``."""
        return self.call(*samples.overall(), "all samples", advance, refusing(refused, None))

    def check_options(self, samples: GroupedSamples) -> None:
        """Refuse options of our own metrics that no group can meet, before anything is computed.

        The error is that of the largest group.
        """
        sizes = samples.groups.counts()[["n_real", "n_fake"]].min(axis=1).to_dict()
        largest = max(sizes, key=sizes.__getitem__)
        one = take_checked(samples.fake, np.zeros(1, dtype=np.int64))  # for both sides: a reference may have no rows
        for name, metric in self.bound.items():
            refusal = refusal_of_one_row(metric, one)
            if refusal is None or (isinstance(refusal, TooFewSamplesError) and refusal.needed <= sizes[largest]):
                continue
            group = samples.group(largest)
            self._call_one(name, group.real, group.fake, f"group {samples.groups.name(largest)!r}")

    def describe(self) -> dict[str, str]:
        """Return every metric's function with its fixed options: ``"topp_precision_recall(alpha=0.05)"``."""
        return {name: describe_metric(metric) for name, metric in self.given.items()}


@contextlib.contextmanager
def naming_metric(name: str, where: str) -> Iterator[None]:
    """Say in the error of a metric which one it is, and of which samples; what it raised stays as the cause.

    An error keeps its type where callers tell it from others, and is a RuntimeError otherwise.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}, metric {name!r}: {error}") from error
    except Exception as error:
        if isinstance(error, Warning) or type(error).__module__.startswith("egtmetrics."):
            error.add_note(f"{where}, metric {name!r}")
            raise
        kind = next((kind for kind in _KEPT_ERRORS if isinstance(error, kind)), RuntimeError)
        raise kind(f"{where}, metric {name!r} raised {type(error).__name__}: {error}") from error


def check_groups(samples: GroupedSamples, missing_groups: MissingGroups) -> None:
    """Raise ValueError unless there are groups to compare; with ``"raise"``, each must be present on both sides."""
    check_missing_groups(missing_groups)
    samples.groups.check_two()
    if missing_groups == "raise" or not samples.groups.on_both_sides():
        samples.groups.check_present("get a NaN row for it from GenerativeMetricFrame(..., missing_groups='nan')")


def check_missing_groups(missing_groups: MissingGroups) -> None:
    if missing_groups not in get_args(MissingGroups):
        raise ValueError(f"missing_groups={missing_groups!r} is unknown; choose 'raise' or 'nan'")


def warn_of_sizes(tables: Mapping[str, ScoreTable], *, stacklevel: int) -> None:
    """Warn if the groups have very different sizes and a score depends on the size."""
    for note in size_notes(tables):
        warnings.warn(
            f"{note}. GroupedSamples.matched(across_groups=True) makes the sizes equal, and a baseline compares equal "
            "ones.",
            GroupSizeWarning,
            stacklevel=stacklevel + 1,
        )


def size_notes(tables: Mapping[str, ScoreTable]) -> list[str]:
    """Return a sentence without a full stop for each way in which groups cannot be compared, with the metrics."""
    metrics: dict[str, list[str]] = {}
    for metric, table in tables.items():
        if unequal := table.unequal_sizes():
            metrics.setdefault(unequal, []).append(metric)
    return [
        f"{unequal[:1].upper()}{unequal[1:]}; {', '.join(names)} may depend on it, so differences between groups "
        "cannot be relied on"
        for unequal, names in metrics.items()
    ]


def one_result_each(results: Results) -> dict[str, MetricResult]:
    """Return a result of every metric: that of the first group that has one."""
    found: dict[str, MetricResult] = {}
    for by_metric in results.values():
        found = by_metric | found
    return found


def with_cluster_caveats(results: Results, samples: GroupedSamples) -> Results:
    """Return the results with a caveat for groups that are in too few clusters for errors to be known."""
    if not samples.n_clusters():
        return results
    return {
        label: {
            name: dataclasses.replace(result, caveats=(*result.caveats, *samples.group(label).cluster_caveats()))
            for name, result in by_metric.items()
        }
        for label, by_metric in results.items()
    }


def refusing(refused: Refused | None, label: Hashable | None) -> Callable[[str, ValueError], object] | None:
    """Return what ``MetricSet.call`` takes as ``refuse``, to note the errors of a group; None for None."""
    if refused is None:
        return None
    return lambda name, error: refused.setdefault(name, {}).update({label: error})


def refusal_of_one_row(metric: ScoreFunction, row: Features) -> ValueError | None:
    """Return how one of our own metrics refuses sets of one row; None if it does not, and for any other metric.

    Ours check their options, then the number of rows, and only then compute. So this costs nothing, and shows whether
    larger sets are refused as well. Other metrics may check nothing, or in another order.
    """
    function, options = (metric.func, metric.keywords) if isinstance(metric, functools.partial) else (metric, {})
    if not str(getattr(function, "__module__", "")).startswith("egtmetrics.") or metric_of(function) is None:
        return None
    unspent = {  # what a Generator gives here, the first real call gets
        name: copy.deepcopy(value) if isinstance(value, np.random.Generator) else value
        for name, value in options.items()
    }
    try:
        with collecting_caveats():
            function(row, row, **unspent)
    except ValueError as error:
        return error
    return None


def warn_of_refusals(refused: Refused, what: str, *, stacklevel: int) -> None:
    """Warn once for every metric that refused groups, which have no ``what``."""
    notes = []
    for errors in refused.values():
        names = listed("all samples" if label is None else f"group {group_text(label)!r}" for label in errors)
        notes.append(f"no {what} for {names}: {next(iter(errors.values()))}")
    for note in dict.fromkeys(notes):
        warnings.warn(note, MissingScoreWarning, stacklevel=stacklevel + 1)


def refusal_note(metric: str, reasons: Mapping[Hashable | None, str], what: str = "score") -> str:
    """Return a sentence that says for which groups a metric has no ``what``, and of the first one why."""
    names = ["overall" if label is None else group_text(label) for label in reasons]
    return f"{metric} has no {what} for {listed(names)}. {names[0]}: {next(iter(reasons.values()))}"


def refusal_reasons(refused: Refused) -> dict[str, dict[Hashable | None, str]]:
    """Return what the metrics said of the groups that they refused."""
    return {
        metric: {label: str(error.__cause__ or error) for label, error in errors.items()}
        for metric, errors in refused.items()
    }


def one_refusal(refused: Refused) -> ValueError:
    """Return the first error, to raise where nothing is left."""
    return next(error for errors in refused.values() for error in errors.values())


def warn_of_caveats(
    results: Results, overall: Mapping[str, MetricResult] | None = None, *, what: str = "group", stacklevel: int
) -> None:
    """Warn once for every metric some of whose results have caveats, and name the groups."""
    for metric in one_result_each(results):
        found = {
            f"{what} {group_text(label)!r}": by_metric[metric].caveats
            for label, by_metric in results.items()
            if metric in by_metric
        }
        if overall is not None and metric in overall:
            found["all samples"] = overall[metric].caveats
        found = {where: caveats for where, caveats in found.items() if caveats}
        if found:
            warnings.warn(caveat_note(metric, found), UnreliableScoreWarning, stacklevel=stacklevel + 1)


def caveat_note(metric: str, found: Mapping[str, Sequence[str]]) -> str:
    """Return a sentence on a metric's caveats, by the names of what they are about; of the first it says why."""
    where, caveats = next(iter(found.items()))
    return (
        f"{metric} cannot be relied on for {listed(found)}, nor can differences between them and others. "
        f"{where}: {'. '.join(caveats)}"
    )


def describe_metric(metric: ScoreFunction) -> str:
    """Return the name of a metric's function with its fixed options: ``"topp_precision_recall(alpha=0.05)"``."""
    keywords = metric.keywords if isinstance(metric, functools.partial) else {}
    return f"{callable_name(metric)}({', '.join(f'{key}={value!r}' for key, value in keywords.items())})"


def name_metrics(metrics: Metrics) -> dict[str, ScoreFunction]:
    """Return metrics by name: text is looked up as on the command line, a function gets its own name."""
    if isinstance(metrics, Mapping):
        named = dict(metrics)
    else:
        chosen: Iterable[Any] = [metrics]
        if isinstance(metrics, str):
            chosen = dict.fromkeys(name.strip() for name in metrics.split(","))
        elif isinstance(metrics, Sequence):
            chosen = metrics
        named = dict(_named(metric) for metric in chosen)
    if not named:
        raise ValueError("metrics is empty; pass names such as 'topp,fid', a function (real, fake) -> score, or a dict")
    for name, metric in named.items():
        if not isinstance(name, str) or not callable(metric):
            raise TypeError(
                f"metrics[{name!r}] is {type(metric).__name__}, expected names (str) mapped to functions "
                "(real, fake) -> score; use functools.partial to fix the options of a metric"
            )
    return named


def _named(metric: str | ScoreFunction) -> tuple[str, ScoreFunction]:
    if not isinstance(metric, str):
        return callable_name(metric), metric
    known = registered_metrics()
    if metric not in known:
        raise ValueError(f"metric {metric!r} is unknown; choose from {', '.join(known)}")
    return metric, known[metric].function


def bind(metric: ScoreFunction, options: Mapping[str, object]) -> ScoreFunction:
    """Fix the options that the signature of ``metric`` names, unless a partial has fixed them already."""
    fixed = metric.keywords if isinstance(metric, functools.partial) else {}
    wanted = {name: value for name, value in options.items() if name not in fixed and takes(metric, name)}
    return functools.partial(metric, **wanted)


def takes(metric: ScoreFunction, keyword: str) -> bool:
    """Return whether the signature of a metric names a keyword."""
    try:
        parameter = inspect.signature(metric).parameters.get(keyword)
    except ValueError:  # some builtins have no signature
        return False
    return parameter is not None and parameter.kind in _KEYWORD_KINDS


def resolve_seed(random_state: RandomState) -> int:
    generator = check_random_state(random_state)
    return int(random_state) if isinstance(random_state, int | np.integer) else int(generator.integers(2**32))


def _on_host(features: Features) -> Features:
    return features if isinstance(features, np.ndarray) else keep_checked(check_features(features, "features"))
