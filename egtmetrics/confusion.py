"""How often an oracle is wrong: which groups it calls samples of each true group, and what follows for called groups.

Labels that are wrong 5 times in 100 are wrong far more often within a small called group: with 16 % of the samples in
a group and 84 % in the other, 22 % of those called the small one are not of it. That share, the contamination, is what
moves scores, not the error by group.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._random import RandomState, check_random_state
from egtmetrics._validation import check_level, check_number

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

_PRIOR = 0.5
"""Of Jeffreys: added to every count, so that an error not seen in a few samples is not taken for impossible."""
_DRAWS = 4000
_ROUNDING = 0.005
ABSTAINED = "(none)"
"""The column of abstentions in tables."""


class Confusion:
    r"""Confusion of an oracle: rows are the true groups, columns what it calls them, the last one where it abstains.

    .. math:: C_{ac} = P(\text{called } c \mid \text{true } a), \qquad \sum_c C_{ac} = 1.

    Counts know their own sampling error: that of a multinomial law for every true group. Rates are taken as exact.

    Parameters
    ----------
    table
        ``(G, G)``, or ``(G, G + 1)`` with abstentions in the last column: whole numbers of samples, or rates with rows
        that sum to 1. Of a DataFrame, the index names the groups; its columns hold the same names in any order, and at
        most one other name, that of abstentions.
    group_names
        Names of the groups, for an array.

    Raises
    ------
    ValueError
        Another shape, names that differ, numbers that are neither counts nor rates, or a group without samples.

    Notes
    -----
    The samples behind the counts have to be like those that the oracle labels, group by group: drawn at random among
    all of them, not so many of each called group. :meth:`compare` tests whether two confusions are alike, for example
    on real samples and on hand-labelled generated ones.

    Examples
    --------
    >>> confusion = Confusion([[95, 5], [5, 95]], group_names=["f", "m"])
    >>> confusion.error_by_group
    {'f': 0.05, 'm': 0.05}

    Of 1000 generated samples, 194 are called f. About 22 % of these are not:

    >>> called = {"f": 194, "m": 806}
    >>> confusion.contamination(called)["value"].round(3).to_dict()
    {'f': 0.216, 'm': 0.01}
    >>> confusion.proportions(called)["value"].round(3).to_dict()
    {'f': 0.16, 'm': 0.84}
    """

    def __init__(self, table: Any, *, group_names: Sequence[Hashable] | None = None) -> None:
        values, names = _table(table, group_names)
        size = len(names)
        if values.shape[1] == size:
            values = np.column_stack([values, np.zeros(size)])
        sums = values.sum(axis=1)
        if not np.isfinite(values).all() or (values < 0).any() or not (sums > 0).all():
            raise ValueError(
                f"table holds the rows {listed(map(str, values.tolist()), most=3)}, expected numbers of at least 0, "
                "and samples of every true group; add labelled samples of a group that has none"
            )
        is_rates = bool((np.abs(sums - 1.0) < _ROUNDING).all())
        if not is_rates and (values != np.round(values)).any():
            raise ValueError(
                f"table has rows that sum to {listed(f'{one:g}' for one in sums)}, expected whole numbers of samples, "
                "or rates with rows that sum to 1"
            )
        self.group_names = names
        self._counts: NDArray[np.int64] | None = None if is_rates else values.astype(np.int64)
        self._rates: Floats = values / sums[:, None]

    @classmethod
    def of_labels(cls, true: Any, called: Any, *, group_names: Sequence[str] | None = None) -> Self:
        """Count labelled samples: ``true`` and ``called`` have one label for each, None in ``called`` is an abstention.

        Samples without a true label are left out. ``group_names`` are by default the sorted names in ``true``.

        Raises
        ------
        ValueError
            Labels of different numbers, or names in ``called`` that ``true`` does not have.

        Examples
        --------
        >>> Confusion.of_labels(["f", "f", "m", "m"], ["f", "m", "m", None]).counts.to_numpy().tolist()
        [[1, 1, 0], [0, 1, 1]]
        """
        from egtmetrics.labels import label_columns

        (truth,), (found,) = (
            label_columns(labels, name, known=group_names or ())[1]
            for labels, name in ((true, "true"), (called, "called"))
        )
        if len(truth) != len(found):
            raise ValueError(f"true has {len(truth)} labels and called {len(found)}; pass one of each per sample")
        names = tuple(
            sorted({one for one in truth.tolist() if one is not None}) if group_names is None else group_names
        )
        unknown = sorted(
            {repr(one) for labels in (truth, found) for one in labels.tolist() if one not in (*names, None)}
        )
        if unknown:
            raise ValueError(
                f"true and called hold {listed(unknown)}, expected {listed(map(repr, names))}, or None; name the "
                "groups alike in both"
            )
        position = {name: place for place, name in enumerate(names)} | {None: len(names)}
        table = np.zeros((len(names), len(names) + 1), dtype=np.int64)
        kept = [
            (position[a], position[c]) for a, c in zip(truth.tolist(), found.tolist(), strict=True) if a is not None
        ]
        np.add.at(table, tuple(np.array(kept, dtype=np.int64).reshape(-1, 2).T), 1)
        confusion = cls(table, group_names=names)
        confusion._counts = table  # also where there is one sample of each group, which would pass for rates
        return confusion

    @classmethod
    def symmetric(cls, group_names: Sequence[Hashable], error: float) -> Self:
        """Return a confusion in which every group is called another one with the rate ``error``, each other alike.

        >>> Confusion.symmetric(["f", "m", "x"], 0.1).rates.loc["f"].tolist()
        [0.9, 0.05, 0.05, 0.0]
        """
        check_number(error, "error", minimum=0.0, below=1.0)
        size = len(group_names)
        table = np.full((size, size), error / (size - 1))
        np.fill_diagonal(table, 1.0 - error)
        return cls(table, group_names=group_names)

    @property
    def rates(self) -> pd.DataFrame:
        """The rates; every row sums to 1."""
        return self._frame(self._rates)

    @property
    def counts(self) -> pd.DataFrame | None:
        """The numbers of samples; None if only rates are known."""
        return None if self._counts is None else self._frame(self._counts)

    @property
    def error_by_group(self) -> dict[Hashable, float]:
        """Share of wrong labels among a true group's labelled samples; NaN where none was labelled."""
        labelled = 1.0 - self._rates[:, -1]
        with np.errstate(invalid="ignore"):
            errors = np.where(labelled > 1e-12, 1.0 - self._rates.diagonal() / labelled, np.nan)
        return dict(zip(self.group_names, np.maximum(errors, 0.0).round(15).tolist(), strict=True))

    @property
    def abstention_by_group(self) -> dict[Hashable, float]:
        """Share of a true group's samples that are not labelled."""
        return dict(zip(self.group_names, self._rates[:, -1].tolist(), strict=True))

    def __repr__(self) -> str:
        shown, what = (self.rates.round(4), "rates") if self._counts is None else (self.counts, "counts")
        return f"{type(self).__name__} ({what})\n{shown}"

    def interval(self, level: float = 0.95) -> pd.DataFrame:
        """Return an interval of every rate, by true group and called one: ``value``, ``low`` and ``high`` (Jeffreys).

        For rates without counts, both ends are the rate.
        """
        from scipy.stats import beta

        check_level(level)
        low = high = self._rates
        if self._counts is not None:
            wrong = self._counts.sum(axis=1, keepdims=True) - self._counts
            ends = (
                np.asarray(beta.ppf(end, self._counts + _PRIOR, wrong + _PRIOR))
                for end in (0.5 - level / 2, 0.5 + level / 2)
            )
            low, high = np.where(self._counts == 0, 0.0, next(ends)), np.where(wrong == 0, 1.0, next(ends))
        columns = {"value": self._rates, "low": low, "high": high}
        return self._stacked({name: self._frame(values) for name, values in columns.items()})

    def among(self, labels: Sequence[Hashable]) -> Self:
        """Return the same with its groups in the order of ``labels``, which may also hold other forms of their names.

        Raises
        ------
        ValueError
            The groups are not the same.
        """
        from egtmetrics.labels import group_text

        places = {group_text(name): place for place, name in enumerate(self.group_names)}
        wanted = [group_text(label) for label in labels]
        if sorted(wanted) != sorted(places):
            raise ValueError(
                f"the confusion is of the groups {listed(map(repr, places))}, expected those of the samples, "
                f"{listed(map(repr, wanted))}; name them alike, and measure it for all of them"
            )
        order = [places[one] for one in wanted]
        table = self._rates if self._counts is None else self._counts
        return type(self)(table[order][:, [*order, len(order)]], group_names=labels)

    def unmixing(self) -> Floats:
        """Return what a sample called c counts for true group a, ``(G, G)``: the inverse of the transposed rates.

        Raises
        ------
        ValueError
            The oracle does not tell the groups apart, so there is no inverse.
        """
        rates = self._rates[:, :-1]
        if np.linalg.svd(rates, compute_uv=False)[-1] < 1e-9:
            raise ValueError(
                "the confusion has no inverse: the oracle calls two groups alike, so nothing can be corrected; use a "
                "better oracle, or leave out a group"
            )
        return np.asarray(np.linalg.inv(rates.T), dtype=np.float64)

    def covariance(self) -> Floats:
        """Return the covariance of the rates of every true group, ``(G, G, G)``, without abstentions; 0 for rates."""
        size = len(self.group_names)
        found = np.zeros((size, size, size))
        if self._counts is not None:
            parameters = self._parameters()
            for own, row in zip(found, parameters, strict=True):
                p = row[:size] / row.sum()
                own[:] = (np.diag(p) - np.outer(p, p)) / (row.sum() + 1.0)
        return found

    def proportions(self, called: Any, *, level: float = 0.95, random_state: RandomState = 0) -> pd.DataFrame:
        r"""Return the proportions of the true groups behind called ones: ``called``, ``value``, ``low`` and ``high``.

        With q the proportions of the called groups, :math:`q = C^\top \pi`, so :math:`\pi = C^{-\top} q`, scaled to sum
        to 1. Unbiased up to the error of C; the intervals carry that error and that of q, by draws from their posterior
        laws (Dirichlet, with Jeffreys' prior).

        Parameters
        ----------
        called
            Labels of the samples, None where the oracle abstained, or their numbers by group.
        level
            Of the intervals.
        random_state
            Of the draws.

        Raises
        ------
        ValueError
            A label is no group, or the oracle does not tell the groups apart.

        Notes
        -----
        For two groups the value is that of CLEAM (Teo, Abdollahzadeh, Cheung: On Measuring Fairness in Generative
        Models, NeurIPS 2023), whose interval takes the oracle's error as known exactly and so is shorter.
        A value below 0 says that the oracle errs less on these samples than the confusion has it.
        """
        numbers = self._called(called)
        drawn, of_called = self._drawn(numbers, random_state)
        values = _scaled(self.unmixing() @ (numbers / numbers.sum()))
        of_true = _scaled(_solved(drawn, of_called))
        low, high = _ends(of_true.clip(0.0, 1.0), level)
        return self._by_group("group", called=numbers / numbers.sum(), value=values, low=low, high=high)

    def contamination(self, called: Any = None, *, level: float = 0.95, random_state: RandomState = 0) -> pd.DataFrame:
        r"""Return for every called group the share that is not of it: ``value``, ``low`` and ``high``.

        .. math:: 1 - \pi_c C_{cc} / \sum_a \pi_a C_{ac},

        with :math:`\pi` the proportions of the true groups, see :meth:`proportions`. NaN for a group that is never
        called.

        Parameters
        ----------
        called
            As for :meth:`proportions`. None takes the proportions of the true groups among the samples that were
            counted; equal ones if only rates are known.
        level, random_state
            As for :meth:`proportions`.
        """
        size = len(self.group_names)
        drawn, of_called = self._drawn(None if called is None else self._called(called), random_state)
        if called is None:
            given = np.ones(size) if self._counts is None else self._counts.sum(axis=1).astype(float)
            of_true = np.broadcast_to(given / given.sum(), (len(drawn), size))
        else:
            of_true = _solved(drawn, of_called).clip(0.0)
        right = of_true * np.einsum("bii->bi", drawn)
        total = np.einsum("ba,bac->bc", of_true, drawn)
        shares = np.divide(total - right, total, out=np.full_like(total, np.nan), where=total > 0)
        low, high = _ends(shares, level)
        return self._by_group("called", value=shares[0], low=low, high=high)

    def warning(self, called: Any = None, *, max_contamination: float = 0.05) -> str | None:
        """Name the called groups of which more than ``max_contamination`` is not of them; None if there are none.

        ``called`` are the labels that are used, or their numbers by group; see :meth:`contamination`.
        """
        check_number(max_contamination, "max_contamination", minimum=0.0)
        found = self.contamination(called)
        bad = found[~(found["value"] <= max_contamination)]
        if bad.empty:
            return None
        shares = listed(
            f"the group {name!r} is never called"
            if np.isnan(value)
            else f"{value:.1%} ({low:.1%} to {high:.1%}) of what is called {name!r} is not"
            for name, (value, low, high) in zip(bad.index, bad.to_numpy().tolist(), strict=True)
        )
        return (
            f"labels err: {shares} (max_contamination={max_contamination:.1%}), and more of samples unlike those on "
            "which the error was measured. This alone makes gaps if the other side has true labels. Call both sides by "
            "the same oracle, or correct the scores: frame.correct_labels(oracle.confusion)"
        )

    def compare(self, other: Confusion, *, n_permutations: int = 9999, random_state: RandomState = 0) -> pd.DataFrame:
        """Test whether two oracles, or one oracle on two kinds of samples, err alike; by true group, and over all.

        So a confusion of hand-labelled generated samples shows whether that of real ones may stand for it.

        Parameters
        ----------
        other
            A confusion of the same groups, from other samples.
        n_permutations, random_state
            How many tables with the same sums are drawn, and their seed.

        Returns
        -------
        DataFrame
            By true group, and ``"all"`` in the last row: ``error`` and ``other_error``, the shares that are wrong or
            not labelled, and ``p_value`` of a chi-squared statistic, from random tables with the same sums, so that it
            holds for small counts.

        Raises
        ------
        ValueError
            One of the two has no counts, or the groups differ.

        Examples
        --------
        The oracle is worse on generated samples of group m.

        >>> real = Confusion([[95, 5], [5, 95]], group_names=["f", "m"])
        >>> fake = Confusion([[46, 4], [15, 35]], group_names=["f", "m"])
        >>> real.compare(fake)["p_value"].round(2).to_dict()
        {'f': 0.71, 'm': 0.0, 'all': 0.0}
        """
        import pandas as pd

        other = other.among(self.group_names)
        if self._counts is None or other._counts is None:
            raise ValueError("a test needs the numbers of samples of both confusions, and one has only rates")
        rng = check_random_state(random_state)
        observed, drawn = [], []
        for own, its in zip(self._counts, other._counts, strict=True):
            together = own + its
            first = np.concatenate(
                [own[None], rng.multivariate_hypergeometric(together, int(own.sum()), size=n_permutations)]
            )
            statistics = _chi_squared(first, together)
            observed.append(statistics[0])
            drawn.append(statistics[1:])
        of_all = [*zip(observed, drawn, strict=True), (np.sum(observed), np.sum(drawn, axis=0))]
        p_values = [
            (1 + int((permuted >= statistic * (1.0 - 1e-12)).sum())) / (1 + n_permutations)
            for statistic, permuted in of_all
        ]

        def errors(counts: NDArray[np.int64]) -> list[float]:
            right, n = counts.diagonal(), counts.sum(axis=1)
            return [*(1.0 - right / n).tolist(), 1.0 - right.sum() / n.sum()]

        return pd.DataFrame(
            {"error": errors(self._counts), "other_error": errors(other._counts), "p_value": p_values},
            index=pd.Index([*self.group_names, "all"], name="true"),
        )

    def _parameters(self) -> Floats:
        """Return the parameters of the Dirichlet law of every row; an oracle that never abstains cannot."""
        assert self._counts is not None
        prior = np.full(self._counts.shape[1], _PRIOR)
        prior[-1] *= self._counts[:, -1].any()
        parameters: Floats = self._counts + prior
        return parameters

    def _drawn(self, called: Floats | None, random_state: RandomState) -> tuple[Floats, Floats]:
        """Draw rates ``(B, G, G)`` and called proportions ``(B, G)``; the first of them are as measured."""
        rng, size = check_random_state(random_state), len(self.group_names)
        check = np.broadcast_to(self._rates[:, :-1], (_DRAWS, size, size)).copy()
        if self._counts is not None:
            for place, row in enumerate(self._parameters()):
                kept = row > 0
                check[1:, place, kept[:-1]] = rng.dirichlet(row[kept], size=_DRAWS - 1)[:, : kept[:-1].sum()]
        numbers = np.ones(size) if called is None else called
        return check, np.concatenate([(numbers / numbers.sum())[None], rng.dirichlet(numbers + _PRIOR, _DRAWS - 1)])

    def _called(self, called: Any) -> Floats:
        """Return how many samples each group is called."""
        from egtmetrics.labels import group_text, label_columns

        if isinstance(called, Mapping):
            found = {group_text(name): float(number) for name, number in called.items()}
        else:
            _, columns = label_columns(called, "called", known=tuple(map(str, self.group_names)))
            labels = [one for one in columns[0].tolist() if one is not None]
            found = {}
            for one in labels:
                found[group_text(one)] = found.get(group_text(one), 0.0) + 1.0
        names = [group_text(name) for name in self.group_names]
        unknown = [name for name in found if name not in names]
        numbers = np.array([found.get(name, 0.0) for name in names])
        if unknown or not numbers.sum() > 0:
            raise ValueError(
                f"called holds {listed(map(repr, unknown)) or 'no label'}, expected labels of the groups "
                f"{listed(map(repr, names))}, or None; name the groups as the confusion does"
            )
        return numbers

    def _frame(self, values: NDArray[Any]) -> pd.DataFrame:
        import pandas as pd

        columns = pd.Index([*self.group_names, ABSTAINED], name="called", tupleize_cols=False)
        return pd.DataFrame(values, index=pd.Index(self.group_names, name="true", tupleize_cols=False), columns=columns)

    def _stacked(self, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame({name: table.stack() for name, table in tables.items()})

    def _by_group(self, name: str, **columns: Floats) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(columns, index=pd.Index(self.group_names, name=name, tupleize_cols=False))


def _table(table: Any, group_names: Sequence[Hashable] | None) -> tuple[Floats, tuple[Hashable, ...]]:
    """Return the numbers with abstentions last, if there are any, and the names of the groups."""
    if hasattr(table, "columns"):
        names = tuple(table.index.tolist())
        others = [name for name in table.columns.tolist() if name not in names]
        missing = [name for name in names if name not in table.columns]
        if missing or len(others) > 1 or len(set(names)) < len(names):
            raise ValueError(
                f"table has the rows {listed(map(repr, names))} and the columns {listed(map(repr, table.columns))}, "
                "expected the same groups in both, and at most one column more, for abstentions"
            )
        table = table[[*names, *others]].to_numpy()
    else:
        names = () if group_names is None else tuple(group_names)
        if isinstance(group_names, str) or len(set(names)) < len(names) or not names:
            raise ValueError(f"group_names={group_names!r}, expected one name for each row of table, all different")
    values = np.asarray(table, dtype=np.float64)
    size = len(names)
    if size < 2 or values.shape not in ((size, size), (size, size + 1)):
        raise ValueError(
            f"table has shape {values.shape} for {size} groups, expected two groups or more, and as many rows and "
            "columns as groups, or one column more for abstentions"
        )
    return values, names


def _solved(rates: Floats, called: Floats) -> Floats:
    """Return the proportions of true groups, ``(B, G)``, that make those of called ones."""
    return np.asarray(np.linalg.solve(rates.swapaxes(1, 2), called[..., None])[..., 0], dtype=np.float64)


def _scaled(proportions: Floats) -> Floats:
    scaled: Floats = proportions / proportions.sum(axis=-1, keepdims=True)
    return scaled


def _ends(drawn: Floats, level: float) -> Floats:
    """Return the ends of the interval that holds ``level`` of the draws, ``(2, G)``; NaN where one is."""
    check_level(level)
    ends: Floats = np.quantile(drawn[1:], [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return ends


def _chi_squared(first: NDArray[np.int64], together: NDArray[np.int64]) -> Floats:
    """Return the statistic of tables of two rows, ``first`` ``(B, K)`` and what ``together`` ``(K,)`` leaves."""
    kept = together > 0
    first, together = first[:, kept], together[kept]
    share = first.sum(axis=1, keepdims=True) / together.sum()
    expected = share * together
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic: Floats = ((first - expected) ** 2 / (expected * (1.0 - share))).sum(axis=1)
    return np.nan_to_num(statistic)
