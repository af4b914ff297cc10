"""What metrics return: frozen dataclasses whose scores describe themselves.

A field declared with :func:`score` is a number that a frame compares between groups. Code that prints, clips, colours,
ranks or explains it asks its :class:`Score`; nothing else in the library knows a score by its name. A field declared
with :func:`setting` says how the scores were computed. Every other field is a detail. ``caveats`` say why the scores
cannot be relied on: tables, figures, pages and comparisons mark them then, and every disparity that is built on them.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import html
import math
import numbers
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

Direction: TypeAlias = Literal["higher", "lower"] | float | None
PerSample: TypeAlias = Literal["indicator", "number"] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """What is known about a score. For an undeclared one nothing is assumed: no bounds, no percent, no direction."""

    label: str
    """The name in tables and figures, such as "precision" or "FID"."""
    help: str = ""
    """One sentence that explains the score to a reader, without the direction."""
    better: Direction = None
    """``"higher"``, ``"lower"``, or the best value if nearer to it is better; None if no value is better."""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """The smallest and the largest possible value. Intervals are clipped to them."""
    percent: bool = False
    """Whether the score is a share and printed in percent. Differences of shares are in percentage points."""
    unit: str = ""
    """The unit of a score that is not a share, such as "nats"."""
    depends_on_size: bool = True
    """Whether the expected score may change with the number of samples, which makes unequal groups hard to compare."""
    per_sample: PerSample = None
    """What, for given real samples, it is the mean of, if of something for each generated sample that depends on no
    other generated one: an ``"indicator"``, which is 0 or 1, or another ``"number"``. Else None."""

    def text(self, value: float) -> str:
        """Return the value as it is printed, without its unit."""
        return f"{100.0 * value:.2f}" if self.percent else f"{value:.4g}"

    @property
    def printed_unit(self) -> str:
        """``"%"`` for a share, else the unit."""
        return "%" if self.percent else self.unit

    @property
    def difference_unit(self) -> str:
        """The unit of a difference between two such scores: ``"points"`` for shares."""
        return "points" if self.percent else self.unit

    def difference_text(self, value: float) -> str:
        """Return a difference between two such scores as it is printed, with its unit: ``"21.18 points"``."""
        return f"{self.text(value)} {self.difference_unit}".rstrip()

    @property
    def direction(self) -> str:
        """A sentence such as ``"Higher is better."``; empty without a direction."""
        if self.better is None:
            return ""
        if isinstance(self.better, str):
            return f"{self.better.capitalize()} is better."
        return f"The nearer to {self.text(self.better)} the better."

    def loss(self, value: float) -> float:
        """Return a number that grows as the score gets worse; NaN without a direction."""
        if self.better is None:
            return math.nan
        if isinstance(self.better, str):
            return -value if self.better == "higher" else value
        return abs(value - self.better)


def score(
    *,
    label: str,
    help: str = "",
    better: Direction = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    percent: bool = False,
    unit: str = "",
    depends_on_size: bool = True,
    per_sample: PerSample = None,
) -> Any:
    """Declare a field of a :class:`MetricResult` as a score; the arguments are those of :class:`Score`.

    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class MedianResult(MetricResult):
    ...     gap: float = score(label="median gap", better="lower", bounds=(0.0, float("inf")))
    >>> MedianResult(gap=0.25, backend="numpy", n_real=10, n_fake=10).scores()
    {'gap': 0.25}
    """
    described = Score(
        label=label,
        help=help,
        better=better,
        bounds=bounds,
        percent=percent,
        unit=unit,
        depends_on_size=depends_on_size,
        per_sample=per_sample,
    )
    return dataclasses.field(metadata={_SCORE: described})


def share(
    *,
    label: str,
    help: str = "",
    better: Direction = "higher",
    depends_on_size: bool = True,
    per_sample: PerSample = None,
) -> Any:
    """Declare a score in [0, 1] that is printed in percent."""
    return score(
        label=label,
        help=help,
        better=better,
        bounds=(0.0, 1.0),
        percent=True,
        depends_on_size=depends_on_size,
        per_sample=per_sample,
    )


def setting() -> Any:
    """Declare a field that says how the scores were computed, or how well; it is printed below the tables."""
    return dataclasses.field(metadata={_SETTING: True})


def internal(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that serves the metric's own variance estimator: it is neither saved nor printed."""
    return dataclasses.field(default=default, metadata={_INTERNAL: True}, compare=False)


_SCORE, _SETTING, _INTERNAL = "score", "setting", "internal"

UNRELIABLE = "?"
"""What tables print behind a score or a disparity that cannot be relied on."""
_COLLECTED = contextvars.ContextVar("caveats are collected", default=False)


class UnreliableScoreWarning(UserWarning):
    """The scores cannot be relied on, for the reasons that the ``caveats`` of the result give."""


def warn_of_caveats(caveats: Sequence[str], *, stacklevel: int = 2) -> None:
    """Give the caveats of a metric's result as warnings in the name of the metric's caller.

    A frame calls metrics very often. It reads the caveats from the results and warns once, with the names of groups.
    """
    if not _COLLECTED.get():
        for caveat in caveats:
            warnings.warn(caveat, UnreliableScoreWarning, stacklevel=stacklevel + 1)


@contextlib.contextmanager
def collecting_caveats() -> Iterator[None]:
    """Say that the caller reads the caveats from the results, so that metrics do not warn of them."""
    token = _COLLECTED.set(True)
    try:
        yield
    finally:
        _COLLECTED.reset(token)


def score_fields(result_class: type[MetricResult]) -> dict[str, Score]:
    """Return the scores that a result class declares, by name and in their order."""
    return {
        field.name: field.metadata[_SCORE] for field in dataclasses.fields(result_class) if _SCORE in field.metadata
    }


def setting_fields(result_class: type[MetricResult]) -> tuple[str, ...]:
    """Return the names of the settings that a result class declares."""
    return tuple(field.name for field in dataclasses.fields(result_class) if _SETTING in field.metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricResult:
    """Base class of every result. Its scores are the fields declared with :func:`score`, in that order."""

    backend: str
    """Which backend computed it: ``"cpu"``, ``"cuda"`` or ``"reference"``; ``"numpy"`` if no kernel was used."""
    n_real: int
    n_fake: int
    caveats: tuple[str, ...] = ()
    """Why the scores cannot be relied on, one sentence each; empty if nothing speaks against them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = MetricResult.__repr__  # type: ignore[method-assign]  # else dataclass() writes its own

    def describe(self) -> dict[str, Score]:
        """Return what each score is, by name."""
        return score_fields(type(self))

    def scores(self) -> dict[str, float]:
        """Return the scores by name."""
        return {name: float(_item(getattr(self, name))) for name in self.describe()}

    def settings(self) -> dict[str, Any]:
        """Return how the scores were computed: the fields declared with :func:`setting`."""
        return {name: getattr(self, name) for name in setting_fields(type(self))}

    def to_dict(self) -> dict[str, Any]:
        """Return every field except internal ones, as plain Python values."""
        kept = (field.name for field in dataclasses.fields(self) if _INTERNAL not in field.metadata)
        return {name: _plain(getattr(self, name)) for name in kept}

    def _caption(self) -> str:
        return f"{type(self).__name__}: {self.n_real} real and {self.n_fake} fake samples"

    def __repr__(self) -> str:
        described, scores = self.describe(), self.scores()
        width = max(map(len, scores), default=0)
        lines = [
            f"  {name:<{width}}  {described[name].text(value)} {described[name].printed_unit}".rstrip()
            for name, value in scores.items()
        ]
        return "\n".join([self._caption(), *lines, *(f"  unreliable: {caveat}" for caveat in self.caveats)])

    def _repr_html_(self) -> str:
        """Return what notebooks show: the scores as a table."""
        described = self.describe()
        cells = "".join(
            f'<tr><th scope="row" style="text-align: left">{html.escape(described[name].label)}</th>'
            f"<td>{described[name].text(value)} {html.escape(described[name].printed_unit)}</td></tr>"
            for name, value in self.scores().items()
        )
        notes = "".join(f"<p>Unreliable: {html.escape(caveat)}</p>" for caveat in self.caveats)
        return f"<table><caption>{html.escape(self._caption())}</caption><tbody>{cells}</tbody></table>{notes}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class UndeclaredScores(MetricResult):
    """The result of a metric that returned a number, or a mapping of names to numbers."""

    values: dict[str, float]

    def describe(self) -> dict[str, Score]:
        return {name: Score(label=name) for name in self.values}

    def scores(self) -> dict[str, float]:
        return dict(self.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedResult(MetricResult):
    """A result that was read back from a file."""

    fields: Mapping[str, Any]
    """What ``to_dict`` had returned."""
    values: Mapping[str, float]
    described: Mapping[str, Score]
    setting_names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        fields: Mapping[str, Any],
        values: Mapping[str, float],
        described: Mapping[str, Score],
        setting_names: tuple[str, ...],
    ) -> SavedResult:
        """Return a result with these scores and descriptions, and the other fields as they were saved."""
        base = {name: fields[name] for name in ("backend", "n_real", "n_fake")}
        caveats = tuple(map(str, fields.get("caveats", ())))
        return cls(
            fields=fields, values=values, described=described, setting_names=setting_names, caveats=caveats, **base
        )

    def describe(self) -> dict[str, Score]:
        return dict(self.described)

    def scores(self) -> dict[str, float]:
        return dict(self.values)

    def settings(self) -> dict[str, Any]:
        return {name: self.fields[name] for name in self.setting_names if name in self.fields}

    def to_dict(self) -> dict[str, Any]:
        return dict(self.fields)


def as_result(value: Any, metric_name: str, *, n_real: int, n_fake: int) -> MetricResult:
    """Return what a metric returned as a result: a MetricResult as it is, numbers as :class:`UndeclaredScores`.

    A single number gets the name of its metric. A 0-d array or tensor counts as a number.

    Raises
    ------
    TypeError
        If ``value`` is none of these.
    """
    if isinstance(value, MetricResult) and value.describe():
        for score_name in value.describe():
            item = getattr(value, score_name, 0.0)  # a saved result has none of these fields
            if _as_number(item) is None:
                raise _no_number(item, f"{type(value).__name__} whose {score_name!r} is ", metric_name)
        return value
    named = isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value)
    values: dict[str, float] = {}
    for score_name, item in value.items() if named else [(metric_name, value)]:
        number = _as_number(item)
        if number is None:
            raise _no_number(item, f"a mapping whose {score_name!r} is " if named else "", metric_name)
        values[score_name] = number
    return UndeclaredScores(values=values, backend="unknown", n_real=n_real, n_fake=n_fake)


def _as_number(value: Any) -> float | None:
    item = _item(value)
    return float(item) if isinstance(item, numbers.Real) else None


def _item(value: Any) -> Any:
    """Return what a 0-d array or tensor holds, and any other value as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _no_number(value: Any, part: str, metric_name: str) -> TypeError:
    shape = getattr(value, "shape", None)
    found = "None" if value is None else type(value).__name__ + (f" of shape {tuple(shape)}" if shape else "")
    remedy = "return that"
    if value is None:
        remedy = "end it with return"
    elif shape and math.prod(shape) == 1:
        remedy = "return its .item()"
    elif shape:
        remedy = "return one number of it, for example its mean"
    return TypeError(
        f"metric {metric_name!r} returned {part}{found}, expected a number, a mapping of names to numbers or a "
        f"MetricResult with scores; {remedy}"
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value.tolist() if hasattr(value, "detach") else _item(value)
