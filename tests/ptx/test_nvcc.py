"""The interpreter gives nvcc's code the meaning of its C++ source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.cuda_static import find_nvcc
from tests.ptx.launch import Array, run_kernel
from tests.ptx.memory import MemoryAccessError
from tests.ptx.toolchain import ptx_of

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="nvcc was not found")


@pytest.fixture(scope="module", params=["compute_75", "compute_90", "compute_120"])
def ptx(request: pytest.FixtureRequest) -> str:
    return ptx_of(Path(__file__).with_name("snippets.cu"), request.param)


def ulps(got: Array, wanted: Array) -> float:
    """Largest distance, in units of the last place of what is wanted."""
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        distance = np.abs(got.astype(np.longdouble) - wanted) / np.spacing(np.abs(wanted.astype(got.dtype)))
    return float(np.max(np.where(same, 0, distance)))


def test_double_functions(ptx: str) -> None:
    rng = np.random.default_rng(0)
    n = 200
    x = np.exp(rng.uniform(-20, 30, n))
    x[:6] = [1.0, 1e-310, 1e300, 1e9, 0.5, 3.7e15]  # subnormal; the reduction of large angles
    y = rng.uniform(-8, 8, n)
    y[:6] = [0.0, 2.0, -1.0, 0.5, 700.0, -745.0]
    out = run_kernel(ptx, "double_functions", [x, y, np.int32(n), np.zeros(12 * n)], grid=2, block=128)[2].reshape(
        12, n
    )
    with np.errstate(over="ignore"):
        mantissa, exponent = np.frexp(x)
        wanted = [
            np.log(x), x**y, np.exp(y), np.cos(x), np.sqrt(x), x / np.where(y == 0, np.nan, y), mantissa, exponent,
            np.ldexp(y, np.arange(n) % 60 - 30), np.maximum(np.minimum(x, y), np.abs(y) - 3), None, np.log1p(x),
        ]  # fmt: skip
    for row, allowed in enumerate((1, 2, 1, 2, 0, 0, 0, 0, 0, 0, None, 2)):
        if row == 5:
            assert ulps(out[row][y != 0], wanted[row][y != 0]) == 0
        elif allowed is not None:
            assert ulps(out[row], wanted[row]) <= allowed, row
    exact = x.astype(np.longdouble) * (y.astype(np.longdouble) - 1)
    assert np.allclose(out[10], exact.astype(np.float64), rtol=1e-15, atol=0)


def test_float_functions(ptx: str) -> None:
    rng = np.random.default_rng(0)
    n = 200
    x = np.exp(rng.uniform(-10, 10, n)).astype(np.float32)
    x[:4] = [1.0, 1e-40, 1e30, 1e6]
    y = rng.uniform(-3, 3, n).astype(np.float32)
    out = run_kernel(ptx, "float_functions", [x, y, np.int32(n), np.zeros(10 * n, np.float32)], block=256)[2].reshape(
        10, n
    )
    a, b = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(over="ignore"):
        wanted = [np.log(a), a**b, np.exp(b), np.cos(a), np.sqrt(a), a / b, np.exp(b), a**-0.5, a * b - a]
        wanted = [one.astype(np.float32) for one in wanted]
    for row, allowed in enumerate((1, 8, 2, 2, 0, 0, 8, 2, 0)):
        assert ulps(out[row], wanted[row]) <= allowed, row
    assert np.array_equal(out[9].view(np.int32), x.view(np.int32) ^ 1)


def test_whole_numbers(ptx: str) -> None:
    rng = np.random.default_rng(1)
    n = 120
    x, y = (rng.integers(-(1 << 63), 1 << 63, n) >> rng.integers(0, 63, n) for _ in range(2))
    y[:3] = [0, 1, -1]
    out = run_kernel(ptx, "whole_numbers", [x, y, np.int32(n), np.zeros(13 * n, np.int64)], block=128)[2].reshape(13, n)

    def signed(value: int, bits: int = 64) -> int:
        value %= 1 << bits
        return value - (1 << bits) if value >> (bits - 1) else value

    for i in range(n):
        a, b = int(x[i]), int(y[i])
        ua, ub = a % (1 << 64), b % (1 << 64)
        la, lb = ua % (1 << 32), ub % (1 << 32)
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else 0
        choice = (la | lb << 32).to_bytes(8, "little")
        low_a, low_b = signed(la, 32), signed(lb | 1, 32)
        low_quotient = abs(low_a) // abs(low_b) * (1 if (low_a < 0) == (low_b < 0) else -1)
        assert out[:, i].tolist() == [
            signed(quotient),
            a - b * quotient if b else 0,
            signed(ua // ub) if b else 0,
            signed(ua * ub >> 64),
            signed(a * b >> 64),
            la * lb >> 32,
            ua.bit_count() * 1000000 + la.bit_count() * 1000 + 32 - la.bit_length(),
            (((a & -a).bit_length() if a else 0) * 1000) + 64 - ua.bit_length(),
            int.from_bytes(bytes(choice[k] for k in (5, 1, 7, 3)), "little"),
            ((lb << 32 | la) << i % 32 >> 32) % (1 << 32),
            int(f"{la:032b}"[::-1], 2),
            signed(low_quotient, 32) if lb else 7,
            signed((a >> (i & 63)) + signed(ua << (i & 63))),
        ], i


def test_warp_functions(ptx: str) -> None:
    x = np.random.default_rng(2).normal(size=64)
    _, out, bits = run_kernel(ptx, "warp_functions", [x, np.zeros(256), np.zeros(256, np.uint32)], block=64)
    out, bits = out.reshape(4, 64), bits.reshape(4, 64)
    for warp in (slice(0, 32), slice(32, 64)):
        mine, lane = x[warp], np.arange(32)
        tree = mine.copy()
        for offset in (16, 8, 4, 2, 1):
            tree = tree + tree[lane ^ offset]
        assert np.array_equal(out[0, warp], tree)
        assert np.array_equal(out[1, warp], mine[np.where(lane + 3 < 32, lane + 3, lane)])
        assert np.array_equal(out[2, warp], mine[np.where(lane % 8 >= 5, lane - 5, lane)])
        assert np.array_equal(out[3, warp], mine[(lane + warp.start) * 7 % 32])
        assert (bits[0, warp] == sum(1 << i for i in range(32) if mine[i] > 0)).all()
        assert (bits[1, warp] == 2 * (mine > 2).any() + (mine > -2).all()).all()
        doubled = (mine * 2).astype(int)
        assert bits[2, warp].tolist() == [sum(1 << j for j in range(32) if doubled[j] == doubled[i]) for i in range(32)]
        few = sum(1 << i for i in range(20) if mine[i] < 0)
        assert bits[3, warp].tolist() == [few] * 20 + [0] * 12


def test_block_functions(ptx: str) -> None:
    x = np.random.default_rng(3).integers(-100, 100, 300).astype(np.int32)
    arguments = [x, np.zeros(300, np.int32), np.zeros(2, np.uint64), np.zeros(1)]
    _, out, total, real_total = run_kernel(ptx, "block_functions", arguments, grid=3, block=100, dynamic=400)
    blocks = x.reshape(3, 100)
    counts = np.stack([np.bincount(block & 3, minlength=4) for block in blocks])
    wanted = blocks[:, ::-1] * 1000 + np.take_along_axis(counts, blocks & 3, 1) + ((blocks > 0).sum(1)[:, None] << 20)
    assert np.array_equal(out.reshape(3, 100), wanted)
    assert total.view(np.int64).tolist() == [x.max(), x.sum()]
    assert real_total[0] == 150


def test_ways(ptx: str) -> None:
    n = 100
    x = np.random.default_rng(4).integers(0, 1000, n).astype(np.int32)
    given = np.array((3.0, 12, 0), np.dtype([("first", "f8"), ("second", "i4"), ("gap", "i4")]))[()]
    out = run_kernel(ptx, "ways", [given, x, np.int32(n), np.zeros(3 * n)], block=128)[1].reshape(3, n)
    for i in range(n):
        own = [int(x[(i + k) % n]) for k in range(8)]
        for k in range(x[i] % 6):
            own[(x[i] + k) & 7] += own[k] * 3
        value = float(own[i & 7])
        case = x[i] % 9
        value = [
            value * 3, value - 7, 1 / value if value else np.inf, value * value + 5, 11 - value, value + 11, own[3],
            x[0] - value, value,
        ][case]  # fmt: skip
        first, second = 3.0, 12 + (int(x[i]) & 15)
        for _ in range(x[i] & 31):
            if second % 5 == 0:
                break
            first, second = first / 2, second + 1
        assert out[:, i].tolist() == [value, first, second]


def test_narrow_words(ptx: str) -> None:
    rng = np.random.default_rng(5)
    n = 50
    x, y = rng.integers(-30000, 30000, n).astype(np.int16), rng.integers(-128, 128, n).astype(np.int8)
    four = rng.integers(-1000, 1000, (n, 4)).astype(np.float32)
    arguments = [x, y, np.int32(n), four, np.zeros(n, np.uint16)]
    _, _, out, halves = run_kernel(ptx, "narrow_words", arguments, block=64)
    a, b = x.astype(np.int64), y.astype(np.int64)
    assert np.array_equal(
        out, np.stack([four[:, 3] + x, four[:, 2] * y, four[:, 1] - a * b, four[:, 0]], 1).astype("f4")
    )
    assert np.array_equal(halves, (a * 3 + b).astype(np.uint16))


def test_a_changed_instruction_changes_the_result(ptx: str) -> None:
    """Every addition, comparison, shuffle or barrier that is replaced is noticed, or the interpreter proves nothing."""
    x = np.random.default_rng(3).integers(-100, 100, 300).astype(np.int32)
    arguments = [x, np.zeros(300, np.int32), np.zeros(2, np.uint64), np.zeros(1)]

    def result(text: str) -> list[bytes]:
        try:
            done = run_kernel(text, "block_functions", arguments, grid=3, block=100, dynamic=400)
        except MemoryAccessError:
            return []
        return [one.tobytes() for one in done]

    start = ptx.index("block_functions(")
    end = ptx.index("ret;", start)
    body, wanted = ptx[start:end], result(ptx)
    changes = [("sub.s32", "add.s32"), ("setp.gt.s32", "setp.ge.s32"), (".max.u64", ".min.u64"), ("add.f64", "max.f64")]
    changes += [("and.b32", "or.b32"), ("st.shared.u32", "st.shared.u16")]
    n_tried = 0
    for old, new in changes:
        if old in body:
            n_tried += 1
            assert result(ptx[:start] + body.replace(old, new) + ptx[end:]) != wanted, old
    assert n_tried >= 3
