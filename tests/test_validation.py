"""Bad input is refused with the argument's name and a remedy; unusual but valid input gives the result of its copy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.lib.recfunctions
import pandas as pd
import pytest
import scipy.sparse
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
NUMBERS = st.floats(-1e6, 1e6).map(lambda value: value if abs(value) > 1e-99 else 0.0)  # no set is too small to square
MATRICES = hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=NUMBERS)
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
    def test_any_layout_gives_the_result_of_its_copy(self, x: NDArray[np.float64], flip: Any) -> None:
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

    @LAW
    @given(st.lists(st.lists(st.integers(-8, 8), min_size=3, max_size=3), min_size=1, max_size=6))
    def test_the_same_numbers_held_in_other_ways_are_the_same_features(self, rows: list[list[int]]) -> None:
        torch, pa = pytest.importorskip("torch"), pytest.importorskip("pyarrow")
        array = np.array(rows, dtype=np.float32)
        table = pd.DataFrame(array, columns=list("abc"))
        flat = pa.array(array.ravel())
        ways: list[Any] = [
            torch.tensor(rows).bfloat16(),
            torch.tensor(rows).float().to(torch.float8_e4m3fn),
            list(torch.tensor(array)),
            tuple(torch.tensor(array).bfloat16()),
            [*torch.tensor(array)[:1].bfloat16(), *array[1:]],
            list(array),
            table,
            table.astype("Float32"),
            table.astype("Int8"),
            table.astype({"a": "int16", "b": "Int8", "c": "float16"}),
            table.astype("Sparse[float32]"),
            table.astype("float[pyarrow]"),
            pd.Series(list(array)),
            pd.DataFrame({"embedding": list(array)}),
            pd.DataFrame({"embedding": list(array[:, :2]), "c": array[:, 2]}),
            pd.Series(list(array), dtype=pd.ArrowDtype(pa.list_(pa.float32()))),
            pa.array(list(array)),
            pa.chunked_array([list(array)] * 1),
            pa.FixedSizeListArray.from_arrays(flat, 3),
            [[np.float32(value) for value in row] for row in rows],
            memoryview(array),
        ]
        for values in ways:
            checked = check_features(values, "real")
            assert checked.dtype == np.float32, values
            np.testing.assert_array_equal(checked, array)
        for values in (
            rows,
            array.astype(object),
            table.astype(object),
            table.convert_dtypes(),
            table.convert_dtypes(dtype_backend="pyarrow"),
            [[Decimal(value) for value in row] for row in rows],
            pa.table({name: table[name] for name in table}),
        ):
            np.testing.assert_array_equal(check_features(values, "real"), array)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
    def test_dtypes_that_numpy_lacks(self, dtype: str) -> None:
        ml_dtypes = pytest.importorskip("ml_dtypes")  # which JAX, TensorFlow and ONNX bring along
        values = np.array([[1, -2], [0, 4]]).astype(getattr(ml_dtypes, dtype))

        class JaxArray:
            def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
                return values

        for held in (values, JaxArray(), list(values), pd.Series(list(values)), values[::-1][::-1]):
            checked = check_features(held, "real")
            assert checked.dtype == np.float32
            assert checked.tolist() == [[1, -2], [0, 4]]

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (pd.DataFrame({"a": [1, None, 3]}, dtype="Int64"), r"real\['a'\] holds a missing value \(first in row 1\)"),
            (
                pd.DataFrame({"a": [1.0, 2.0, None]}, dtype="Float64"),
                r"holds a missing .*in row 2\).*or fill them in",
            ),
            (pd.DataFrame({"a": [1.0, None]}), r"real holds NaN or infinity \(first in row 1\)"),
            (pd.DataFrame({"a": [[1.0], None]}), r"real\['a'\] holds a missing value \(first in row 1\)"),
            (
                pd.DataFrame({"a": [0.5, 2], "id": [2**60 + 1, 4]}),
                r"real\['id'\] holds the integer 1152921504606846977 ",
            ),
            (pd.DataFrame({"a": [1, 2], "b": [b"x", 2]}), r"real\['b'\] holds .*\(bytes\), expected real numbers"),
            (pd.DataFrame([["a"] * 30]), "columns that are no real numbers.* and 20 more"),
        ],
    )
    def test_tables_with_other_values(self, table: pd.DataFrame, message: str) -> None:
        with pytest.raises((TypeError, ValueError), match=message):
            check_features(table, "real")

    @pytest.mark.parametrize(
        "exact", [2**53, -(2**53), 2**53 + 2, 2**62, 2**63 - 1024, -(2**63), 3 * 2**61, -(2**60) - 2**12]
    )
    def test_integers_that_float64_holds(self, exact: int) -> None:
        for dtype in (np.int64, np.dtype(">i8"), np.uint64):
            if dtype != np.uint64 or exact >= 0:
                checked = check_features(np.array([[1, 0], [2, exact]], dtype), "real")
                assert int(checked[1, 1]) == exact

    @pytest.mark.parametrize("inexact", [2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**64 - 1, 2**63 + 1, 2**60 + 2**7])
    def test_integers_that_float64_cannot_hold(self, inexact: int) -> None:
        values = np.array([[1, 0], [2, inexact]], np.uint64 if inexact >= 2**63 else np.int64)
        with pytest.raises(ValueError, match=rf"^real holds the integer {inexact} \(row 1, column 1\), .*identifier"):
            check_features(values, "real")
        if values.dtype == np.int64:
            with pytest.raises(ValueError, match=r"^real holds the integer"):
                check_features(values[::-1].astype(object), "real")

    @given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8))
    def test_an_integer_is_refused_if_and_only_if_it_would_be_rounded(self, column: list[int]) -> None:
        values = np.array(column, np.int64)[:, None]
        if all(int(float(value)) == value for value in column):
            assert [int(value) for value in check_features(values, "real").ravel()] == column
        else:
            with pytest.raises(ValueError, match="holds the integer"):
                check_features(values, "real")

    @pytest.mark.parametrize(
        ("values", "error", "remedy"),
        [
            (None, TypeError, r"is NoneType, expected an \(n, d\) array of real numbers; pass one"),
            ("abc", TypeError, r"dtype <U3.*pass features of the texts"),
            ([["a"], ["b"]], TypeError, r"dtype <U1.*pass features of the texts"),
            ([[1.0, None]], ValueError, r"missing value \(first in row 0\).*remove such rows.*or fill them in"),
            (
                np.array([[1.0, "x"]], dtype=object),
                TypeError,
                r"holds 'x' \(str\), expected real numbers; leave",
            ),
            ([[1.0 + 2.0j]], TypeError, r"dtype complex128, expected real numbers; take both parts"),
            (np.array([["2024-01-01"]], "M8[D]"), TypeError, r"dtype datetime64.*choose a unit and an origin"),
            (np.array([[3]], "m8[D]"), TypeError, r"dtype timedelta64.*choose a unit"),
            (np.zeros((2, 2), [("x", float)]), TypeError, r"dtype \[\('x'.*join its fields"),
            (np.zeros((2, 2), "V2"), TypeError, r"dtype \|V2.*numpy.save keeps no type of bfloat16.*save float32"),
            ([[1.0, 2.0], [3.0]], TypeError, r"cannot be read as an array .*pass an \(n, d\) array of numbers"),
            (
                [[1.0, 2.0], [1.0, 2.0], (3.0,)],
                TypeError,
                r"row 2 has shape \(1,\), row 0 has \(2,\).*same length",
            ),
            ([], ValueError, r"is empty, its shape is \(0,\); pass at least one row and one column"),
            ({"a": [1.0]}, TypeError, r"is dict, expected an \(n, d\) array of real numbers; pass one"),
            (1.0, ValueError, r"shape \(\), expected two dimensions .*pass one row for each sample"),
            ([1.0, 2.0], ValueError, r"shape \(2,\), expected two dimensions .*pass one column"),
            (np.zeros((2, 3, 4)), ValueError, r"shape \(2, 3, 4\), expected two dimensions .*flatten each sample"),
            (np.zeros((0, 3)), ValueError, r"is empty, its shape is \(0, 3\); pass at least one row"),
            (np.zeros((3, 0)), ValueError, r"is empty, its shape is \(3, 0\); pass at least one row and one column"),
            ([[0.0], [NAN]], ValueError, r"NaN or infinity \(first in row 1\).*remove such rows"),
            ([[float("inf")]], ValueError, r"NaN or infinity \(first in row 0\).*remove such rows"),
            (np.array([[1.1e100]]), ValueError, r"size 1.1e\+100, .*overflow float64; rescale .* at most 1e\+100"),
            (np.array([[-1e200]]), ValueError, r"size 1e\+200, .*overflow float64; rescale .* at most 1e\+100"),
            (
                np.array([[0.0], [-9e-101]]),
                ValueError,
                r"above 9e-101, .*vanish in float64; rescale .* at least 1e-100",
            ),
        ],
    )
    def test_bad_features(self, values: Any, error: type[Exception], remedy: str) -> None:
        for name in ("real", "fake"):
            with pytest.raises(error, match=rf"^{name} .*{remedy}"):
                check_features(values, name)

    @pytest.mark.parametrize(
        ("make", "advice"),
        [
            (lambda: np.zeros(3), "numpy.reshape({}, (-1, 1))"),
            (lambda: [1, 2, 3], "numpy.reshape({}, (-1, 1))"),
            (lambda: pd.Series([1.0, 2.0]), "numpy.reshape({}, (-1, 1))"),
            (lambda: np.zeros((2, 3, 4)), "numpy.reshape({}, (len({}), -1))"),
            (lambda: np.zeros((2, 3, 4)), "numpy.reshape({}, (-1, 4))"),
            (lambda: [np.zeros((3, 4)), np.zeros((3, 4))], "numpy.reshape({}, (-1, 4))"),
            (lambda: np.zeros((2, 3, 4, 5)), "numpy.reshape({}, (len({}), -1))"),
            (lambda: [np.zeros((3, 4)), np.zeros((2, 4))], "numpy.concatenate({})"),
            (lambda: [[1j], [2j]], "numpy.hstack([numpy.real({}), numpy.imag({})])"),
            (lambda: np.array([[1], [2]], "m8[D]"), "numpy.asarray({}) / numpy.timedelta64(1, 's')"),
            (
                lambda: pd.DataFrame({"t": pd.to_timedelta([1, 2])}).to_numpy(),
                "numpy.asarray({}) / numpy.timedelta64(1, 's')",
            ),
            (
                lambda: np.array([["2024-01-01"], ["2024-01-02"]], "M8[ns]"),
                "(numpy.asarray({}) - numpy.datetime64(0, 's')) / numpy.timedelta64(1, 's')",
            ),
            (lambda: np.array([["1.5"], ["2"]]), "numpy.asarray({}, dtype=numpy.float64)"),
            (lambda: np.array([[2**53 + 1], [2]]), "numpy.asarray({}, dtype=numpy.float64)"),
            (lambda: np.zeros(2, "f4,i2"), "numpy.lib.recfunctions.structured_to_unstructured({})"),
            (lambda: pd.DataFrame({"x": [1.0, 2.0], "t": pd.to_timedelta([1, 2])}), "{}.drop(columns=['t'])"),
            (lambda: pd.DataFrame({"x": [1, 2], "y": ["a", "b"], "z": ["c", "d"]}), "{}.drop(columns=['y', 'z'])"),
            (lambda: pd.DataFrame({"x": [1, 2], "y": pd.Categorical([1, 2])}), "{}.drop(columns=['y'])"),
            (lambda: scipy.sparse.csr_matrix(np.eye(3)), "{}.toarray()"),
            (lambda: scipy.sparse.coo_array(np.eye(3)), "{}.toarray()"),
        ],
    )
    def test_the_advice_of_a_message_works(self, make: Callable[[], Any], advice: str) -> None:
        self.check_advice(make(), advice)

    def check_advice(self, values: Any, advice: str, **names: Any) -> None:
        advice = advice.replace("{}", "real")
        with pytest.raises((TypeError, ValueError)) as error:
            check_features(values, "real")
        assert advice in str(error.value)
        checked = check_features(eval(advice, {"numpy": np, "real": values, **names}), "real")
        assert isinstance(checked, np.ndarray)
        assert checked.ndim == 2

    def test_the_advice_for_tensors_works(self) -> None:
        torch = pytest.importorskip("torch")
        with pytest.raises(TypeError, match=r"^real is a nested tensor, expected .* rows of the same length"):
            check_features(torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged), "real")
        for values, advice in [
            (torch.zeros(3), "{}[:, None]"),
            (torch.zeros(2, 3, 4).bfloat16(), "{}.flatten(1)"),
            (torch.zeros(2, 3, 4), "{}.flatten(0, 1)"),
            ([torch.zeros(3, 4).bfloat16(), torch.zeros(2, 4).bfloat16()], "torch.cat({})"),
            (torch.zeros(2, 3).to_sparse(), "{}.to_dense()"),
            (torch.zeros(2, 3, dtype=torch.complex64), "torch.view_as_real({}).flatten(1)"),
        ]:
            self.check_advice(values, advice, torch=torch)

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
    def test_metrics_give_the_same_result_for_a_view_and_its_copy(self, metric: Any) -> None:
        rng = np.random.default_rng(0)
        real, fake = rng.normal(size=(12, 3)), rng.normal(size=(3, 24))
        views = real[::-1, ::-1], fake.T[::-2]
        assert metric(*views) == metric(*(view.copy() for view in views))

    def test_different_numbers_of_features(self) -> None:
        with pytest.raises(ValueError, match=r"^real has 2 features and fake has 3; both must come from the same"):
            check_real_fake(np.zeros((4, 2)), np.zeros((4, 3)))

    def test_each_side_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"^real has shape"):
            check_real_fake(np.zeros(4), np.zeros((4, 3)))
        with pytest.raises(ValueError, match=r"^fake has shape"):
            check_real_fake(np.zeros((4, 3)), np.zeros(4))

    def test_both_sides_get_the_same_dtype(self) -> None:
        for first, second in ((np.float32, np.float64), (np.float64, np.float32), (np.float16, np.float64)):
            real, fake = check_real_fake(np.ones((1, 1), first), np.ones((1, 1), second))
            assert real.dtype == fake.dtype == np.float64
        real, fake = check_real_fake(np.ones((1, 1), np.float32), np.ones((1, 1), np.float16))
        assert real.dtype == fake.dtype == np.float32


class TestIntegers:
    @pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True, np.float64(2.0)])
    def test_refuses_anything_but_positive_integers(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^n_bootstrap=.* is not an integer of at least 1; pass one"):
            check_positive_int(value, "n_bootstrap")

    def test_minimum_and_type(self) -> None:
        assert type(check_positive_int(np.int32(3), "k", minimum=3)) is int
        with pytest.raises(ValueError, match=r"^k=2 is not an integer of at least 3"):
            check_positive_int(2, "k", minimum=3)

    @pytest.mark.parametrize(("itself", "enough"), [(True, 6), (False, 5)])
    def test_a_set_needs_enough_rows_for_its_neighbours(self, itself: bool, enough: int) -> None:
        assert check_n_neighbors(5, enough, "fake", itself=itself) == 5
        message = rf"^fake has {enough - 1} rows, but n_neighbors=5 needs at least {enough}; add samples or lower"
        with pytest.raises(ValueError, match=message):
            check_n_neighbors(5, enough - 1, "fake", itself=itself)


def test_masked_values_are_refused() -> None:
    values = np.ma.masked_array(np.ones((4, 2)), mask=[[False, True], *[[False, False]] * 3])
    with pytest.raises(TypeError, match="real has masked values"):
        check_features(values, "real")
    assert check_features(np.ma.masked_array(np.ones((4, 2))), "real").shape == (4, 2)
