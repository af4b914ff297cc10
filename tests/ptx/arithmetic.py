"""PTX arithmetic on NumPy arrays: IEEE rounding in every mode, wrapping integers, the odd instructions.

Exact where PTX says so, fused multiply-add included. The approximate instructions (``ex2.approx`` and the like) are
rounded from float64, which is closer than the hardware comes.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Lanes: TypeAlias = NDArray[Any]
Doubles: TypeAlias = NDArray[np.float64]

TYPES: dict[str, np.dtype[Any]] = {"pred": np.dtype(np.bool_), "f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
for _bits in (8, 16, 32, 64):
    TYPES[f"s{_bits}"] = np.dtype(f"i{_bits // 8}")
    TYPES[f"u{_bits}"] = TYPES[f"b{_bits}"] = np.dtype(f"u{_bits // 8}")

_SPLITTER = 134217729.0  # 2^27 + 1


def unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def flush(x: Lanes) -> Lanes:
    """Subnormal float32 numbers to zero of their sign: ``.ftz``."""
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def saturate(x: Lanes) -> Lanes:
    """To [0, 1], NaN to 0: ``.sat``."""
    return np.where(x > 0, np.minimum(x, x.dtype.type(1)), x.dtype.type(0))


# Rounding


def _two_sum(a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _to_odd(rounded: Doubles, error: Doubles) -> Doubles:
    """``rounded + error`` rounded to odd: where it is inexact, the neighbour with an odd last bit.

    Rounding that again, to at least two bits less, equals one rounding of the exact sum.
    """
    bits = rounded.view(np.int64)
    move = (error != 0) & (bits & 1 == 0) & np.isfinite(rounded) & np.isfinite(error)
    if not move.any():
        return rounded
    step = np.where((error > 0) == (rounded > 0), 1, -1)
    return np.where(move, bits + step, bits).view(np.float64)


def narrow(x: Doubles, mode: str = "rn") -> NDArray[np.float32]:
    """float64 to float32 in one of the four rounding modes."""
    near = x.astype(np.float32)
    if mode == "rn":
        return near
    if mode == "rz":
        beyond, towards = np.abs(near) > np.abs(x), np.float32(0)
    elif mode == "rm":
        beyond, towards = near > x, np.float32(-np.inf)
    else:
        beyond, towards = near < x, np.float32(np.inf)
    return np.where(beyond, np.nextafter(near, towards), near)


def _exact_fma(a: float, b: float, c: float, mode: str) -> float:
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        with np.errstate(all="ignore"):
            # An infinite c decides alone, however large the finite product is.
            return (
                float(np.float64(a) * np.float64(b) + np.float64(c))
                if not (math.isfinite(a) and math.isfinite(b))
                else c
            )
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        # Of two zeros the sign rules of a sum; of a cancellation +0, rounding down -0.
        product_sign = math.copysign(1.0, a) * math.copysign(1.0, b)
        if (a == 0 or b == 0) and c == 0 and product_sign == math.copysign(1.0, c):
            return c
        return -0.0 if mode == "rm" else 0.0
    try:
        near = float(exact)
    except OverflowError:
        near = math.inf if exact > 0 else -math.inf
    if mode == "rn":
        return near if near != 0 else math.copysign(0.0, exact)
    above = near > exact if math.isinf(near) else Fraction(near) > exact
    below = near < exact if math.isinf(near) else Fraction(near) < exact
    if near == 0:
        near = math.copysign(0.0, exact)
    if above and (mode == "rm" or (mode == "rz" and exact > 0)):
        return math.nextafter(near, -math.inf)
    if below and (mode == "rp" or (mode == "rz" and exact < 0)):
        return math.nextafter(near, math.inf)
    return near


_exact_fma_lanes = np.frompyfunc(_exact_fma, 4, 1)


def _fma64(a: Doubles, b: Doubles, c: Doubles, mode: str) -> Doubles:
    """One rounding of ``a b + c`` (Boldo and Melquiond, Emulation of FMA and correctly rounded sums, 2008); outside the
    range where its error terms are exact, and in other modes, by rational numbers."""
    if mode != "rn":
        return np.asarray(_exact_fma_lanes(a, b, c, mode), np.float64)
    product = a * b
    size = np.abs(product)
    plain = (a == 0) | (b == 0)
    fast = (size > 2.0**-900) & (size < 2.0**1000) & (np.abs(c) < 2.0**1000)
    fast &= (np.abs(a) < 2.0**990) & (np.abs(b) < 2.0**990)
    part = a * _SPLITTER
    a_high = part - (part - a)
    part = b * _SPLITTER
    b_high = part - (part - b)
    a_low, b_low = a - a_high, b - b_high
    low = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    middle, rest = _two_sum(c, low)
    high, middle = _two_sum(product, middle)
    out = high + _to_odd(*_two_sum(rest, middle))
    easy = fast | plain
    if plain.any():
        out = np.where(plain, product + c, out)
    if not easy.all():
        slow = np.flatnonzero(~easy)
        out[slow] = _exact_fma_lanes(a[slow], b[slow], c[slow], "rn").astype(np.float64)
    return out


def _fma32(a: Lanes, b: Lanes, c: Lanes, mode: str) -> Lanes:
    # The product is exact in float64. Rounding the sum twice is wrong only where the first one ends on a tie of the
    # second: in the middle between two float32 numbers, or anywhere among the subnormal ones.
    product, wide = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + wide
    if mode == "rn":
        doubtful = total.view(np.uint64) & np.uint64(0x1FFFFFFF) == 0x10000000
        doubtful |= (np.abs(total) < 2.0**-125) & (total != 0)
        if not doubtful.any():
            return total.astype(np.float32)
    out = narrow(_to_odd(*_two_sum(product, wide)), mode)
    if mode == "rm":
        # What cancels is -0 then; two zeros of one sign stay what they are.
        out = np.where((total == 0) & (np.signbit(product) | np.signbit(wide)), np.float32(-0.0), out)
    return out


def fma(a: Lanes, b: Lanes, c: Lanes, mode: str = "rn") -> Lanes:
    return _fma32(a, b, c, mode) if a.dtype == np.float32 else _fma64(a, b, c, mode)


def add(a: Lanes, b: Lanes, mode: str = "rn") -> Lanes:
    return a + b if mode == "rn" else fma(a, np.ones_like(a), b, mode)


def multiply(a: Lanes, b: Lanes, mode: str = "rn") -> Lanes:
    return a * b if mode == "rn" else fma(a, b, np.where(np.signbit(a) ^ np.signbit(b), -np.zeros_like(a), 0), mode)


def minimum(a: Lanes, b: Lanes) -> Lanes:
    """Of floats the number where one is NaN, and -0 below +0."""
    if a.dtype.kind != "f":
        return np.minimum(a, b)
    return np.where(a == b, np.where(np.signbit(a), a, b), np.fmin(a, b))


def maximum(a: Lanes, b: Lanes) -> Lanes:
    if a.dtype.kind != "f":
        return np.maximum(a, b)
    return np.where(a == b, np.where(np.signbit(a), b, a), np.fmax(a, b))


def crude(x: Doubles) -> Doubles:
    """The upper half of float64 numbers: what ``rcp.approx.ftz.f64`` and ``rsqrt.approx.ftz.f64`` return."""
    return (x.view(np.uint64) & np.uint64(0xFFFFFFFF00000000)).view(np.float64)


def test_property(x: Lanes, wanted: str) -> Lanes:
    tiny, size = np.finfo(x.dtype).tiny, np.abs(x)
    return {
        "finite": np.isfinite(x),
        "infinite": np.isinf(x),
        "number": ~np.isnan(x),
        "notanumber": np.isnan(x),
        "normal": np.isfinite(x) & (size >= tiny),
        "subnormal": (size < tiny) & (x != 0),
    }[wanted]


def compare(a: Lanes, b: Lanes, relation: str) -> Lanes:
    """``setp``: relations of floats are false where one is NaN, those that end in u true."""
    if a.dtype.kind == "f":
        if relation in ("num", "nan"):
            unordered = np.isnan(a) | np.isnan(b)
            return unordered if relation == "nan" else ~unordered
        if relation == "ne":
            return (a < b) | (a > b)
        if relation.endswith("u"):
            opposite = {"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt"}[relation]
            return ~compare(a, b, opposite)
    functions = {
        "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
    }  # fmt: skip
    return functions[relation](a, b)


# Conversion


def to_integer(x: Lanes, dtype: np.dtype[Any], mode: str) -> Lanes:
    rounded = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode](x.astype(np.float64))
    limits = np.iinfo(dtype)
    below, above = rounded <= float(limits.min), rounded >= float(limits.max)
    out = np.where(below | above | np.isnan(rounded), 0.0, rounded).astype(dtype)
    out = np.where(below, dtype.type(limits.min), np.where(above, dtype.type(limits.max), out))
    missing = 0
    if x.dtype.itemsize == 8 or dtype.itemsize == 8:
        missing = limits.min if dtype.kind == "i" else 1 << (8 * dtype.itemsize - 1)
    return np.where(np.isnan(rounded), dtype.type(missing), out)


def _exact_from_integer(value: int, itemsize: int, mode: str) -> float:
    fraction_bits = 24 if itemsize == 4 else 53
    excess = max(abs(value).bit_length() - fraction_bits, 0)
    down = value >> excess << excess
    up = down if down == value else down + (1 << excess)
    toward_zero, away = (down, up) if value >= 0 else (up, down)
    if mode == "rn":
        rest, half = abs(value) - abs(toward_zero), (1 << excess) >> 1
        even = (abs(toward_zero) >> excess) % 2 == 0
        chosen = toward_zero if rest < half or excess == 0 or (rest == half and even) else away
        return float(chosen)
    return float({"rz": toward_zero, "rm": down, "rp": up}[mode])


def from_integer(x: Lanes, dtype: np.dtype[Any], mode: str) -> Lanes:
    if mode == "rn" or (dtype == np.float64 and x.dtype.itemsize <= 4):
        return x.astype(dtype)
    return np.array([_exact_from_integer(int(value), dtype.itemsize, mode) for value in x], dtype)


def round_float(x: Lanes, mode: str) -> Lanes:
    return {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode](x)


def convert(x: Lanes, dtype: np.dtype[Any], mode: str, clamp: bool) -> Lanes:
    if x.dtype.kind == "f" and dtype.kind == "f":
        if mode.endswith("i"):
            out = round_float(x, mode).astype(dtype)
        elif dtype.itemsize < x.dtype.itemsize:
            out = narrow(x, mode or "rn")
        else:
            out = x.astype(dtype)
        return saturate(out) if clamp else out
    if x.dtype.kind == "f":
        return to_integer(x, dtype, mode)
    if dtype.kind == "f":
        return from_integer(x, dtype, mode)
    if clamp:
        limits = np.iinfo(dtype)
        own = np.iinfo(x.dtype)
        low, high = max(limits.min, own.min), min(limits.max, own.max)
        x = np.clip(x, x.dtype.type(low), x.dtype.type(high))
    return x.astype(dtype)


# Integers


def multiply_high(a: Lanes, b: Lanes) -> Lanes:
    """The upper half of the double-width product."""
    bits = 8 * a.dtype.itemsize
    if bits < 64:
        wide = np.dtype(f"{a.dtype.kind}8")
        return (a.astype(wide) * b.astype(wide) >> wide.type(bits)).astype(a.dtype)
    x, y, half, low = a.view(np.uint64), b.view(np.uint64), np.uint64(32), np.uint64(0xFFFFFFFF)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    cross = x1 * y0 + (x0 * y0 >> half)
    other = x0 * y1 + (cross & low)
    high = x1 * y1 + (cross >> half) + (other >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return high.view(a.dtype)


def multiply_wide(a: Lanes, b: Lanes) -> Lanes:
    wide = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
    return a.astype(wide) * b.astype(wide)


def remainder(a: Lanes, b: Lanes) -> Lanes:
    return np.fmod(a, b)


def divide(a: Lanes, b: Lanes) -> Lanes:
    """Integers towards zero; by zero, all bits set (PTX leaves it open)."""
    quotient = (a - np.fmod(a, b)) // b
    return np.where(b == 0, ~np.zeros_like(a), quotient)


def shift_left(a: Lanes, by: Lanes) -> Lanes:
    bits = 8 * a.dtype.itemsize
    return np.where(by < bits, a << np.minimum(by, bits - 1).astype(a.dtype), a.dtype.type(0))


def shift_right(a: Lanes, by: Lanes) -> Lanes:
    bits = 8 * a.dtype.itemsize
    shifted = a >> np.minimum(by, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(by < bits, shifted, a.dtype.type(0))


def funnel_shift(a: Lanes, b: Lanes, c: Lanes, direction: str, mode: str) -> Lanes:
    by = (c & np.uint32(31) if mode == "wrap" else np.minimum(c, np.uint32(32))).astype(np.uint64)
    both = b.astype(np.uint64) << np.uint64(32) | a
    if direction == "l":
        return (both << by >> np.uint64(32)).astype(np.uint32)
    return (both >> by).astype(np.uint32)


def highest_bit(a: Lanes, shift_amount: bool) -> Lanes:
    """``bfind``: position of the highest bit that is not the sign, or its distance from the top; all ones if none."""
    x = np.where(a < 0, ~a, a) if a.dtype.kind == "i" else a
    bits = 8 * a.dtype.itemsize
    width = bits - count_leading_zeros(x.view(unsigned(a.dtype)))
    position = np.uint32(bits) - width if shift_amount else width - np.uint32(1)
    return np.where(width == 0, np.uint32(0xFFFFFFFF), position)


def count_leading_zeros(a: Lanes) -> Lanes:
    bits = 8 * a.dtype.itemsize
    x = a.copy()
    step = 1
    while step < bits:
        x |= x >> a.dtype.type(step)
        step *= 2
    return (np.uint32(bits) - np.bitwise_count(x)).astype(np.uint32)


def reverse_bits(a: Lanes) -> Lanes:
    raw = a[:, None].view(np.uint8)[:, ::-1]
    bits = np.unpackbits(raw, axis=1)[:, ::-1]
    # Bytes were turned to big-endian order first, so the reversed bits are big-endian too.
    return np.packbits(bits, axis=1)[:, ::-1].copy().view(a.dtype)[:, 0]


def extract_bits(a: Lanes, start: Lanes, length: Lanes) -> Lanes:
    bits = 8 * a.dtype.itemsize
    start, length = start & np.uint32(255), length & np.uint32(255)
    kind = unsigned(a.dtype)
    ones = shift_left(np.ones(len(a), kind), np.minimum(length, np.uint32(bits))) - kind.type(1)
    field = shift_right(a, start).view(kind) & ones
    if a.dtype.kind == "u":
        return field
    at = np.minimum(start + length - np.uint32(1), np.uint32(bits - 1))
    sign = (shift_right(a.view(kind), at) & kind.type(1) == 1) & (length > 0)
    return np.where(sign, field | ~ones, field).view(a.dtype)


def insert_bits(a: Lanes, b: Lanes, start: Lanes, length: Lanes) -> Lanes:
    bits = 8 * a.dtype.itemsize
    start, length = start & np.uint32(255), length & np.uint32(255)
    ones = shift_left(np.ones(len(a), a.dtype), np.minimum(length, np.uint32(bits))) - a.dtype.type(1)
    ones = shift_left(ones, start)
    return b & ~ones | shift_left(a, start) & ones


def permute_bytes(a: Lanes, b: Lanes, selector: Lanes) -> Lanes:
    both = (b.astype(np.uint64) << np.uint64(32)) | a
    out = np.zeros(len(a), np.uint32)
    for position in range(4):
        choice = selector >> np.uint32(4 * position) & np.uint32(15)
        byte = both >> (np.uint64(8) * (choice & np.uint32(7))) & np.uint64(255)
        byte = np.where(choice & np.uint32(8), np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0)), byte)
        out |= byte.astype(np.uint32) << np.uint32(8 * position)
    return out


def logic3(a: Lanes, b: Lanes, c: Lanes, table: int) -> Lanes:
    out = np.zeros_like(a)
    for index in range(8):
        if table >> index & 1:
            out |= (a if index & 4 else ~a) & (b if index & 2 else ~b) & (c if index & 1 else ~c)
    return out
