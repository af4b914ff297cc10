"""Metrics by name: what belongs to a metric besides its function, and where metrics are found.

:func:`metric` attaches the name, the title and the variance estimator to the function itself. ``functools.partial`` and
``functools.wraps`` keep them. Other packages add metrics through the entry point group ``egtmetrics.metrics``, whose
entries name such functions. The frame and the command line then accept their names.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import typing
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from egtmetrics.results import MetricResult, Score, score_fields, setting_fields

_ATTRIBUTE = "__egtmetrics__"
_ENTRY_POINTS = "egtmetrics.metrics"
_OWN = ("egtmetrics.metrics", "egtmetrics.divergences")
_REGISTERED: dict[str, Metric] = {}

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric's function with its name, title and variance estimator."""

    name: str
    """The name on the command line and in ``metrics="fid"``."""
    title: str
    """The title of its tables and figures."""
    function: Callable[..., Any]
    variance: Callable[..., Any] | None = None
    """Its variance estimator; see :func:`metric`."""
    mixtures: Callable[..., Any] | None = None
    """Its scores of mixtures of generated sets; see :func:`metric`."""

    def result_class(self) -> type[MetricResult] | None:
        """Return the class of its result, from the annotation of the function; None if there is no such annotation."""
        try:
            returned: Any = typing.get_type_hints(self.function).get("return")
        except (NameError, TypeError):  # names that are imported only for type checkers, or a callable object
            return None
        return returned if isinstance(returned, type) and issubclass(returned, MetricResult) else None

    def scores(self) -> dict[str, Score]:
        """Return the scores that its result declares, by name, without calling it."""
        found = self.result_class()
        return {} if found is None else score_fields(found)

    def settings(self) -> tuple[str, ...]:
        """Return the names of the fields of its result that say how the scores were computed."""
        found = self.result_class()
        return () if found is None else setting_fields(found)


def metric(
    name: str,
    *,
    title: str,
    variance: Callable[..., Any] | None = None,
    mixtures: Callable[..., Any] | None = None,
) -> Callable[[Function], Function]:
    """Register a function ``(real, fake, *, ...) -> MetricResult`` as a metric.

    Parameters
    ----------
    name
        The name on the command line and in ``metrics="..."``: short, lower case.
    title
        The title of tables and figures, for readers.
    variance
        ``variance(result, real, fake, rng)``, which also gets ``backend``, ``n_threads``, ``parts``, random halves and
        quarters of both sets, and ``clusters``, the cluster of every row of both sets or None, by keyword if its
        signature has them. It returns the covariance of the scores as a :class:`egtmetrics.metrics.ScoreCovariance`, or
        None if it has no estimate. What it needs besides the samples is in the result. Without an estimator, and for
        samples in clusters with one that does not take ``clusters``, intervals call the metric on halves and quarters
        of the samples, some
        330 times.
    mixtures
        ``mixtures(results, real, fake, rng)``, for a metric with scores that are no means over generated samples
        (``Score.per_sample``) but can be had of a mixture of laws from samples of each. It gets lists of results and of
        real sets by group, and of generated sets, and returns :class:`egtmetrics.metrics.mixtures.Mixtures`: the scores
        of every real set against the generated sets with weights that sum to 1 and may be negative.

    Raises
    ------
    ValueError
        If another function has the name.

    Examples
    --------
    >>> @metric("mean-gap", title="Gap of the means")
    ... def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> metric_of(functools.partial(mean_gap)).title
    'Gap of the means'
    """

    def register(function: Function) -> Function:
        known = _REGISTERED.get(name)
        if known is not None and _origin(known.function) != _origin(function):
            raise ValueError(
                f"name={name!r} already belongs to the metric {'.'.join(_origin(known.function))}; choose another name"
            )
        found = Metric(name=name, title=title, function=function, variance=variance, mixtures=mixtures)
        _REGISTERED[name] = found
        setattr(function, _ATTRIBUTE, found)
        return function

    return register


def metric_of(function: Callable[..., Any]) -> Metric | None:
    """Return what ``@metric`` attached, also through partials and ``functools.wraps``; None if nothing was."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, _ATTRIBUTE, None)


def callable_name(function: Callable[..., Any]) -> str:
    """Return the name of a function, also of one inside ``functools.partial``, or the class of another callable."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def registered_metrics() -> dict[str, Metric]:
    """Return all metrics in the order of their names, including those of other packages."""
    _load()
    return dict(sorted(_REGISTERED.items()))


@functools.cache
def _load() -> None:
    for module in _OWN:
        importlib.import_module(module)
    for entry in importlib.metadata.entry_points(group=_ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:  # a fault in another package must not disable the library's own metrics
            warnings.warn(f"the metric {entry.name} ({entry.value}) cannot be loaded: {error}", stacklevel=2)


def _origin(function: Callable[..., Any]) -> tuple[str, str]:
    inner = inspect.unwrap(function)
    return str(getattr(inner, "__module__", "")), str(getattr(inner, "__qualname__", type(inner).__qualname__))
