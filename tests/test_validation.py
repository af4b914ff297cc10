"""Bad input is refused with the name of the argument and a remedy; odd but sound input gives what its copy gives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from egtmetrics._validation import (
    check_features,
    check_n_neighbors,
    check_positive_int,
    check_real_fake,
)
from egtmetrics.metrics.frechet import frechet_distance
from egtmetrics.metrics.prdc import precision_recall_density_coverage

PRDC = functools.partial(precision_recall_density_coverage, n_neighbors=2)
LAW = settings(max_examples=50, deadline=None)
NAN = float("nan")
MATRICES = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=st.floats(-1e6, 1e6))
FLIPS: list[Callable[[NDArray[Any]], NDArray[Any]]] = [
    lambda x: x[::-1],
    lambda x: x[:, ::-1],
    lambda x: x[::2],
    lambda x: x.T,
    np.asfortranarray,
    lambda x: x.astype(">f8"),
    lambda x: np.broadcast_to(x[:1], x.shape),
]


class TestFeatures:
    @LAW
    @given(MATRICES, st.sampled_from(FLIPS))
    def test_any_layout_gives_what_its_copy_gives(self, x: NDArray[np.float64], flip: Any) -> None:
        given_array = flip(x)
        checked = check_features(given_array, "real")
        np.testing.assert_array_equal(checked, given_array.copy())
        assert checked.flags.c_contiguous
        assert checked.dtype == np.float64
        assert checked.dtype.isnative

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_plain_arrays_are_not_copied(self, dtype: Any) -> None:
        x = np.zeros((3, 2), dtype)
        assert np.shares_memory(check_features(x, "real"), x)

    @pytest.mark.parametrize(
        ("values", "dtype"),
        [
            ([[True, False]], np.float32),
            (np.array([[1, -2]], np.int16), np.float32),
            (np.array([[1.5]], np.float16), np.float32),
            (np.array([[2**24 + 1]], np.int32), np.float64),
            ([[1, 2**40]], np.float64),
            (np.array([[1.5]], np.longdouble), np.float64),
            (pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}), np.float64),
        ],
    )
    def test_numbers_become_floats_without_loss(self, values: Any, dtype: Any) -> None:
        checked = check_features(values, "real")
        assert checked.dtype == dtype
        np.testing.assert_array_equal(checked, np.asarray(values))

    def test_tensors(self) -> None:
        torch = pytest.importorskip("torch")
        tensor = torch.arange(6.0).reshape(2, 3).requires_grad_()
        assert np.shares_memory(check_features(tensor, "real"), tensor.detach().numpy())
        np.testing.assert_array_equal(check_features(tensor.T, "real"), tensor.detach().numpy().T)
        assert check_features(tensor.bfloat16(), "real").tolist() == [[0, 1, 2], [3, 4, 5]]

    @pytest.mark.parametrize(
        ("values", "error", "remedy"),
        [
            (None, TypeError, r"dtype object.*convert it"),
            ("abc", TypeError, r"dtype <U3.*convert it"),
            ([["a"], ["b"]], TypeError, r"dtype <U1.*convert it"),
            ([[1.0, None]], TypeError, r"dtype object.*convert it"),
            (np.array([[1.0, 2.0]], dtype=object), TypeError, r"dtype object.*convert it"),
            ([[1.0 + 2.0j]], TypeError, r"dtype complex128, expected real numbers; convert it"),
            (np.array([["2024-01-01"]], "M8[D]"), TypeError, r"dtype datetime64.*convert it"),
            (np.zeros((2, 2), [("x", float)]), TypeError, r"dtype \[\('x'.*convert it"),
            ([[1.0, 2.0], [3.0]], TypeError, r"cannot be read as an array .*pass an \(n, d\) array of numbers"),
            (1.0, ValueError, r"shape \(\), expected two dimensions .*flatten each sample"),
            ([1.0, 2.0], ValueError, r"shape \(2,\), expected two dimensions .*flatten each sample"),
            (np.zeros((2, 3, 4)), ValueError, r"shape \(2, 3, 4\), expected two dimensions .*flatten each sample"),
            (np.zeros((0, 3)), ValueError, r"is empty, its shape is \(0, 3\); pass at least one row"),
            (np.zeros((3, 0)), ValueError, r"is empty, its shape is \(3, 0\); pass at least one row and one column"),
            ([[0.0], [NAN]], ValueError, r"NaN or infinity \(first in row 1\).*remove such rows"),
            ([[float("inf")]], ValueError, r"NaN or infinity \(first in row 0\).*remove such rows"),
            (np.array([[1e151]]), ValueError, r"1e\+151, whose squared distances overflow.*rescale"),
            (np.array([[-1e200]]), ValueError, r"1e\+200, whose squared distances overflow.*rescale"),
        ],
    )
    def test_bad_features(self, values: Any, error: type[Exception], remedy: str) -> None:
        for name in ("real", "fake"):
            with pytest.raises(error, match=rf"^{name} .*{remedy}"):
                check_features(values, name)

    @LAW
    @given(MATRICES, st.sampled_from([NAN, np.inf, -np.inf]), st.data())
    def test_first_bad_row_is_named(self, x: NDArray[np.float64], bad: float, data: st.DataObject) -> None:
        row, column = (data.draw(st.integers(0, size - 1)) for size in x.shape)
        x[row:, column] = bad
        with pytest.raises(ValueError, match=rf"^fake holds NaN or infinity \(first in row {row}\)"):
            check_features(x, "fake")

    def test_bad_row_beyond_the_first_block(self) -> None:
        x = np.zeros((5, 1 << 21), np.float32)  # rows of 8 MiB: the scan goes through two at a time
        x[3, 7] = np.nan
        with pytest.raises(ValueError, match=r"first in row 3"):
            check_features(x, "real")


class TestRealFake:
    @pytest.mark.parametrize("metric", [frechet_distance, PRDC])
    def test_metrics_see_no_difference_between_a_view_and_its_copy(self, metric: Any) -> None:
        rng = np.random.default_rng(0)
        real, fake = rng.normal(size=(12, 3)), rng.normal(size=(3, 24))
        views = real[::-1, ::-1], fake.T[::-2]
        assert metric(*views) == metric(*(view.copy() for view in views))

    def test_spaces_of_different_dimension(self) -> None:
        with pytest.raises(ValueError, match=r"^real has 2 features and fake has 3; both must come from the same"):
            check_real_fake(np.zeros((4, 2)), np.zeros((4, 3)))

    def test_each_side_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"^real has shape"):
            check_real_fake(np.zeros(4), np.zeros((4, 3)))
        with pytest.raises(ValueError, match=r"^fake has shape"):
            check_real_fake(np.zeros((4, 3)), np.zeros(4))

    def test_one_dtype(self) -> None:
        for first, second in ((np.float32, np.float64), (np.float64, np.float32), (np.float16, np.float64)):
            real, fake = check_real_fake(np.ones((1, 1), first), np.ones((1, 1), second))
            assert real.dtype == fake.dtype == np.float64
        real, fake = check_real_fake(np.ones((1, 1), np.float32), np.ones((1, 1), np.float16))
        assert real.dtype == fake.dtype == np.float32


class TestIntegers:
    @pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True, np.float64(2.0)])
    def test_what_is_no_positive_integer(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^n_bootstrap=.* is not an integer of at least 1; pass one"):
            check_positive_int(value, "n_bootstrap")

    def test_minimum_and_type(self) -> None:
        assert type(check_positive_int(np.int32(3), "k", minimum=3)) is int
        with pytest.raises(ValueError, match=r"^k=2 is not an integer of at least 3"):
            check_positive_int(2, "k", minimum=3)

    @pytest.mark.parametrize(("itself", "enough"), [(True, 6), (False, 5)])
    def test_neighbours_that_a_set_has(self, itself: bool, enough: int) -> None:
        assert check_n_neighbors(5, enough, "fake", itself=itself) == 5
        message = rf"^fake has {enough - 1} rows, but n_neighbors=5 needs at least {enough}; add samples or lower"
        with pytest.raises(ValueError, match=message):
            check_n_neighbors(5, enough - 1, "fake", itself=itself)


def test_masked_values_are_no_data() -> None:
    values = np.ma.masked_array(np.ones((4, 2)), mask=[[False, True], *[[False, False]] * 3])
    with pytest.raises(TypeError, match="real has masked values"):
        check_features(values, "real")
    assert check_features(np.ma.masked_array(np.ones((4, 2))), "real").shape == (4, 2)
