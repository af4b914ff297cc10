"""Rejection sampling to given proportions of groups: matching (MGO) or equalized (EGO) odds from any generator."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from egtmetrics._errors import listed
from egtmetrics._validation import check_positive_int
from egtmetrics.oracles import GroupOracle, OracleErrorWarning, group_indices

from ._checks import check_proportions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RejectionSamples:
    """What :func:`rejection_sample` returns."""

    samples: Any
    """The accepted samples: an array, tensor or list of n, as ``generate`` returned them."""
    groups: NDArray[np.object_]
    """Names of their groups, ``(n,)``."""
    target: NDArray[np.float64]
    """Proportions asked for, ``(n_groups,)``, in the order of the oracle's ``group_names``."""
    draws_by_group: NDArray[np.int64]
    """How many of all draws the oracle put into each group, ``(n_groups,)``, in the same order."""
    n_abstained: int
    """How many draws it put into no group; they were rejected."""
    oracle_warning: str | None
    """What the oracle says of the contamination of groups called as often as in these draws, if anything."""

    @property
    def n_draws(self) -> int:
        """Total number of samples drawn from the generator."""
        return int(self.draws_by_group.sum()) + self.n_abstained

    @property
    def acceptance_rate(self) -> float:
        """Accepted samples per draw."""
        return len(self.groups) / self.n_draws

    @property
    def generated_proportions(self) -> NDArray[np.float64]:
        """Share of each group in the generator's draws; with the abstentions they have sum 1."""
        return self.draws_by_group / self.n_draws

    @property
    def expected_draws_per_sample(self) -> float:
        r"""Long-run cost, :math:`\max_a \pi_a^{\text{target}} / \pi_a`, with pi as measured in these draws.

        ``1 / acceptance_rate`` is larger, because of the wait for the last samples and the rest of the last batch.
        """
        wanted = self.target > 0.0
        return float(np.max(self.target[wanted] / self.generated_proportions[wanted]))


def rejection_sample(
    generate: Callable[[int], Any],
    oracle: GroupOracle,
    target: Any,
    n: int,
    max_draws: int,
    *,
    exact: bool = False,
    batch_size: int = 256,
    random_state: int | np.random.Generator | None = None,
) -> RejectionSamples:
    r"""Draw from a generator until ``n`` samples have given proportions of groups; reject the surplus of a group.

    The groups of the n samples are drawn first, independently from ``target``. Then each place takes the next draw of
    its group, and draws of a group with no place left are rejected. So the samples are exactly independent draws of

    .. math:: \sum_a \pi_a^{\text{target}} Q_a, \quad Q_a = Q(\cdot \mid \psi = a),

    and the generator's own proportions pi need not be known, as they would for accepting with probability proportional
    to pi_target / pi. The long-run cost is the same: max_a pi_a^target / pi_a draws per sample. Rejection changes the
    proportions, not the quality within the groups.

    Parameters
    ----------
    generate
        Called with a number k, returns k new samples: an array or tensor of k rows, of one shape in all calls, or a
        list (texts).
    oracle
        psi, see :class:`egtmetrics.oracles.GroupOracle`. Its abstentions are rejected and counted.
    target
        Proportions of groups: an array in the order of ``oracle.group_names``, a mapping from names to proportions, or
        ``"ego"`` for equal ones. For MGO pass the proportions in the real data, under the same oracle.
    n
        How many samples to accept.
    max_draws
        Give up after so many draws.
    exact
        Make the group counts n * target, rounded by largest remainders (ties to the lowest group), instead of random
        with these expectations. Then samples are no longer independent.
    batch_size
        Most samples to ask ``generate`` for at once.
    random_state
        Seed of the groups of the n samples. ``generate`` has its own randomness.

    Returns
    -------
    RejectionSamples
        Samples, groups and the cost.

    Raises
    ------
    RuntimeError
        If after ``max_draws`` a group is incomplete.
    ValueError
        Invalid options, proportions or labels.

    Warns
    -----
    OracleErrorWarning
        If too much of what the oracle calls a group is of another one, given how often it was called in the draws.

    Notes
    -----
    Accepted samples are kept in memory, rejected ones not.

    References
    ----------
    The paper, section 3, for MGO and EGO. A generator with 16 % of one of two groups costs 0.5 / 0.16 = 3.1 draws per
    sample of EGO.

    Examples
    --------
    >>> import numpy as np
    >>> from egtmetrics.oracles import LabelOracle
    >>> from egtmetrics.training import rejection_sample
    >>> rng = np.random.default_rng(0)
    >>> def generate(k):
    ...     return rng.choice(["female", "male"], size=k, p=[0.16, 0.84])
    >>> result = rejection_sample(generate, LabelOracle(["female", "male"]), "ego",
    ...     n=1000, max_draws=10_000, exact=True, random_state=0)
    >>> int(np.sum(result.groups == "female")), round(result.expected_draws_per_sample)
    (500, 3)
    """
    n = check_positive_int(n, "n")
    max_draws = check_positive_int(max_draws, "max_draws")
    batch_size = check_positive_int(batch_size, "batch_size")
    names = oracle.group_names
    proportions = check_proportions(target, "target", groups=names)
    if proportions.ndim != 1:
        raise ValueError(f"target has shape {proportions.shape}, expected one proportion per group")
    rng = np.random.default_rng(random_state)
    places = rng.choice(len(names), size=n, p=proportions)
    if exact:
        places = rng.permutation(np.repeat(np.arange(len(names)), _round(n * proportions)))
    places_of = [np.flatnonzero(places == group) for group in range(len(names))]

    quota = np.bincount(places, minlength=len(names))
    drawn = np.zeros(len(names), dtype=np.int64)
    n_abstained = 0
    batches: list[Any] = []
    filled: list[NDArray[np.int64]] = []
    shape: tuple[int, ...] | None = None
    while (drawn < quota).any():
        size = min(batch_size, max_draws - int(drawn.sum()) - n_abstained)
        if size == 0:
            raise _incomplete(names, drawn, quota, n_abstained, max_draws)
        batch = generate(size)
        if len(batch) != size:
            raise ValueError(f"generate({size}) returned {len(batch)} samples; it must return as many as asked for")
        now = tuple(getattr(batch, "shape", ())[1:])
        shape = now if shape is None else shape
        if now != shape:
            raise ValueError(
                f"generate({size}) returned samples of shape {now}, but of {shape} at first; return one shape (pad "
                "tokens to one length), or a list, such as decoded texts"
            )
        groups = group_indices(oracle(batch), names, n=size)
        for group in range(len(names)):
            rows = np.flatnonzero(groups == group)
            accepted = rows[: max(0, quota[group] - drawn[group])]
            if len(accepted):
                batches.append(_take(batch, accepted))
                filled.append(places_of[group][drawn[group] : drawn[group] + len(accepted)])
            drawn[group] += len(rows)
        n_abstained += int(np.sum(groups < 0))
    order = np.argsort(np.concatenate(filled))
    warning = oracle.warning_of(dict(zip(names, drawn.tolist(), strict=True)))
    if warning is not None:
        warnings.warn(warning, OracleErrorWarning, stacklevel=2)
    return RejectionSamples(
        samples=_take(_join(batches), order),
        groups=np.array(names, dtype=object)[places],
        target=proportions,
        draws_by_group=drawn,
        n_abstained=n_abstained,
        oracle_warning=warning,
    )


def _round(expected: NDArray[np.float64]) -> NDArray[np.int64]:
    """Integers with the same sum, by largest remainders; rounding errors of 1e-9 make no remainder."""
    counts = np.floor(expected + 1e-9).astype(np.int64)
    missing = round(expected.sum()) - int(counts.sum())
    counts[np.argsort(-np.round(expected - counts, 9), kind="stable")[:missing]] += 1
    return counts


def _incomplete(
    names: Sequence[str], drawn: NDArray[np.int64], quota: NDArray[np.int64], n_abstained: int, max_draws: int
) -> RuntimeError:
    """Say which groups are incomplete, and what it would take."""
    short = np.flatnonzero(drawn < quota)
    missing = listed(f"group {names[int(a)]!r} appeared {drawn[a]} times of {quota[a]} needed" for a in short)
    if (drawn[short] == 0).any():
        remedy = "rejection cannot make what a model does not generate: condition it, train it further, or set target 0"
    else:
        remedy = f"raise max_draws to about {int(1.2 * max_draws * np.max(quota[short] / drawn[short])) + 1}"
    draws = f"after max_draws={max_draws} draws ({n_abstained} of them without a group)"
    return RuntimeError(f"{draws} {missing}; {remedy}")


def _take(samples: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(samples, torch.Tensor):
        return samples[torch.as_tensor(rows, device=samples.device)]
    return [samples[row] for row in rows] if isinstance(samples, list | tuple) else np.asarray(samples)[rows]


def _join(batches: list[Any]) -> Any:
    if isinstance(batches[0], torch.Tensor):
        return torch.cat(batches)
    return (
        [sample for batch in batches for sample in batch] if isinstance(batches[0], list) else np.concatenate(batches)
    )
