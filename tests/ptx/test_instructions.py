"""Every instruction of the interpreter against plain Python: integers and rational numbers, one thread at a time."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from tests.ptx import arithmetic
from tests.ptx.interpreter import StuckError, TrapError, UnsupportedInstructionError
from tests.ptx.launch import Array, run_kernel
from tests.ptx.memory import MemoryAccessError

REGISTERS = {1: "%rs", 2: "%rs", 4: "%r", 8: "%rd"}
HEAD = ".version 9.0\n.target sm_75\n.address_size 64\n"


def register(kind: str, number: int) -> str:
    if kind == "pred":
        return f"%p{number}"
    if kind in ("f32", "f64"):
        return f"%{'f' if kind == 'f32' else 'fd'}{number}"
    return f"{REGISTERS[int(kind[1:]) // 8]}{number}"


DECLARED = """.reg .pred %p<40>; .reg .b16 %rs<40>; .reg .b32 %r<40>; .reg .b64 %rd<40>; .reg .f32 %f<40>;
    .reg .f64 %fd<40>;
    mov.u32 %r30, %tid.x; mov.u32 %r31, %ctaid.x; mov.u32 %r32, %ntid.x; mad.lo.s32 %r33, %r31, %r32, %r30;
"""


def kernel(body: str, n_arrays: int, outside: str = "") -> str:
    """Thread i has its number in %r33 and the arrays' addresses in %rd20, %rd21, ..."""
    parameters = ", ".join(f".param .u64 a{i}" for i in range(n_arrays))
    loads = "\n".join(f"ld.param.u64 %rd{20 + i}, [a{i}];" for i in range(n_arrays))
    return f"{HEAD}{outside}\n.visible .entry k({parameters})\n{{\n{DECLARED}{loads}\n{body}\nret;\n}}\n"


def apply(instruction: str, kinds: Sequence[str], out: str, *inputs: Array) -> Array:
    """``instruction`` with d for the result, a, b, c, e for the inputs in braces; a thread an element."""
    n = len(inputs[0])
    lines, names = [], {}
    for position, (kind, values) in enumerate(zip(kinds, inputs, strict=True)):
        size = values.dtype.itemsize
        name = register(kind, position + 1)
        names["abce"[position]] = name
        lines += [f"mul.wide.u32 %rd30, %r33, {size};", f"add.s64 %rd31, %rd{21 + position}, %rd30;"]
        if kind == "pred":
            lines += ["ld.global.u8 %rs30, [%rd31];", f"setp.ne.u16 {name}, %rs30, 0;"]
        else:
            lines.append(f"ld.global.{kind.replace('s', 'b').replace('u', 'b')} {name}, [%rd31];")
    names["d"] = register(out, 0)
    lines.append(instruction.format(**names))
    if out == "pred":
        lines.append("selp.u16 %rs0, 1, 0, %p0;")
    stored = "u8" if out == "pred" else out.replace("s", "b")
    result = np.zeros(n, np.uint8 if out == "pred" else arithmetic.TYPES[out])
    lines += [f"mul.wide.u32 %rd30, %r33, {result.dtype.itemsize};", "add.s64 %rd31, %rd20, %rd30;"]
    lines.append(f"st.global.{stored} [%rd31], {register('u16' if out == 'pred' else out, 0)};")
    body = f"setp.ge.u32 %p39, %r33, {n};\n@%p39 bra DONE;\n" + "\n".join(lines) + "\nDONE:"
    text = kernel(body, len(inputs) + 1)
    return run_kernel(text, "k", [result, *inputs], grid=-(-n // 128), block=128)[0]


def integers(kind: str, n: int, seed: int) -> Array:
    """Random in size, and what is special."""
    dtype = arithmetic.TYPES[kind]
    limits, rng = np.iinfo(dtype), np.random.default_rng(seed)
    special = [limits.min, limits.max, 0, 1, limits.max - 1, limits.min + 1, 2, 31, 32, 33, 63, 64]
    bits = rng.integers(0, 1 << 63, n, dtype=np.uint64) << np.uint64(1) >> rng.integers(0, 64, n).astype(np.uint64)
    values = bits.astype(dtype)
    picked = rng.random(n) < 0.3
    return np.where(picked, np.array(special, dtype)[rng.integers(0, len(special), n)], values).astype(dtype)


def floats(kind: str, n: int, seed: int) -> Array:
    dtype = arithmetic.TYPES[kind]
    rng = np.random.default_rng(seed)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.5, 0.5, 2.5, 1e-42, -1e-42, 3e9, -3e9, 1e19, -1e19, 254.7]
    values = rng.normal(size=n) * 10.0 ** rng.integers(-3, 8, n)
    return np.where(rng.random(n) < 0.4, rng.choice(special, n), values).astype(dtype)


def wrap(value: int, kind: str) -> int:
    bits = int(kind[1:])
    value %= 1 << bits
    return value - (1 << bits) if kind[0] == "s" and value >> (bits - 1) else value


def truncated(a: int, b: int) -> int:
    return int(Fraction(a, b)) if b else -1


def leading_zeros(a: int, bits: int) -> int:
    return bits - (a % (1 << bits)).bit_length()


def bit_field(a: int, start: int, length: int, kind: str) -> int:
    bits = int(kind[1:])
    start, length = start & 255, length & 255
    field = [a >> i & 1 if i < bits else 0 for i in range(start, start + length)][:bits]
    # Beyond the top the sign bit is repeated.
    sign = (a >> min(start + length - 1, bits - 1) & 1) if kind[0] == "s" and length else 0
    field = [a >> i & 1 if i < bits else sign for i in range(start, start + length)][:bits]
    value = sum(bit << i for i, bit in enumerate(field))
    value += sum(sign << i for i in range(len(field), bits))
    return wrap(value, kind)


def inserted(a: int, b: int, start: int, length: int, kind: str) -> int:
    bits = int(kind[1:])
    start, length = start & 255, length & 255
    for i in range(length):
        if start + i < bits:
            b = b & ~(1 << (start + i)) | (a >> i & 1) << (start + i)
    return wrap(b, kind)


def permuted(a: int, b: int, selector: int) -> int:
    both = (b << 32 | a).to_bytes(8, "little")
    out = []
    for i in range(4):
        choice = selector >> 4 * i & 15
        byte = both[choice & 7]
        out.append((255 if byte & 128 else 0) if choice & 8 else byte)
    return int.from_bytes(bytes(out), "little")


def shifted_pair(a: int, b: int, c: int, left: bool, clamp: bool) -> int:
    by = min(c, 32) if clamp else c & 31
    both = b << 32 | a
    return ((both << by) >> 32 if left else both >> by) % (1 << 32)


def highest(a: int, bits: int, amount: bool) -> int:
    if a < 0:
        a = ~a
    if a == 0:
        return 0xFFFFFFFF
    return bits - a.bit_length() if amount else a.bit_length() - 1


Case = tuple[str, str, str, Callable[..., int]]


def integer_cases(kind: str) -> list[Case]:
    """Instruction, types of its inputs, type of its result, and what it computes before it is cut to size."""
    n = int(kind[1:])
    one, two, three = kind, f"{kind} {kind}", f"{kind} {kind} {kind}"
    cases: list[Case] = [
        (f"add.{kind} {{d}}, {{a}}, {{b}};", two, kind, lambda a, b: a + b),
        (f"sub.{kind} {{d}}, {{a}}, {{b}};", two, kind, lambda a, b: a - b),
        (f"mul.lo.{kind} {{d}}, {{a}}, {{b}};", two, kind, lambda a, b: a * b),
        (f"mul.hi.{kind} {{d}}, {{a}}, {{b}};", two, kind, lambda a, b: a * b >> n),
        (f"mad.lo.{kind} {{d}}, {{a}}, {{b}}, {{c}};", three, kind, lambda a, b, c: a * b + c),
        (f"mad.hi.{kind} {{d}}, {{a}}, {{b}}, {{c}};", three, kind, lambda a, b, c: (a * b >> n) + c),
        (f"div.{kind} {{d}}, {{a}}, {{b}};", two, kind, truncated),
        (f"rem.{kind} {{d}}, {{a}}, {{b}};", two, kind, lambda a, b: a - b * truncated(a, b) if b else 0),
        (f"min.{kind} {{d}}, {{a}}, {{b}};", two, kind, min),
        (f"max.{kind} {{d}}, {{a}}, {{b}};", two, kind, max),
        (f"shl.b{n} {{d}}, {{a}}, {{b}};", f"{one} u32", kind, lambda a, b: a << b if b < n else 0),
        (f"shl.b{n} {{d}}, {{a}}, 5;", one, kind, lambda a: a << 5),
        (f"shr.{kind} {{d}}, {{a}}, {{b}};", f"{one} u32", kind, lambda a, b: a >> min(b, n)),
        (f"shr.{kind} {{d}}, {{a}}, 5;", one, kind, lambda a: a >> 5),
        (f"bfe.{kind} {{d}}, {{a}}, {{b}}, {{c}};", f"{one} u32 u32", kind, lambda a, b, c: bit_field(a, b, c, kind)),
        (f"bfind.{kind} {{d}}, {{a}};", one, "u32", lambda a: highest(a, n, False)),
        (f"bfind.shiftamt.{kind} {{d}}, {{a}};", one, "u32", lambda a: highest(a, n, True)),
    ]
    if n == 32:
        wide = f"{kind[0]}64"
        cases += [
            (f"mul.wide.{kind} {{d}}, {{a}}, {{b}};", two, wide, lambda a, b: a * b),
            (f"mad.wide.{kind} {{d}}, {{a}}, {{b}}, {{c}};", f"{two} {wide}", wide, lambda a, b, c: a * b + c),
        ]
    if kind[0] == "s":
        return [
            *cases,
            (f"abs.{kind} {{d}}, {{a}};", one, kind, abs),
            (f"neg.{kind} {{d}}, {{a}};", one, kind, lambda a: -a),
        ]
    return [
        *cases,
        (f"and.b{n} {{d}}, {{a}}, {{b}};", two, kind, lambda a, b: a & b),
        (f"or.b{n} {{d}}, {{a}}, {{b}};", two, kind, lambda a, b: a | b),
        (f"xor.b{n} {{d}}, {{a}}, {{b}};", two, kind, lambda a, b: a ^ b),
        (f"not.b{n} {{d}}, {{a}};", one, kind, lambda a: ~a),
        (f"cnot.b{n} {{d}}, {{a}};", one, kind, lambda a: int(a == 0)),
        (f"popc.b{n} {{d}}, {{a}};", one, "u32", lambda a: a.bit_count()),
        (f"clz.b{n} {{d}}, {{a}};", one, "u32", lambda a: leading_zeros(a, n)),
        (f"brev.b{n} {{d}}, {{a}};", one, kind, lambda a: int(f"{a:0{n}b}"[::-1], 2)),
        (f"bfi.b{n} {{d}}, {{a}}, {{b}}, {{c}}, {{e}};", f"{two} u32 u32", kind, lambda *v: inserted(*v, kind)),
    ]


def majority(a: int, b: int, c: int) -> int:
    return a & b | a & c | b & c


WORDS = "u32 u32 u32"
LOGIC_CASES: list[Case] = [
    ("lop3.b32 {d}, {a}, {b}, {c}, 0xE8;", WORDS, "u32", majority),
    ("lop3.b32 {d}, {a}, {b}, {c}, 0x96;", WORDS, "u32", lambda a, b, c: a ^ b ^ c),
    ("lop3.b32 {d}, {a}, {b}, {c}, 0x1A;", WORDS, "u32", lambda a, b, c: (a & b | c) ^ a),
    ("prmt.b32 {d}, {a}, {b}, {c};", WORDS, "u32", permuted),
    ("shf.l.wrap.b32 {d}, {a}, {b}, {c};", WORDS, "u32", lambda *v: shifted_pair(*v, True, False)),
    ("shf.r.wrap.b32 {d}, {a}, {b}, {c};", WORDS, "u32", lambda *v: shifted_pair(*v, False, False)),
    ("shf.l.clamp.b32 {d}, {a}, {b}, {c};", WORDS, "u32", lambda *v: shifted_pair(*v, True, True)),
    ("shf.r.clamp.b32 {d}, {a}, {b}, {c};", WORDS, "u32", lambda *v: shifted_pair(*v, False, True)),
    ("selp.b32 {d}, {a}, {b}, {c};", "u32 u32 pred", "u32", lambda a, b, p: a if p else b),
    ("slct.u32.s32 {d}, {a}, {b}, {c};", "u32 u32 s32", "u32", lambda a, b, c: a if c >= 0 else b),
    ("set.lt.u32.s32 {d}, {a}, {b};", "s32 s32", "u32", lambda a, b: -1 if a < b else 0),
    ("setp.lt.s32 {d}, {a}, {b};", "s32 s32", "pred", lambda a, b: int(a < b)),
    ("setp.lo.u32 {d}, {a}, {b};", "u32 u32", "pred", lambda a, b: int(a < b)),
    ("setp.ge.and.s64 {d}, {a}, {b}, {c};", "s64 s64 pred", "pred", lambda a, b, p: int(a >= b and p)),
    ("setp.eq.or.s64 {d}, {a}, {b}, !{c};", "s64 s64 pred", "pred", lambda a, b, p: int(a == b or not p)),
    ("setp.hs.xor.u64 {d}, {a}, {b}, {c};", "u64 u64 pred", "pred", lambda a, b, p: int((a >= b) != p)),
    ("{{ .reg .pred %other; setp.le.s32 %other|{d}, {a}, {b}; }}", "s32 s32", "pred", lambda a, b: int(a > b)),
    ("{{ .reg .b32 %high; mov.b64 {{_, %high}}, {a}; mov.b32 {d}, %high; }}", "u64", "u32", lambda a: a >> 32),
    ("mov.b64 {d}, {{{a}, {b}}};", "u32 u32", "u64", lambda a, b: a | b << 32),
    ("cvt.s64.s32 {d}, {a};", "s32", "s64", lambda a: a),
    ("cvt.u64.s32 {d}, {a};", "s32", "u64", lambda a: a),
    ("cvt.s8.s32 {d}, {a};", "s32", "s32", lambda a: wrap(a, "s8")),
    ("cvt.u16.u64 {d}, {a};", "u64", "u32", lambda a: wrap(a, "u16")),
    ("cvt.sat.s32.s64 {d}, {a};", "s64", "s32", lambda a: min(max(a, -(1 << 31)), (1 << 31) - 1)),
    ("cvt.sat.u32.s32 {d}, {a};", "s32", "u32", lambda a: max(a, 0)),
    # 96 bits of a sum, a difference and a product out of 32-bit words.
    ("add.cc.u32 {d}, {a}, {b}; addc.cc.u32 {d}, {a}, {c}; addc.u32 {d}, {b}, {c};", WORDS, "u32",
     lambda a, b, c: b + c + (a + c + (a + b >> 32) >> 32)),
    ("sub.cc.u32 {d}, {a}, {b}; subc.cc.u32 {d}, {a}, {c}; subc.u32 {d}, {b}, {c};", WORDS, "u32",
     lambda a, b, c: b - c - (a - c - (a < b) < 0)),
    ("mad.lo.cc.u32 {d}, {a}, {b}, {c}; madc.hi.cc.u32 {d}, {a}, {b}, {c}; addc.u32 {d}, {a}, 0;", WORDS, "u32",
     lambda a, b, c: a + ((a * b >> 32) + c + ((a * b % 2**32) + c >> 32) >> 32)),
]  # fmt: skip
ALL_INTEGER_CASES = [case for kind in ("s32", "u32", "s64", "u64") for case in integer_cases(kind)] + LOGIC_CASES


@pytest.mark.parametrize(("text", "kinds", "out", "function"), ALL_INTEGER_CASES, ids=[c[0] for c in ALL_INTEGER_CASES])
def test_integers(text: str, kinds: str, out: str, function: Callable[..., int]) -> None:
    n = 300
    inputs: list[Array] = []
    for seed, kind in enumerate(kinds.split()):
        if kind == "pred":
            inputs.append(np.random.default_rng(seed).integers(0, 2, n).astype(np.uint8))
            continue
        values = integers(kind, n, seed)
        if seed and kind == "u32" and text.startswith(("bfe", "bfi", "shl", "shr", "shf")):
            values = np.where(np.arange(n) % 3 > 0, values % np.uint32(70), values)
        inputs.append(values)
    got = apply(text, kinds.split(), out, *inputs)
    kind = "u8" if out == "pred" else out
    wanted = [wrap(function(*(int(v) for v in row)), kind) for row in zip(*inputs, strict=True)]
    assert got.tolist() == wanted


# Floats


def rounded(exact: Fraction, kind: str, mode: str) -> float:
    """An exact number, not 0, to a float type, straight from the definition of its numbers."""
    digits, smallest, largest = {"f32": (24, -149, 128), "f64": (53, -1074, 1024)}[kind]
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - digits + 1, smallest)
    down = size // unit
    rest = size / unit - down
    up = {
        "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and down % 2 == 1),
        "rz": False,
        "rm": rest > 0 and exact < 0,
        "rp": rest > 0 and exact > 0,
    }[mode]
    value = (down + up) * unit
    limit = Fraction(2) ** largest
    if value >= limit:
        inward = mode == "rz" or (mode == "rm" and exact > 0) or (mode == "rp" and exact < 0)
        number = float(limit - limit / 2**digits) if inward else math.inf
    else:
        number = float(value)
    return number if exact > 0 else -number


def same(got: Array, wanted: Sequence[float]) -> None:
    reference = np.array(wanted, got.dtype)
    both = np.isnan(got) & np.isnan(reference)
    equal = (got == reference) & (np.signbit(got) == np.signbit(reference)) | both
    assert equal.all(), f"{got[~equal][:3]} instead of {reference[~equal][:3]}"


def hard_triples(kind: str, n: int) -> tuple[Array, Array, Array]:
    """Factors and a summand: of all sizes, cancelling, and close to the middle between two numbers."""
    dtype = arithmetic.TYPES[kind]
    rng = np.random.default_rng(5)
    bits = 8 * dtype.itemsize
    any_bits = [rng.integers(0, 1 << 63, n, dtype=np.uint64) * np.uint64(2) + np.uint64(i) for i in range(3)]
    wild = [(one >> np.uint64(64 - bits)).astype(f"u{dtype.itemsize}").view(dtype) for one in any_bits]
    a, b, c = (rng.normal(size=n).astype(dtype) for _ in range(3))
    eps, quarter = np.finfo(dtype).eps, n // 4
    with np.errstate(all="ignore"):
        c[:quarter] = -(a * b)[:quarter] * (1 + rng.integers(-2, 3, quarter) * eps).astype(dtype)
        # (1 + k eps) (1 + l eps / 2^j) + c: half a unit and a little more or less.
        some = slice(quarter, 2 * quarter)
        a[some] = 1 + rng.integers(1, 4, quarter) * eps
        b[some] = (1 + rng.integers(1, 4, quarter) * eps) * 2.0 ** rng.integers(-30, -20, quarter)
        c[some] = 1 + rng.integers(0, 4, quarter) * eps
        tiny = slice(2 * quarter, 3 * quarter)
        half = np.finfo(dtype).minexp // 2 - 6
        a[tiny], b[tiny] = np.ldexp(a[tiny], half), np.ldexp(b[tiny], half)
        c[tiny] = np.ldexp(c[tiny], 2 * half + 5)
    out = tuple(np.concatenate([one, other]) for one, other in zip((a, b, c), wild, strict=True))
    zero = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan], dtype)
    grid = np.array(np.meshgrid(zero, zero, zero)).reshape(3, -1)
    first, second, third = (np.concatenate([one, special]) for one, special in zip(out, grid, strict=True))
    return first, second, third


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_fused_multiply_add_rounds_once(kind: str, mode: str) -> None:
    a, b, c = hard_triples(kind, 600)
    wanted = []
    for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True):
        if not all(map(math.isfinite, (x, y, z))):
            with np.errstate(all="ignore"):
                product = (
                    np.float64(x) * np.float64(y) if not (math.isfinite(x) and math.isfinite(y)) else np.float64(0)
                )
                wanted.append(float(product + np.float64(z)))
            continue
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        if exact:
            wanted.append(rounded(exact, kind, mode))
        else:
            signs = math.copysign(1, x) * math.copysign(1, y), math.copysign(1, z)
            zeros = x * y == 0 and z == 0
            alike = zeros and signs[0] == signs[1]
            wanted.append(math.copysign(0.0, signs[0]) if alike else -0.0 if mode == "rm" else 0.0)
    same(apply(f"fma.{mode}.{kind} {{d}}, {{a}}, {{b}}, {{c}};", [kind] * 3, kind, a, b, c), wanted)


@pytest.mark.parametrize("mode", ["", ".rz", ".rm", ".rp"])
@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_float_arithmetic(name: str, kind: str, mode: str) -> None:
    a, b, _ = hard_triples(kind, 300)
    keep = np.isfinite(a) & np.isfinite(b)
    a, b = a[keep], b[keep]
    wanted = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        exact = {"add": Fraction(x) + Fraction(y), "sub": Fraction(x) - Fraction(y), "mul": Fraction(x) * Fraction(y)}[
            name
        ]
        if exact:
            wanted.append(rounded(exact, kind, mode[1:] or "rn"))
        else:
            plain = {"add": x + y, "sub": x - y, "mul": x * y}[name]
            cancels = (
                name != "mul"
                and mode == ".rm"
                and (math.copysign(1, x), math.copysign(1, y)) != ((1, 1) if name == "add" else (1, -1))
            )
            wanted.append(-0.0 if cancels else math.copysign(0.0, plain))
    same(apply(f"{name}{mode}.{kind} {{d}}, {{a}}, {{b}};", [kind] * 2, kind, a, b), wanted)


def float_cases(kind: str) -> list[tuple[str, str, Callable[..., float]]]:
    def smaller(a: float, b: float) -> float:
        if math.isnan(a) or math.isnan(b):
            return b if math.isnan(a) else a
        return min(a, b, key=lambda v: (v, math.copysign(1, v)))

    def divided(a: float, b: float) -> float:
        with np.errstate(all="ignore"):
            return float(arithmetic.TYPES[kind].type(a) / arithmetic.TYPES[kind].type(b))

    def root(a: float) -> float:
        return math.nan if a < 0 else float(arithmetic.TYPES[kind].type(a) ** 0.5) if a != 0 else a

    return [
        (f"min.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind}", smaller),
        (f"max.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind}", lambda a, b: -smaller(-a, -b)),
        (f"abs.{kind} {{d}}, {{a}};", kind, abs),
        (f"neg.{kind} {{d}}, {{a}};", kind, lambda a: -a),
        (f"copysign.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind}", lambda a, b: math.copysign(b, a)),
        (f"div.rn.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind}", divided),
        (f"rcp.rn.{kind} {{d}}, {{a}};", kind, lambda a: divided(1.0, a)),
        (f"sqrt.rn.{kind} {{d}}, {{a}};", kind, root),
        (f"selp.{kind} {{d}}, {{a}}, {{b}}, {{c}};", f"{kind} {kind} pred", lambda a, b, p: a if p else b),
        (
            f"cvt.rni.{kind}.{kind} {{d}}, {{a}};",
            kind,
            lambda a: a if not math.isfinite(a) else math.copysign(round(a), a),
        ),
        (
            f"cvt.rzi.{kind}.{kind} {{d}}, {{a}};",
            kind,
            lambda a: a if not math.isfinite(a) else math.copysign(int(a), a),
        ),
        (f"cvt.sat.{kind}.{kind} {{d}}, {{a}};", kind, lambda a: 0.0 if math.isnan(a) or a <= 0 else min(a, 1.0)),
    ]


FLOAT_CASES = [case for kind in ("f32", "f64") for case in float_cases(kind)]


@pytest.mark.parametrize(("text", "kinds", "function"), FLOAT_CASES, ids=[case[0] for case in FLOAT_CASES])
def test_floats(text: str, kinds: str, function: Callable[..., float]) -> None:
    out = kinds.split()[0]
    inputs = [
        np.random.default_rng(seed).integers(0, 2, 200).astype(np.uint8) if kind == "pred" else floats(kind, 200, seed)
        for seed, kind in enumerate(kinds.split())
    ]
    same(
        apply(text, kinds.split(), out, *inputs),
        [function(*row) for row in zip(*(i.tolist() for i in inputs), strict=True)],
    )


RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_comparisons_of_floats(kind: str) -> None:
    a, b = floats(kind, 300, 1), floats(kind, 300, 2)
    b[::7] = a[::7]
    unordered = np.isnan(a) | np.isnan(b)
    assert unordered.any()
    for relation, holds in RELATIONS.items():
        wanted = np.array([holds(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)])
        for suffix, if_unordered in (("", False), ("u", True)):
            got = apply(f"setp.{relation}{suffix}.{kind} {{d}}, {{a}}, {{b}};", [kind] * 2, "pred", a, b)
            assert np.array_equal(got, np.where(unordered, if_unordered, wanted)), relation + suffix
    assert np.array_equal(apply(f"setp.nan.{kind} {{d}}, {{a}}, {{b}};", [kind] * 2, "pred", a, b), unordered)
    assert np.array_equal(apply(f"setp.num.{kind} {{d}}, {{a}}, {{b}};", [kind] * 2, "pred", a, b), ~unordered)
    tiny = {"f32": 2.0**-126, "f64": 2.0**-1022}[kind]
    wanted = np.array([math.isfinite(x) and abs(x) >= tiny for x in a.tolist()])
    assert np.array_equal(apply(f"testp.normal.{kind} {{d}}, {{a}};", [kind], "pred", a), wanted)
    wanted = np.array([0 < abs(x) < tiny for x in a.tolist()])
    assert np.array_equal(apply(f"testp.subnormal.{kind} {{d}}, {{a}};", [kind], "pred", a), wanted)


@pytest.mark.parametrize("mode", ["rni", "rzi", "rmi", "rpi"])
@pytest.mark.parametrize("out", ["s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_floats_to_integers(kind: str, out: str, mode: str) -> None:
    x = floats(kind, 200, 3)
    function = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}[mode]
    limits = np.iinfo(arithmetic.TYPES[out])
    wanted = []
    for value in x.tolist():
        if math.isnan(value):
            narrow = kind == "f32" and out[1:] == "32"
            wanted.append(0 if narrow else limits.min if out[0] == "s" else 1 << (int(out[1:]) - 1))
        else:
            number = function(value) if math.isfinite(value) else value
            wanted.append(int(min(max(number, limits.min), limits.max)))
    assert apply(f"cvt.{mode}.{out}.{kind} {{d}}, {{a}};", [kind], out, x).tolist() == wanted


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_conversions_to_floats(mode: str) -> None:
    for source in ("s32", "u32", "s64", "u64"):
        x = integers(source, 200, 4)
        for kind in ("f32", "f64"):
            wanted = [rounded(Fraction(value), kind, mode) if value else 0.0 for value in x.tolist()]
            same(apply(f"cvt.{mode}.{kind}.{source} {{d}}, {{a}};", [source], kind, x), wanted)
    a, _, _ = hard_triples("f64", 400)
    b = hard_triples("f32", 400)[2]
    b = b[np.isfinite(b)].astype(np.float64)
    x = np.concatenate([a, np.nextafter(b, 1.0), np.ldexp(b, -20)])
    x = x[np.isfinite(x) & (x != 0)]
    wanted = [rounded(Fraction(value), "f32", mode) for value in x.tolist()]
    same(apply(f"cvt.{mode}.f32.f64 {{d}}, {{a}};", ["f64"], "f32", x), wanted)


def test_approximations_are_as_close_as_the_manual_says() -> None:
    x = np.random.default_rng(0).uniform(0.01, 20, 500).astype(np.float32)
    for name, function in (("ex2", np.exp2), ("lg2", np.log2), ("rcp", np.reciprocal), ("sin", np.sin)):
        got = apply(f"{name}.approx.f32 {{d}}, {{a}};", ["f32"], "f32", x)
        assert np.allclose(got, function(x.astype(np.float64)), rtol=2e-7, atol=2e-7)
    wide = x.astype(np.float64)
    got = apply("rcp.approx.ftz.f64 {d}, {a};", ["f64"], "f64", wide)
    assert np.allclose(got, 1 / wide, rtol=2.0**-20, atol=0)
    assert not (got.view(np.uint64) & np.uint64(0xFFFFFFFF)).any()
    small = np.array([1e-40, -1e-40, 1.0], np.float32)
    same(apply("add.ftz.f32 {d}, {a}, {a};", ["f32"], "f32", small), [0.0, -0.0, 2.0])
    same(apply("add.f32 {d}, {a}, {a};", ["f32"], "f32", small), [float(2 * v) for v in small])
    same(apply("add.sat.f32 {d}, {a}, {a};", ["f32"], "f32", np.array([0.3, 0.7, -1], np.float32)), [0.6, 1.0, 0.0])


# Memory


def test_loads_and_stores_of_each_width_and_vector() -> None:
    data = integers("u64", 64, 9)
    body = """
    mul.wide.u32 %rd1, %r33, 16; add.s64 %rd2, %rd20, %rd1; add.s64 %rd3, %rd21, %rd1;
    ld.global.v2.u64 {%rd4, %rd5}, [%rd2]; st.global.v2.u64 [%rd3], {%rd5, %rd4};
    ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd3]; st.global.v4.u32 [%rd3], {%r4, %r3, %r2, %r1};
    ld.global.u16 %rs1, [%rd3+2]; ld.global.s8 %rs2, [%rd3+1]; ld.global.s8 %r5, [%rd3];
    add.s32 %r5, %r5, 1; st.global.u8 [%rd3], %r5; st.global.u16 [%rd3+14], %rs1; cvt.u32.u16 %r6, %rs2;
    st.global.u32 [%rd3+8], %r6;"""
    out = run_kernel(kernel(body, 2), "k", [data, np.zeros(64, np.uint64)])[1]
    wanted = b""
    for i in range(32):
        raw = data[2 * i : 2 * i + 2].tobytes()
        swapped = raw[8:] + raw[:8]
        mirrored = bytearray(b"".join(swapped[j : j + 4] for j in (12, 8, 4, 0)))
        half, byte = mirrored[2:4], int.from_bytes(mirrored[1:2], signed=True)
        mirrored[0] = (mirrored[0] + 1) % 256
        mirrored[14:16] = half
        mirrored[8:12] = struct.pack("<I", byte % (1 << 16))
        wanted += bytes(mirrored)
    assert out.tobytes() == wanted


def test_shared_local_constant_and_generic_addresses() -> None:
    outside = ".shared .align 8 .b8 block_words[512];\n.const .align 4 .b8 table[8] = {1, 0, 0, 0, 7, 0, 0, 0};\n"
    outside += ".extern .shared .align 16 .b8 more[];"
    body = """
    .local .align 8 .b8 own[32]; .reg .b64 %SP;
    mov.u64 %SP, own; cvta.local.u64 %SP, %SP;
    st.u32 [%SP+4], %r33; ld.local.u32 %r1, [own+4];
    mov.u32 %r2, block_words; shl.b32 %r3, %r30, 2; add.s32 %r4, %r2, %r3; st.shared.u32 [%r4], %r1;
    mov.u64 %rd1, more; cvta.shared.u64 %rd2, %rd1; mul.wide.u32 %rd3, %r30, 4; add.s64 %rd4, %rd2, %rd3;
    mul.lo.s32 %r5, %r33, 10; st.u32 [%rd4], %r5;
    bar.sync 0;
    xor.b32 %r6, %r30, 1; shl.b32 %r6, %r6, 2; add.s32 %r7, %r2, %r6; ld.shared.u32 %r8, [%r7];
    mov.u64 %rd5, more; cvt.u64.u32 %rd6, %r6; add.s64 %rd5, %rd5, %rd6; ld.shared.u32 %r9, [%rd5];
    and.b32 %r10, %r30, 1; mul.wide.u32 %rd7, %r10, 4; mov.u64 %rd8, table; add.s64 %rd8, %rd8, %rd7;
    ld.const.u32 %r11, [%rd8]; add.s32 %r8, %r8, %r9; add.s32 %r8, %r8, %r11;
    mul.wide.u32 %rd9, %r33, 4; add.s64 %rd10, %rd20, %rd9;
    setp.lt.u32 %p1, %r30, 5; selp.b64 %rd11, %rd2, %rd10, %p1; st.u32 [%rd11], %r8;
    isspacep.shared %p2, %rd11; selp.u32 %r12, 1000, 0, %p2; add.s32 %r8, %r8, %r12; st.global.u32 [%rd10], %r8;"""
    out = run_kernel(kernel(body, 1, outside), "k", [np.zeros(256, np.uint32)], grid=2, block=128, dynamic=512)[0]
    i = np.arange(256)
    assert np.array_equal(out, 11 * (i ^ 1) + np.where(i % 2, 7, 1) + np.where(i % 128 < 5, 1000, 0))


def test_faults_are_named() -> None:
    store = "mul.wide.u32 %rd1, %r33, 4; add.s64 %rd2, %rd20, %rd1; st.global.u32 [%rd2{}], %r33;"
    with pytest.raises(MemoryAccessError, match=r"k, line \d+: 4 bytes of device memory .*outside.*thread 31"):
        run_kernel(kernel(store.format(""), 1), "k", [np.zeros(31, np.uint32)])
    with pytest.raises(MemoryAccessError, match=r"not aligned, by thread 0"):
        run_kernel(kernel(store.format("+2"), 1), "k", [np.zeros(40, np.uint32)])
    body = "mul.lo.s32 %r1, %r30, 16; st.shared.u32 [%r1], %r1;"
    with pytest.raises(MemoryAccessError, match=r"shared memory at 0x10, outside.*thread 1"):
        run_kernel(kernel(body, 1, ".shared .align 4 .b8 s[16];"), "k", [np.zeros(1, np.uint32)])
    with pytest.raises(MemoryAccessError, match=r"device memory at 0x0"):
        run_kernel(kernel("mov.u64 %rd1, 0; ld.u32 %r1, [%rd1];", 1), "k", [np.zeros(1, np.uint32)])


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("add", lambda old, b: old + b),
        ("min", min),
        ("max", max),
        ("and", lambda old, b: old & b),
        ("or", lambda old, b: old | b),
        ("xor", lambda old, b: old ^ b),
        ("exch", lambda old, b: b),
        ("inc", lambda old, b: 0 if old >= b else old + 1),
        ("dec", lambda old, b: b if old == 0 or old > b else old - 1),
    ],
)
def test_atomics_happen_one_after_another(name: str, operation: Callable[[int, int], int]) -> None:
    kind = "b32" if name in ("and", "or", "xor", "exch") else "u32"
    place, value = np.random.default_rng(1).integers(0, 5, 96).astype(np.uint32), integers("u32", 96, 2)
    body = f"""
    mul.wide.u32 %rd1, %r33, 4; add.s64 %rd2, %rd21, %rd1; ld.global.u32 %r1, [%rd2];
    add.s64 %rd3, %rd22, %rd1; ld.global.u32 %r2, [%rd3]; mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd20, %rd4;
    atom.global.{name}.{kind} %r3, [%rd5], %r2; st.global.u32 [%rd3], %r3;
    add.s64 %rd5, %rd5, 32; red.global.{name}.{kind} [%rd5], %r2;"""
    if name == "exch":
        body = (
            body.replace("red.", "atom.").replace("[%rd5], %r2;", "%r9, [%rd5], %r2;", 2).replace("%r3, %r9,", "%r3,")
        )
    start = np.arange(3, 19, dtype=np.uint32)
    cells, _, old = run_kernel(kernel(body, 3), "k", [start, place, value], block=96)
    memory, seen = start.tolist(), []
    for at, v in zip(place.tolist(), value.tolist(), strict=True):
        seen.append(memory[at])
        for shifted in (at, at + 8):
            memory[shifted] = operation(memory[shifted], v) % (1 << 32)
    assert cells.tolist() == memory
    assert old.tolist() == seen


def test_compare_and_swap() -> None:
    body = """
    AGAIN: ld.volatile.global.f64 %fd1, [%rd20]; add.f64 %fd2, %fd1, 0d3FF0000000000000;
    mov.b64 %rd1, %fd1; mov.b64 %rd2, %fd2; atom.global.cas.b64 %rd3, [%rd20], %rd1, %rd2;
    setp.ne.s64 %p1, %rd3, %rd1; @%p1 bra AGAIN;"""
    assert run_kernel(kernel(body, 1), "k", [np.array([0.5])], grid=2, block=48)[0].tolist() == [96.5]


# Ways through the code


STORE = "mul.wide.u32 %rd1, %r33, 4; add.s64 %rd2, %rd20, %rd1; st.global.u32 [%rd2], %r1;"


def test_loops_whose_length_differs() -> None:
    body = f"""
    mov.u32 %r1, 0; mov.u32 %r2, %r33;
    LOOP: setp.eq.u32 %p1, %r2, 1; @%p1 bra OUT; setp.eq.u32 %p1, %r2, 0; @%p1 bra OUT;
    and.b32 %r3, %r2, 1; setp.eq.u32 %p2, %r3, 0; @%p2 bra EVEN;
    mad.lo.u32 %r2, %r2, 3, 1; bra NEXT;
    EVEN: shr.u32 %r2, %r2, 1;
    NEXT: add.u32 %r1, %r1, 1; bra.uni LOOP;
    OUT: {STORE}"""
    out = run_kernel(kernel(body, 1), "k", [np.zeros(200, np.uint32)], grid=2, block=100)[0]

    def steps(n: int) -> int:
        count = 0
        while n > 1:
            n, count = (3 * n + 1 if n % 2 else n // 2), count + 1
        return count

    assert out.tolist() == [steps(i) for i in range(200)]


def test_tables_of_branches_and_guards() -> None:
    body = f"""
    ts: .branchtargets L0, L1, L2;
    mov.u32 %r1, 5; and.b32 %r2, %r33, 3; setp.eq.u32 %p1, %r2, 3; @%p1 bra END;
    brx.idx %r2, ts;
    L2: add.u32 %r1, %r1, 100; bra END;
    L0: add.u32 %r1, %r1, 1;
    L1: add.u32 %r1, %r1, 10;
    END: setp.gt.u32 %p2, %r33, 20; @!%p2 add.u32 %r1, %r1, 1000; {STORE}"""
    out = run_kernel(kernel(body, 1), "k", [np.zeros(32, np.uint32)])[0]
    assert out.tolist() == [5 + (11, 10, 100, 0)[i % 4] + (1000 if i <= 20 else 0) for i in range(32)]


def test_functions_are_called_and_return_early() -> None:
    outside = """
    .func (.param .b32 back) twice(.param .b32 p, .param .align 4 .b8 q[8])
    { .reg .b32 %r<9>; .reg .pred %p<3>; .local .align 4 .b8 tmp[4];
      ld.param.u32 %r1, [p]; ld.param.u32 %r2, [q+4]; st.local.u32 [tmp], %r1; ld.local.u32 %r4, [tmp];
      setp.lt.u32 %p1, %r1, 10; mov.u32 %r3, 77; st.param.b32 [back+0], %r3; @%p1 ret;
      mad.lo.u32 %r3, %r4, 2, %r2; st.param.b32 [back+0], %r3; ret; }
    .func (.param .b32 back) outer(.param .b32 p)
    { .reg .b32 %r<9>; ld.param.u32 %r1, [p];
      { .param .b32 x; st.param.b32 [x], %r1; .param .align 4 .b8 y[8]; st.param.b32 [y+4], 3; .param .b32 z;
        call.uni (z), twice, (x, y); ld.param.b32 %r2, [z]; }
      st.param.b32 [back], %r2; ret; }"""
    body = f"""
    mov.u32 %r1, 1; setp.eq.u32 %p3, %r33, 30;
    {{ .param .b32 x; st.param.b32 [x], %r33; .param .b32 z;
      @!%p3 call (z), outer, (x); ld.param.b32 %r1, [z]; }}
    {STORE}"""
    out = run_kernel(kernel(body, 1, outside), "k", [np.zeros(32, np.uint32)])[0]
    assert out[:30].tolist() == [77 if i < 10 else 2 * i + 3 for i in range(30)]
    assert out[31] == 65


def test_barriers_wait_for_the_block_but_not_for_threads_that_ended() -> None:
    body = f"""
    .shared .align 4 .b8 s[512]; mov.u32 %r1, 0; shl.b32 %r2, %r30, 2; st.shared.u32 [%r2], %r1;
    bar.sync 0; setp.lt.u32 %p1, %r30, 40; @%p1 ret;
    setp.lt.u32 %p2, %r30, 70; @%p2 bra FEW;
    st.shared.u32 [%r2], %r30; bar.sync 0; bra JOIN;
    FEW: mul.lo.u32 %r3, %r30, 2; st.shared.u32 [%r2], %r3; bar.sync 0;
    JOIN: mov.u32 %r4, 99; sub.u32 %r4, %r4, %r30; max.u32 %r4, %r4, 40; shl.b32 %r4, %r4, 2; ld.shared.u32 %r1, [%r4];
    {STORE}"""
    out = run_kernel(kernel(body, 1), "k", [np.zeros(300, np.uint32)], grid=3, block=100)[0]
    mirror = np.maximum(99 - np.arange(100), 40)
    one = np.where(np.arange(100) < 40, 0, np.where(mirror < 70, 2 * mirror, mirror))
    assert np.array_equal(out, np.tile(one, 3))


def test_barriers_with_a_count_and_with_a_reduction() -> None:
    body = f"""
    setp.lt.u32 %p1, %r30, 64; @%p1 bra HALF;
    mov.u32 %r1, 7; bra END;
    HALF: bar.sync 1, 64; setp.lt.u32 %p2, %r30, 10; bar.red.popc.u32 %r1, 2, 64, %p2;
    END: setp.lt.u32 %p2, %r30, 100; bar.red.and.pred %p3, 0, %p2; bar.red.or.pred %p4, 0, %p2;
    selp.u32 %r2, 100, 0, %p3; selp.u32 %r3, 1000, 0, %p4; add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; {STORE}"""
    out = run_kernel(kernel(body, 1), "k", [np.zeros(200, np.uint32)], grid=2, block=100)[0]
    assert np.array_equal(out, np.tile(np.where(np.arange(100) < 64, 1110, 1107), 2))


def test_waiting_for_ever_is_reported() -> None:
    body = """
    setp.lt.u32 %p1, %r30, 5; @%p1 bra SKIP;
    shfl.sync.bfly.b32 %r1, %r30, 1, 31, -1; bra END;
    SKIP: bar.sync 0;
    END: mov.u32 %r1, 0;"""
    with pytest.raises(StuckError, match=r"waiting for ever at line \d+: threads 5-31; line \d+: threads 0-4"):
        run_kernel(kernel(body, 1), "k", [np.zeros(1, np.uint32)])
    body = "setp.lt.u32 %p1, %r30, 5; @%p1 bra END; bar.warp.sync 15; END: mov.u32 %r1, 0;"
    with pytest.raises(StuckError, match="outside of their mask"):
        run_kernel(kernel(body, 1), "k", [np.zeros(1, np.uint32)])
    with pytest.raises(TrapError):
        run_kernel(kernel("trap;", 1), "k", [np.zeros(1, np.uint32)])


def test_a_thread_in_a_loop_does_not_keep_another_from_coming() -> None:
    body = f"""
    mov.u32 %r1, 1; setp.ne.u32 %p1, %r30, 9; @!%p1 bra GIVE;
    SPIN: ld.volatile.global.u32 %r1, [%rd20]; setp.eq.u32 %p2, %r1, 0; @%p2 bra SPIN;
    bra END;
    GIVE: mov.u32 %r1, 5; st.volatile.global.u32 [%rd20], %r1;
    END: {STORE.replace("%rd20", "%rd21")}"""
    out = run_kernel(kernel(body, 2), "k", [np.zeros(1, np.uint32), np.zeros(32, np.uint32)])[1]
    assert (out == 5).all()


def test_what_is_not_known_is_named() -> None:
    never = "setp.gt.u32 %p1, %r33, 99; @%p1 bra THERE; ret; THERE: "
    for instruction in ("tanh.approx.bf16 %rs1, %rs2;", "mma.sync.m8n8k4 %r1, %r2;", "add.rna.f32 %f1, %f2, %f3;"):
        opcode = instruction.split()[0]
        with pytest.raises(UnsupportedInstructionError, match=rf"line \d+: {opcode}"):
            run_kernel(kernel(instruction, 1), "k", [np.zeros(1, np.uint32)])
        # As long as no thread comes to it, it does no harm.
        run_kernel(kernel(never + instruction, 1), "k", [np.zeros(1, np.uint32)])
    with pytest.raises(UnsupportedInstructionError, match="call elsewhere"):
        run_kernel(kernel("call elsewhere, ();", 1), "k", [np.zeros(1, np.uint32)])


# Warps


def shuffled(mode: str, lane: int, by: int, width: int) -> tuple[int, bool]:
    """As the CUDA guide describes it: within groups of ``width`` lanes."""
    first = lane // width * width
    target = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": first + by % width}[mode]
    inside = {"up": target >= first, "down": target < first + width, "bfly": target < first + width, "idx": True}[mode]
    return (target, True) if inside else (lane, False)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width", [32, 16, 4])
def test_shuffles(mode: str, width: int) -> None:
    for by in (0, 1, 3, 9, 31):
        packed = (32 - width) << 8 | (0 if mode == "up" else 31)
        body = f"shfl.sync.{mode}.b32 %r1|%p1, %r33, {by}, {packed}, -1; @!%p1 add.u32 %r1, %r1, 1000; {STORE}"
        out = run_kernel(kernel(body, 1), "k", [np.zeros(64, np.uint32)], block=64)[0]
        wanted = []
        for i in range(64):
            target, inside = shuffled(mode, i % 32, by, width)
            wanted.append(i // 32 * 32 + target + (0 if inside else 1000))
        assert out.tolist() == wanted


def test_parts_of_a_warp_act_on_their_own() -> None:
    """Two halves of each warp, each in its own branch and with its own mask, and the last warp is not whole."""
    values = integers("u32", 80, 3) % np.uint32(5)
    body = f"""
    mul.wide.u32 %rd1, %r33, 4; add.s64 %rd2, %rd21, %rd1; ld.global.u32 %r5, [%rd2]; mov.u32 %r9, %laneid;
    setp.gt.u32 %p2, %r5, 2; setp.lt.u32 %p1, %r9, 12; @%p1 bra LOW;
    vote.sync.ballot.b32 %r1, %p2, 0xfffff000; match.any.sync.b32 %r2, %r5, 0xfffff000; bra END;
    LOW: vote.sync.ballot.b32 %r1, %p2, 0xfff; match.any.sync.b32 %r2, %r5, 0xfff;
    vote.sync.any.pred %p3, %p2, 0xfff; vote.sync.all.pred %p4, %p2, 0xfff; selp.u32 %r3, 1, 0, %p3;
    selp.u32 %r4, 2, 0, %p4; add.u32 %r1, %r1, %r3; add.u32 %r1, %r1, %r4;
    END: bar.warp.sync -1; {STORE} add.s64 %rd2, %rd2, 320; st.global.u32 [%rd2], %r2;"""
    out = run_kernel(kernel(body, 2), "k", [np.zeros(160, np.uint32), values], block=80)[0]
    for i in range(80):
        base = i // 32 * 32
        partners = range(base, base + 12) if i % 32 < 12 else range(base + 12, min(base + 32, 80))
        ballot = sum(1 << j % 32 for j in partners if values[j] > 2)
        if i % 32 < 12:
            ballot += (1 if ballot else 0) + (2 if all(values[j] > 2 for j in partners) else 0)
        assert out[i] == ballot % (1 << 32)
        assert out[80 + i] == sum(1 << j % 32 for j in partners if values[j] == values[i])


@pytest.mark.parametrize(("name", "function"), [("add", sum), ("min", min), ("max", max)])
def test_reductions_of_a_warp(name: str, function: Callable[[list[int]], int]) -> None:
    values = integers("s32", 64, 8)
    body = f"""
    mul.wide.u32 %rd1, %r33, 4; add.s64 %rd2, %rd21, %rd1; ld.global.u32 %r5, [%rd2];
    redux.sync.{name}.s32 %r1, %r5, -1; {STORE}"""
    out = run_kernel(kernel(body, 2), "k", [np.zeros(64, np.int32), values], block=64)[0]
    for warp in range(2):
        wanted = wrap(function(values[32 * warp : 32 * warp + 32].tolist()), "s32")
        assert (out[32 * warp : 32 * warp + 32] == wanted).all()


def test_blocks_and_threads_in_three_dimensions() -> None:
    body = """
    mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z; mov.u32 %r3, %ntid.y; mov.u32 %r4, %ctaid.y; mov.u32 %r5, %nctaid.x;
    mov.u32 %r6, %ctaid.z; mov.u32 %r7, %nctaid.y;
    mad.lo.s32 %r2, %r2, %r3, %r1; mad.lo.s32 %r2, %r2, %r32, %r30;
    mad.lo.s32 %r6, %r6, %r7, %r4; mad.lo.s32 %r6, %r6, %r5, %r31; mov.u32 %r8, %ntid.z; mul.lo.s32 %r8, %r8, %r3;
    mul.lo.s32 %r8, %r8, %r32; mad.lo.s32 %r6, %r6, %r8, %r2; mul.wide.u32 %rd1, %r6, 4; add.s64 %rd2, %rd20, %rd1;
    ld.global.u32 %r9, [%rd2]; add.s32 %r9, %r9, %r6; st.global.u32 [%rd2], %r9;"""
    out = run_kernel(
        kernel(body, 1), "k", [np.zeros(7 * 2 * 3 * 5 * 2 * 3, np.uint32)], grid=(7, 2, 3), block=(5, 2, 3)
    )[0]
    assert np.array_equal(out, np.arange(len(out)))
