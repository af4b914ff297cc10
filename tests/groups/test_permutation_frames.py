"""Two models, permuted: the p-values equal those from counting all ways to assign the samples to the models."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from egtmetrics import GenerativeMetricFrame, frechet_distance
from egtmetrics.groups.permutation import permutation_test_frames

pytestmark = pytest.mark.filterwarnings("ignore::egtmetrics.groups.GroupSizeWarning")


def mean_gap(real: Any, fake: Any) -> float:
    return float(fake.mean() - real.mean())


def make_frame(
    fake: Any, groups: Any, *, n_real: int = 4, metrics: Any = None, **options: Any
) -> GenerativeMetricFrame:
    return GenerativeMetricFrame(
        metrics=metrics or {"gap": mean_gap},
        real=np.zeros((n_real, 1)),
        fake=np.reshape(fake, (-1, 1)),
        real_sensitive_features=["f", "m"] * (n_real // 2),
        fake_sensitive_features=groups,
        random_state=0,
        **options,
    )


def deals(values: list[float], n_first: int) -> Any:
    """Both means for every way to assign ``n_first`` of the values to the first model."""
    for chosen in itertools.combinations(range(len(values)), n_first):
        first = [values[i] for i in chosen]
        rest = [values[i] for i in range(len(values)) if i not in chosen]
        yield np.mean(first), np.mean(rest)


def together(values: dict[str, list[float]]) -> list[float]:
    return list(itertools.chain(*values.values()))


def share(statistics: list[float], observed: float) -> float:
    return float(np.mean([abs(value) >= abs(observed) - 1e-9 for value in statistics]))


def test_p_values_equal_those_from_all_assignments() -> None:
    """Group f is high in both models and frequent only in the first: overall scores differ, group scores hardly do.

    The tolerance is 4 standard errors of 1999 permutations, for four tests with a fixed seed.
    """
    first = {"f": [3.1, 3.9, 3.3, 4.0], "m": [0.2, 0.1]}
    other = {"f": [3.0, 3.6], "m": [0.0, 0.3, 0.9, 1.4]}
    frames = [
        make_frame(together(values), [group for group in values for _ in values[group]]) for values in (first, other)
    ]
    table = permutation_test_frames(*frames, n_permutations=1999, random_state=0)
    of_group = {g: list(deals(first[g] + other[g], len(first[g]))) for g in "fm"}
    observed = {g: np.mean(first[g]) - np.mean(other[g]) for g in "fm"}
    expected = {
        ("gap", None): (
            [a - b for a, b in deals(together(first) + together(other), 6)],
            np.mean(together(first)) - np.mean(together(other)),
        ),
        **{("gap", g): ([a - b for a, b in of_group[g]], observed[g]) for g in "fm"},
        ("delta_gap", None): (
            [abs(a - c) - abs(b - d) for (a, b), (c, d) in itertools.product(of_group["f"], of_group["m"])],
            abs(np.mean(first["f"]) - np.mean(first["m"])) - abs(np.mean(other["f"]) - np.mean(other["m"])),
        ),
    }
    assert list(table[["score", "group"]].itertuples(index=False, name=None)) == list(expected)
    for row, (null, difference) in zip(table.itertuples(), expected.values(), strict=True):
        assert row.difference == pytest.approx(difference)
        p_value = share(null, difference)
        assert row.p_value == pytest.approx(p_value, abs=4 * math.sqrt(p_value * (1 - p_value) / 1999) + 1 / 2000)


def test_each_model_keeps_its_real_samples_and_its_numbers() -> None:
    """A score made of the numbers of samples alone is the same for every permutation."""
    frames = [
        make_frame(
            np.arange(n), (["f", "m"] * n)[:n], n_real=m, metrics={"size": lambda r, f: float(100 * len(r) + len(f))}
        )
        for n, m in ((6, 4), (9, 8))
    ]
    table = permutation_test_frames(*frames, n_permutations=19, random_state=0)
    assert table["difference"].tolist() == [-403.0, -202.0, -201.0, -1.0]
    assert table["p_value"].tolist() == [1.0] * 4


def test_scores_of_one_result_share_the_permutations() -> None:
    rng = np.random.default_rng(0)
    frames = [make_frame(rng.normal(size=40), ["f", "m"] * 20, metrics={"a": mean_gap, "b": mean_gap}) for _ in "ab"]
    table = permutation_test_frames(*frames, n_permutations=39, random_state=3)
    a, b = (table[table["metric"] == name].drop(columns=["metric", "score"]).reset_index(drop=True) for name in "ab")
    assert a.equals(b)
    assert table.equals(permutation_test_frames(*frames, n_permutations=39, random_state=3))
    swapped = permutation_test_frames(*frames[::-1], n_permutations=39, random_state=3)
    np.testing.assert_array_equal(swapped["difference"], -table["difference"])


def test_a_missing_group_has_no_p_value_and_a_nan_counts_as_a_larger_difference() -> None:
    frames = [
        make_frame([*fake, 0.0], ["f", "m"] * 4 + ["x"], missing_groups="nan")
        for fake in ([1.0] * 8, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    ]
    table = permutation_test_frames(*frames, n_permutations=99, random_state=0).set_index(["score", "group"])
    assert np.isnan(table.loc[("gap", "x"), "p_value"])
    assert table.loc[("gap", "f"), "p_value"] < 0.1

    def pure(real: Any, fake: Any) -> float:
        return float(fake[0, 0]) if np.ptp(fake) == 0.0 else math.nan

    frames = [make_frame([value] * 40, ["f", "m"] * 20, metrics={"pure": pure}) for value in (0.0, 1.0)]
    table = permutation_test_frames(*frames, n_permutations=19, random_state=0)
    assert table["p_value"].tolist() == [1.0] * 4


def test_frames_with_different_scores_or_groups_are_refused() -> None:
    frame = make_frame(np.arange(4), ["f", "m"] * 2)
    with pytest.raises(ValueError, match=r"frame has the scores gap of .* other has fid of"):
        permutation_test_frames(frame, make_frame(np.arange(4), ["f", "m"] * 2, metrics={"fid": frechet_distance}))
    with pytest.raises(ValueError, match=r"groups f, m, but other has gap of f, m, x; evaluate both"):
        permutation_test_frames(frame, make_frame(np.arange(4), ["f", "m", "x", "m"], missing_groups="nan"))
