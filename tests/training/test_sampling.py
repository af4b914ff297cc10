from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from egtmetrics.oracles import LabelOracle, OracleErrorWarning
from egtmetrics.training import RejectionSamples, rejection_sample
from tests.training.strategies import proportions


class Generator:
    """Samples ``(k, 2)``: the group, and a number that is N(group, 1); counts what it was asked for."""

    def __init__(self, shares: list[float], seed: int = 0) -> None:
        self.rng, self.shares, self.asked = np.random.default_rng(seed), shares, 0

    def __call__(self, k: int) -> NDArray[np.float64]:
        self.asked += k
        groups = self.rng.choice(len(self.shares), size=k, p=self.shares)
        return np.stack([groups, self.rng.normal(groups)], axis=1)


NAMES = np.array(["a", "b", "c", "d"], dtype=object)


def first_column(n_groups: int) -> LabelOracle:
    return LabelOracle(NAMES[:n_groups], lambda samples: NAMES[samples[:, 0].astype(int)])


def counts_of(groups: NDArray[np.object_], n_groups: int) -> list[int]:
    return [groups.tolist().count(name) for name in NAMES[:n_groups]]


@given(st.data(), st.integers(2, 4), st.integers(1, 60), st.booleans(), st.integers(1, 50))
def test_what_holds_for_every_run(data: st.DataObject, n_groups: int, n: int, exact: bool, batch_size: int) -> None:
    target = data.draw(proportions(n_groups=n_groups, smallest=0))
    generate = Generator(data.draw(proportions(n_groups=n_groups)))
    result = rejection_sample(
        generate, first_column(n_groups), target, n, 100_000, exact=exact, batch_size=batch_size, random_state=0
    )
    assert result.samples.shape == (n, 2)
    assert NAMES[result.samples[:, 0].astype(int)].tolist() == result.groups.tolist()
    assert len(np.unique(result.samples[:, 1])) == n  # none is taken twice
    counts = np.array(counts_of(result.groups, n_groups))
    assert (result.draws_by_group >= counts).all()
    assert counts[np.array(target) == 0].sum() == 0
    assert generate.asked == result.n_draws == result.draws_by_group.sum()
    assert result.acceptance_rate == n / result.n_draws
    if exact:
        assert np.abs(counts - n * np.array(target)).max() < 1.0
        assert counts.sum() == n


def test_proportions_are_those_of_the_target() -> None:
    """Chi-square over 3000 samples; rejects with probability 1e-6, and at fixed seeds never."""
    target = [0.2, 0.5, 0.3]
    result = rejection_sample(Generator([0.6, 0.3, 0.1]), first_column(3), target, 3000, 30_000, random_state=1)
    counts = counts_of(result.groups, 3)
    assert chisquare(counts, 3000 * np.array(target)).pvalue > 1e-6
    assert counts != [600, 1500, 900]  # random, as independent draws are


def test_quality_within_groups_and_order_are_untouched() -> None:
    """Kolmogorov-Smirnov per group and per half of the samples; rejects with probability 1e-6 each."""
    result = rejection_sample(Generator([0.84, 0.16]), first_column(2), "ego", 2000, 20_000, random_state=2)
    for group in (0, 1):
        assert kstest(result.samples[result.groups == NAMES[group], 1] - group, "norm").pvalue > 1e-6
    first, second = (counts_of(half, 2) for half in np.split(result.groups, 2))
    assert chisquare(first).pvalue > 1e-6
    assert chisquare(second).pvalue > 1e-6


def test_cost_of_the_paper_example() -> None:
    """16 % of one of two groups to equal parts: 0.5 / 0.16 = 3.1 draws per sample; 4.9 standard errors of pi."""
    n = 5000
    result = rejection_sample(Generator([0.84, 0.16]), first_column(2), "ego", n, 40_000, exact=True, random_state=0)
    tolerance = 4.9 * math.sqrt(0.16 * 0.84 / result.n_draws) / 0.16
    assert result.expected_draws_per_sample == pytest.approx(0.5 / 0.16, rel=tolerance)
    assert 1 / result.acceptance_rate == pytest.approx(result.expected_draws_per_sample, rel=0.05)
    assert result.expected_draws_per_sample <= 1 / result.acceptance_rate
    assert result.generated_proportions == pytest.approx([0.84, 0.16], abs=0.02)


def test_abstentions_are_rejected_and_counted() -> None:
    generate = Generator([0.4, 0.4, 0.2])
    oracle = LabelOracle(["a", "b"], lambda samples: np.array(["a", "b", None])[samples[:, 0].astype(int)])
    result = rejection_sample(generate, oracle, "ego", 500, 5000, random_state=0)
    assert result.n_abstained == generate.asked - result.draws_by_group.sum() > 0
    assert set(result.samples[:, 0]) == {0.0, 1.0}
    assert result.generated_proportions.sum() == pytest.approx(1.0 - result.n_abstained / result.n_draws)
    assert result.expected_draws_per_sample > 1.0  # a fifth of the draws is of no use


@pytest.mark.parametrize(
    ("target", "n", "counts"),
    [
        ("ego", 7, [4, 3]),
        ({"b": 1.0}, 5, [0, 5]),
        ([0.84, 0.16], 25, [21, 4]),
        (np.array([0.3, 0.7]), 10, [3, 7]),
        (torch.tensor([0.1, 0.9]), 10, [1, 9]),
    ],
)
def test_exact_counts(target: Any, n: int, counts: list[int]) -> None:
    result = rejection_sample(Generator([0.5, 0.5]), first_column(2), target, n, 1000, exact=True, random_state=0)
    assert counts_of(result.groups, 2) == counts


def test_tensors_and_texts() -> None:
    rng = np.random.default_rng(0)

    def texts(k: int) -> list[str]:
        return [("she" if rng.random() < 0.3 else "he") + f" {rng.random()}" for _ in range(k)]

    oracle = LabelOracle(["he", "she"], lambda batch: [text.split()[0] for text in batch])
    result = rejection_sample(texts, oracle, "ego", 40, 1000, exact=True, random_state=0)
    assert isinstance(result.samples, list)
    assert [text.split()[0] for text in result.samples] == result.groups.tolist()

    generator = torch.Generator().manual_seed(0)
    tensors = rejection_sample(
        lambda k: torch.rand(k, 3, generator=generator),
        LabelOracle(["a", "b"], lambda batch: NAMES[(batch[:, 0] > 0.8).long()]),
        "ego",
        40,
        1000,
        random_state=0,
    )
    assert isinstance(tensors.samples, torch.Tensor)
    assert NAMES[(tensors.samples[:, 0] > 0.8).long()].tolist() == tensors.groups.tolist()


def test_same_random_state_same_samples_and_no_global_generator() -> None:
    before = str(np.random.get_state())  # noqa: NPY002
    first, second = (
        rejection_sample(Generator([0.5, 0.5]), first_column(2), "ego", 50, 1000, random_state=3) for _ in range(2)
    )
    assert np.array_equal(first.samples, second.samples)
    assert str(np.random.get_state()) == before  # noqa: NPY002


def test_a_group_that_never_appears() -> None:
    generate = Generator([1.0, 0.0])
    with pytest.raises(RuntimeError, match=r"after max_draws=300 .*group 'b' appeared 0 times of 5 needed.*condition"):
        rejection_sample(generate, first_column(2), "ego", 10, 300, exact=True)
    assert generate.asked == 300


def test_a_group_that_appears_too_rarely() -> None:
    with pytest.raises(RuntimeError, match=r"group 'b' appeared \d+ times of 100 needed; raise max_draws to about \d+"):
        rejection_sample(Generator([0.8, 0.2]), first_column(2), "ego", 200, 250, exact=True)


def test_warning_of_the_oracle_is_passed_on() -> None:
    """A fifth of a is called b. If a is nine times as frequent, two thirds of what is called b are a."""
    oracle = first_column(2)
    samples = np.repeat([[0.0], [1.0]], 50, axis=0)
    oracle.measure_error(samples, ["a"] * 50 + ["b"] * 50)
    assert rejection_sample(Generator([0.5, 0.5]), oracle, "ego", 5, 100).oracle_warning is None
    oracle.measure_error(np.where(np.arange(100)[:, None] < 10, 1.0, samples), ["a"] * 50 + ["b"] * 50)
    with pytest.warns(OracleErrorWarning, match=r"[56]\d\.\d% \(.*\) of what is called 'b' is not") as caught:
        result = rejection_sample(Generator([0.74, 0.26]), oracle, "ego", 400, 10_000, exact=True, random_state=0)
    assert result.oracle_warning == str(caught[0].message)


def run(**changes: Any) -> Callable[[], RejectionSamples]:
    options = {
        "generate": Generator([0.5, 0.5]),
        "oracle": first_column(2),
        "target": "ego",
        "n": 5,
        "max_draws": 100,
        **changes,
    }
    return lambda: rejection_sample(**options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n=0"),
        ({"max_draws": 0.5}, "max_draws=0.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"target": "mgo"}, "target='mgo' is unknown"),
        ({"target": [0.5, 0.6]}, "target"),
        ({"target": {"c": 1.0, 0: 0.0}}, "target has the groups 'c', 0, expected 'a', 'b'"),
        ({"target": [[0.5], [0.5]]}, r"target has shape \(2, 1\)"),
        ({"generate": lambda k: np.zeros((k + 1, 2))}, r"generate\(100\) returned 101 samples"),
        (
            {"oracle": LabelOracle(["a", "b"], lambda x: x[:, 0])},
            r"answer holds 0, 1, expected 'a', 'b', or None",
        ),
        ({"oracle": LabelOracle(["a", "b"], lambda x: ["a"])}, r"answer has shape \(1,\), .* \(100,\)"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(**changes)()


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_samples_of_another_length_are_refused_at_once(make: Any) -> None:
    """As of tokens, padded to the longest of each call; not after all draws, when they are joined."""
    lengths = iter([7, 7, 5])
    oracle = LabelOracle(["a", "b"], lambda samples: ["a", "b"] * (len(samples) // 2))
    with pytest.raises(ValueError, match=r"generate\(4\) returned samples of shape \(5,\), but of \(7,\) at first"):
        rejection_sample(lambda k: make((k, next(lengths))), oracle, "ego", 100, 1000, batch_size=4)
