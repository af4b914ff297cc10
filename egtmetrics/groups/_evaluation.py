"""Call metrics on every group, and on all samples."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from egtmetrics._errors import listed
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_features, check_real_fake, keep_checked
from egtmetrics.labels import group_text
from egtmetrics.ops import BackendName, Features, select_backend
from egtmetrics.registry import callable_name, registered_metrics
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

_SIZE_FACTOR = 2
_KEPT_ERRORS: tuple[type[Exception], ...] = (TypeError, MemoryError, ImportError, OSError)
_KEYWORD_KINDS = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class GroupSizeWarning(UserWarning):
    """Groups differ in size by more than a factor of two, or two models at all, so scores differ in bias, too.

    Scores that declare ``depends_on_size=False`` cause no warning.
    """


class MissingScoreWarning(UserWarning):
    """With ``missing_groups="nan"``: a group is too small for a metric, or for an interval, which is NaN for it."""


class MetricSet:
    """Named metrics with fixed options and seed, ready to be called on any samples."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        random_state: RandomState = None,
        backend: BackendName = "auto",
        n_threads: int | None = None,
        missing_groups: MissingGroups = "raise",
    ) -> None:
        check_missing_groups(missing_groups)
        self.seed = resolve_seed(random_state)
        self.backend, self.n_threads, self.missing_groups = backend, n_threads, missing_groups
        self.given = name_metrics(metrics)
        options = {"random_state": self.seed, "backend": backend, "n_threads": n_threads}
        self.bound = {name: bind(metric, options) for name, metric in self.given.items()}

    def group(self, real: Any, fake: Any, real_sensitive_features: Any, fake_sensitive_features: Any) -> GroupedSamples:
        """Check and group samples, on the device where the backend reads them."""
        real_sensitive_features = labels_of(real, real_sensitive_features)
        if self.backend == "cuda":  # before they are grouped, so that an error names the side on the wrong device
            device = select_backend("cuda", features=(real, fake)).device
            real, fake = (keep_checked(features) for features in check_real_fake(real, fake, device=device))
        samples = GroupedSamples(
            real=real,
            fake=fake,
            real_sensitive_features=real_sensitive_features,
            fake_sensitive_features=fake_sensitive_features,
        )
        return self.place(samples)

    def place(self, samples: GroupedSamples) -> GroupedSamples:
        """Return the samples on the device where the backend reads them, or on the host if it reads them there."""
        if self.backend == "cuda":
            return samples.on(select_backend("cuda", features=(samples.real, samples.fake)).device)
        return samples if self.backend == "auto" else samples.on(None)

    def call(
        self, real: Features, fake: Features, where: str, advance: Callable[[], object] = lambda: None
    ) -> dict[str, MetricResult]:
        """Call every metric; ``where`` names the samples in errors, ``advance`` is called after each metric."""
        results = {}
        for name in self.bound:
            results[name] = self._call_one(name, real, fake, where)
            advance()
        return results

    def _call_one(self, name: str, real: Features, fake: Features, where: str) -> MetricResult:
        metric = self.bound[name]
        with naming_metric(name, f"{where} ({len(real)} real, {len(fake)} fake)"), collecting_caveats():
            value = metric(real, fake) if takes(metric, "backend") else metric(_on_host(real), _on_host(fake))
        return as_result(value, name, n_real=len(real), n_fake=len(fake))

    def by_group(
        self,
        samples: GroupedSamples,
        advance: Callable[[], object] = lambda: None,
        refused: dict[str, dict[Hashable, ValueError]] | None = None,
    ) -> Results:
        """Call every metric on every group that has samples on both sides.

        With ``missing_groups="nan"``, a group that a metric refuses has no result of it; ``refused`` gets the errors,
        by metric and group.
        """
        results: Results = {}
        for label in samples.groups.on_both_sides():
            group = samples.group(label)
            where = f"group {samples.groups.name(label)!r}"
            results[label] = {}
            for name in self.bound:
                try:
                    results[label][name] = self._call_one(name, group.real, group.fake, where)
                except ValueError as error:
                    if self.missing_groups == "raise":
                        raise
                    if refused is not None:
                        refused.setdefault(name, {})[label] = error
                advance()
        return results

    def overall(self, samples: GroupedSamples, advance: Callable[[], object] = lambda: None) -> dict[str, MetricResult]:
        """Call every metric on all rows, including those in no group."""
        return self.call(*samples.overall(), "all samples", advance)

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


def warn_of_sizes(samples: GroupedSamples, results: Results, *, stacklevel: int) -> None:
    """Warn if the groups have very different sizes and a score depends on the size."""
    dependent = [
        repr(name)
        for name, result in one_result_each(results).items()
        if any(score.depends_on_size for score in result.describe().values())
    ]
    if not dependent:
        return
    for difference in unequal_sizes(samples, [label for label, by_metric in results.items() if by_metric]):
        warnings.warn(
            f"{difference}; {', '.join(dependent)} may depend on it, so part of a difference between groups may come "
            "from their sizes. GroupedSamples.matched(across_groups=True) makes the sizes equal.",
            GroupSizeWarning,
            stacklevel=stacklevel + 1,
        )


def unequal_sizes(samples: GroupedSamples, labels: Sequence[Hashable]) -> list[str]:
    """Return a sentence for each side on which these groups differ in size by more than a factor of two."""
    sizes = samples.groups.counts().loc[list(labels)]
    return [
        f"the groups differ in their number of {side} samples, from {column.min()} in group "
        f"{samples.groups.name(column.idxmin())!r} to {column.max()} in {samples.groups.name(column.idxmax())!r}"
        for side in ("real", "fake")
        for column in [sizes[f"n_{side}"]]
        if column.max() > _SIZE_FACTOR * column.min()
    ]


def one_result_each(results: Results) -> dict[str, MetricResult]:
    """Return a result of every metric: that of the first group that has one."""
    found: dict[str, MetricResult] = {}
    for by_metric in results.values():
        found = by_metric | found
    return found


def warn_of_refusals(
    refused: Mapping[str, Mapping[Hashable, ValueError]], results: Results, what: str, *, stacklevel: int
) -> None:
    """Warn once for every metric that refused groups, which have no ``what``; raise if it refused all of them."""
    notes = []
    for errors in refused.values():
        first = next(iter(errors.values()))
        if len(errors) == len(results):
            raise first
        notes.append(f"no {what} for group {listed(repr(group_text(label)) for label in errors)}: {first}")
    for note in dict.fromkeys(notes):
        warnings.warn(note, MissingScoreWarning, stacklevel=stacklevel + 1)


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
        if overall is not None:
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
