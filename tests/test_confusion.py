from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import beta

from egtmetrics.confusion import Confusion

NAMES = ["f", "m", "x"]


def random_rates(rng: np.random.Generator, *, abstains: bool) -> np.ndarray[Any, Any]:
    rates = rng.dirichlet(np.ones(3 + abstains), size=3) * 0.4
    rates[np.arange(3), np.arange(3)] += 0.6
    return rates


def test_contamination_is_larger_than_the_error() -> None:
    """16 % of the samples, 5 % of the labels wrong: of those called the small group .042 / (.042 + .152) are not."""
    confusion = Confusion([[0.95, 0.05], [0.05, 0.95]], group_names=["f", "m"])
    called = {"f": 0.16 * 0.95 + 0.84 * 0.05, "m": 0.16 * 0.05 + 0.84 * 0.95}
    found = confusion.contamination(called)["value"]
    assert_allclose(found, [0.042 / 0.194, 0.008 / 0.806], rtol=1e-12)
    assert confusion.warning(called, max_contamination=0.22) is None
    message = confusion.warning({"f": 194, "m": 806})
    assert message is not None
    assert "labels err: 21.6% (18.5% to" in message
    assert "of what is called 'f' is not (max_contamination=5.0%)" in message
    assert "'m'" not in message


@pytest.mark.parametrize("abstains", [False, True])
def test_proportions_and_contamination_invert_the_mixture(abstains: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        rates, true = random_rates(rng, abstains=abstains), rng.dirichlet(np.full(3, 5.0))
        called = true @ rates
        confusion = Confusion(rates, group_names=NAMES)
        numbers = dict(zip(NAMES, called[:3], strict=True))
        found = confusion.proportions(numbers)
        assert_allclose(found["value"], true, rtol=1e-9)
        assert_allclose(found["called"], called[:3] / called[:3].sum(), rtol=1e-12)
        wrong = 1.0 - true * rates.diagonal() / called[:3]
        assert_allclose(confusion.contamination(numbers)["value"], wrong, rtol=1e-9)
        assert_allclose(confusion.unmixing() @ called[:3], true, rtol=1e-9)


def test_intervals_hold_as_often_as_they_say() -> None:
    """Of 100 draws, 95 % intervals miss 1 to 13 with probability .993."""
    rng = np.random.default_rng(0)
    rates, true = np.array([[0.9, 0.1], [0.05, 0.95]]), np.array([0.3, 0.7])
    right = 1.0 - true * rates.diagonal() / (true @ rates)
    missed = np.zeros(2, dtype=int)
    for _ in range(100):
        confusion = Confusion([rng.multinomial(100, row) for row in rates], group_names=["f", "m"])
        called = dict(zip(["f", "m"], rng.multinomial(500, true @ rates).tolist(), strict=True))
        for place, (table, target) in enumerate(
            ((confusion.proportions(called), true[0]), (confusion.contamination(called), right[0]))
        ):
            missed[place] += not table["low"].iloc[0] <= target <= table["high"].iloc[0]
    assert ((missed >= 1) & (missed <= 13)).all(), missed


def test_interval_of_a_rate_is_that_of_jeffreys() -> None:
    confusion = Confusion([[90, 10, 0], [0, 48, 2]], group_names=["f", "m"])
    found = confusion.interval(0.9)
    assert_allclose(found.loc[("f", "m"), ["low", "high"]].tolist(), beta.ppf([0.05, 0.95], 10.5, 90.5))
    assert found.loc[("m", "f"), "low"] == 0.0 < found.loc[("m", "f"), "high"] < 0.05
    exact = Confusion([[0.9, 0.1], [0.0, 1.0]], group_names=["f", "m"]).interval()
    assert (exact["low"] == exact["value"]).all()
    assert (exact["high"] == exact["value"]).all()


def test_every_form_of_a_table_is_the_same() -> None:
    counts = [[8, 1, 1], [2, 7, 1]]
    plain = Confusion(counts, group_names=["f", "m"])
    table = pd.DataFrame(counts, index=["f", "m"], columns=["f", "m", "unsure"])
    true = ["f"] * 10 + ["m"] * 10 + [None]
    called = ["f"] * 8 + ["m", None] + ["f"] * 2 + ["m"] * 7 + [None, "f"]
    for other in (Confusion(table[["unsure", "m", "f"]]), Confusion.of_labels(true, called), plain.among(["f", "m"])):
        pd.testing.assert_frame_equal(other.counts, plain.counts)  # type: ignore[arg-type]
    assert plain.abstention_by_group == {"f": 0.1, "m": 0.1}
    assert plain.error_by_group == pytest.approx({"f": 1 / 9, "m": 2 / 9})
    swapped = plain.among(["m", "f"])
    assert swapped.counts is not None
    assert swapped.counts.to_numpy().tolist() == [[7, 2, 1], [1, 8, 1]]
    assert Confusion(plain.rates).counts is None
    assert Confusion.of_labels(["f", "m"], ["f", "m"]).interval().loc[("f", "m"), "high"] > 0.5


def test_a_difference_is_found_and_chance_is_not() -> None:
    """Under equal errors p <= .05 in 5 % of 200 draws or less: 21 or more with probability .001."""
    rng = np.random.default_rng(0)
    rates = np.array([[0.9, 0.1], [0.02, 0.98]])

    def drawn(n: int, errors: Any = rates) -> Confusion:
        return Confusion([rng.multinomial(n, row) for row in errors], group_names=["f", "m"])

    p_values = np.array(
        [drawn(80).compare(drawn(40), n_permutations=199, random_state=1)["p_value"].tolist() for _ in range(200)]
    )
    assert ((p_values <= 0.05).sum(axis=0) <= 20).all()
    found = drawn(200).compare(drawn(200, [[0.7, 0.3], [0.02, 0.98]]), random_state=0)
    assert found.index.tolist() == ["f", "m", "all"]
    assert found.loc["f", "p_value"] < 0.01
    assert found.loc["all", "p_value"] < 0.01
    assert found.loc["m", "p_value"] > 0.05
    assert found.loc["f", "other_error"] == pytest.approx(0.3, abs=0.12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Confusion([[1, 0], [0, 1]]), "group_names=None"),
        (lambda: Confusion([[5, 0, 0, 0], [0, 5, 0, 0]], group_names=["f", "m"]), r"shape \(2, 4\) for 2 groups"),
        (lambda: Confusion([[5, 0], [0, 0]], group_names=["f", "m"]), "samples of every true group"),
        (lambda: Confusion([[5, -1], [0, 5]], group_names=["f", "m"]), "at least 0"),
        (lambda: Confusion([[0.5, 0.2], [0.5, 0.5]], group_names=["f", "m"]), "sum to 0.7, 1"),
        (lambda: Confusion(pd.DataFrame([[1, 0], [0, 1]], index=["f", "m"])), "the same groups in both"),
        (lambda: Confusion.of_labels(["f", "m"], ["f"]), "2 labels and called 1"),
        (lambda: Confusion.of_labels(["f", "m"], ["f", "male"]), "hold 'male', expected 'f', 'm'"),
        (lambda: Confusion.symmetric(["f", "m"], 0.1).among(["f", "x"]), "expected those of the samples, 'f', 'x'"),
        (lambda: Confusion.symmetric(["f", "m"], 0.5).unmixing(), "has no inverse"),
        (lambda: Confusion.symmetric(["f", "m"], 0.1).proportions(["f", "x"]), "called holds 'x'"),
        (lambda: Confusion.symmetric(["f", "m"], 0.1).contamination([None]), "called holds no label"),
        (
            lambda: Confusion([[5, 1], [1, 5]], group_names=["f", "m"]).compare(Confusion.symmetric(["f", "m"], 0.1)),
            "needs the numbers of samples",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
