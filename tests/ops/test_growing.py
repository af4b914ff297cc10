"""What is updated of a set that grows is what would have been computed of all its rows."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egtmetrics.ops import GrowingSet, HostBackend, growing_part, merged_by, select_host_backend


@pytest.fixture(scope="module", params=["auto", "reference"])
def backend(request: pytest.FixtureRequest) -> HostBackend:
    return select_host_backend(request.param)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_radii_and_memberships_for_any_order_and_any_radii(backend: HostBackend, data: st.DataObject) -> None:
    """Rows are full of ties. Radii grow and shrink, and some balls hold more rows than are remembered of one."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    d, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 80))
    others = [rng.integers(-3, 4, size=(n, d)).astype(np.float32) for _ in range(2)]
    all_rows = rng.integers(-3, 4, size=(80, d)).astype(np.float32)
    radii = rng.integers(0, 20, size=n).astype(np.float64)
    grown = GrowingSet()
    for stop in sorted(data.draw(st.lists(st.integers(6, 80), min_size=2, max_size=6))):
        arrival = rng.permutation(stop)  # in another order at every look
        rows = all_rows[arrival]
        part = np.flatnonzero(arrival % 2)
        grown.look(rows, arrival, {"odd": part})
        for y in (rows, growing_part(rows, part, rows[part])):
            k = data.draw(st.integers(1, len(y) - 1))
            for n_neighbors in {1, 2, k}:
                np.testing.assert_array_equal(
                    backend.kth_neighbor(y, n_neighbors=n_neighbors),
                    backend.kth_neighbor(y.copy(), n_neighbors=n_neighbors),
                )
            x = others[data.draw(st.integers(0, 1))]
            for closed in (False, True):
                for x_radii, y_radii in data.draw(st.permutations([(True, True), (True, False), (False, True)])):
                    given_radii = {
                        "x_sq_radii": radii if x_radii else None,
                        "y_sq_radii": rng.integers(0, 20, size=len(y)).astype(np.float64) if y_radii else None,
                    }
                    found = backend.ball_counts(x, y, closed=closed, **given_radii)
                    expected = backend.ball_counts(x, y.copy(), closed=closed, **given_radii)
                    for counts, right in zip(found, expected, strict=True):
                        np.testing.assert_array_equal(counts, right)
                        counts[:] = -1  # results belong to the caller


def test_a_value_is_merged_of_the_new_rows_alone() -> None:
    seen: list[int] = []

    @merged_by(lambda before, new: before + new)
    def total(rows: Any, weights: Any) -> float:
        seen.append(len(rows))
        return float((rows @ weights).sum())

    rows, ones = np.arange(20.0).reshape(10, 2), np.ones(2)
    grown = GrowingSet()
    for stop in (4, 4, 5, 10):
        now = rows[:stop][::-1].copy()
        grown.look(now, np.arange(stop)[::-1], {})
        assert total(now, ones) == rows[:stop].sum()
        assert total(now, 2.0 * ones) == 2.0 * rows[:stop].sum()
    assert seen == [4, 4, 1, 1, 5, 5]
    assert total(rows, ones) == rows.sum()  # the same values, but no look
    assert seen[-1] == 10


def test_a_look_holds_no_array() -> None:
    grown, rows = GrowingSet(), np.ones((5, 2))
    grown.look(rows, np.arange(5), {})
    select_host_backend().kth_neighbor(rows, n_neighbors=2)
    array = weakref.ref(rows)
    del rows
    assert array() is None
