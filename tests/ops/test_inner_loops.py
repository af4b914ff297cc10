"""The instructions of the innermost CPU loops, in the extension that was built.

The speed of all pairwise kernels is that of one loop of multiply-adds, of floats or of bytes. What made it slow was
seen in its instructions only: a broadcast from a register, on the port of the products, where one from memory is free;
sums that were copied from register to register in every step.
"""

from __future__ import annotations

import functools
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

_cpu = pytest.importorskip("egtmetrics.ops._cpu")
OBJDUMP = shutil.which("objdump")
pytestmark = pytest.mark.skipif(
    OBJDUMP is None or platform.machine() not in ("x86_64", "AMD64"), reason="needs objdump and an x86-64 machine"
)

FLOATS, BYTES = r"vfn?m\w+ps\b", r"vpdpbusd\b"
PRODUCTS = {
    ("distances", "ymm"): (6 * 2, FLOATS),
    ("distances", "zmm"): (12 * 2, FLOATS),
    ("rounded_distances", "zmm"): (8 * 2, BYTES),
    ("weigh", "ymm"): (8, FLOATS),
    ("weigh", "zmm"): (8, FLOATS),
}
"""The multiply-adds of a step, by function and register: rows times vectors of columns (tile_avx2.cpp,
tile_avx512.cpp), and the vectors of replicates that are summed together (tile_body.hpp)."""
LOOPS = {
    ("distances", "ymm"): 1,
    ("distances", "zmm"): 2,
    ("rounded_distances", "zmm"): 1,
    ("weigh", "ymm"): 2,
    ("weigh", "zmm"): 4,
}
"""avx2 has ymm; avx512 and avx512-vnni have zmm, the latter multiplies bytes. weigh is for bytes and for float32."""


def innermost_loops(listing: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the function and the instructions of every loop that holds no other, from what objdump prints."""
    for text in re.split(r"^[0-9a-f]+ <(?=.*>:$)", listing, flags=re.MULTILINE)[1:]:
        name, _, body = text.partition(">:\n")
        lines = re.findall(r"^\s+([0-9a-f]+):\s+([^#\n]*\S)", body, flags=re.MULTILINE)
        position = {int(address, 16): i for i, (address, _) in enumerate(lines)}
        jumps = ((i, re.match(r"j\w+\s+([0-9a-f]+)", text)) for i, (_, text) in enumerate(lines))
        starts = ((position.get(int(jump[1], 16), i + 1), i) for i, jump in jumps if jump)
        loops = [(start, end) for start, end in starts if start <= end]
        for start, end in loops:
            if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in loops):
                yield name, [text for _, text in lines[start : end + 1]]


@functools.cache
def loops() -> list[tuple[str, list[str]]]:
    """Return function and instructions of all innermost loops."""
    assert OBJDUMP is not None
    command = [OBJDUMP, "--disassemble", "--no-show-raw-insn", "--demangle", _cpu.__file__]
    return list(innermost_loops(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


@pytest.mark.parametrize(("function", "register"), sorted(PRODUCTS))
def test_a_step_is_products_loads_and_broadcasts_from_memory(function: str, register: str) -> None:
    n_products, kind = PRODUCTS[function, register]
    of_function = [body for name, body in loops() if f"::{function}" in name]
    counted = [(body, sum(bool(re.match(f"{kind}.*%{register}", text)) for text in body)) for body in of_function]
    bodies = [(body, n_found) for body, n_found in counted if n_found >= n_products]
    assert len(bodies) == LOOPS[function, register]
    for body, n_found in bodies:
        assert n_found % n_products == 0
        assert not [text for text in body if re.match(r"v(add|sub|mul|mov\w*\s+%)", text)], "work beside the products"
        assert not [text for text in body if re.match(r"v(p?broadcast|perm|shuf)\w*\s+%", text)], "a broadcast"
        assert not [text for text in body if re.search(r"\(%rsp\)", text)], "a register is kept in memory"


def test_loops_are_found_in_a_listing() -> None:
    listing = """
0000000000001000 <f(int)>:
    1000:\tvmovups (%rdi),%zmm0
    1004:\tvaddps %zmm1,%zmm0,%zmm0
    1008:\tjne    1004 <f(int)+0x4>
    100a:\tjmp    1000 <f(int)>

0000000000001010 <g()>:
    1010:\tje     1012 <g()+0x2>
    1012:\tret
"""
    assert list(innermost_loops(listing)) == [("f(int)", ["vaddps %zmm1,%zmm0,%zmm0", "jne    1004 <f(int)+0x4>"])]
