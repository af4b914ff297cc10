"""Runs PTX: the lanes of NumPy arrays are the threads of some blocks.

A kernel is decoded into segments, straight pieces of code that end where threads may part or must meet. Of the
threads that can go on, those at the earliest segment go first, all at once under a mask; so threads that parted meet
again where their paths join. Those that wait at a barrier or for the rest of their warp go on when all are there.

Functions are inlined. Everything that is not known here raises UnsupportedInstructionError when a thread gets to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.ptx import arithmetic as ar
from tests.ptx.arithmetic import TYPES, Lanes, unsigned
from tests.ptx.memory import (
    LOCAL_WINDOW,
    PARAMETER_WINDOW,
    SHARED_WINDOW,
    WINDOW_SHIFT,
    DeviceMemory,
    Indices,
    MemoryAccessError,
    OwnedMemory,
    ParameterMemory,
    Space,
)
from tests.ptx.parser import (
    Address,
    Function,
    Instruction,
    Module,
    Negated,
    Number,
    Operand,
    Register,
    Several,
    Symbol,
    Variable,
    number_bits,
)

Mask: TypeAlias = NDArray[np.bool_]
Step: TypeAlias = Callable[["Run", Mask | None], None]
Reader: TypeAlias = Callable[[list[Lanes]], Lanes]
Dim: TypeAlias = tuple[int, int, int]

MODULE_VARIABLES = 1 << 52  # where the module's own variables lie
WARP = 32
LANES_AT_ONCE = 1024
MAX_INSTRUCTIONS = 2_000_000

# Words of an opcode that change nothing here: there is one memory, and it is never stale.
IGNORED = {
    "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "volatile", "relaxed", "acquire", "release", "acq_rel", "weak",
    "cta", "gpu", "sys", "cluster", "uni", "aligned", "L1::evict_last", "L1::evict_first", "L1::no_allocate",
    "L1::evict_normal", "L2::64B", "L2::128B", "L2::256B", "L2::cache_hint",
}  # fmt: skip


class UnsupportedInstructionError(Exception):
    """An instruction, or a use of one, that this interpreter does not know."""

    def __init__(self, opcode: str, line: int, why: str = "") -> None:
        super().__init__(f"line {line}: {opcode}" + (f" ({why})" if why else ""))
        self.opcode, self.line = opcode, line


class StuckError(Exception):
    """No thread can continue, or they never end."""


class TrapError(Exception):
    """The kernel ran into ``trap``."""


class _Words:
    """The parts of an opcode, taken one after another; what is left at the end is unknown."""

    def __init__(self, instruction: Instruction) -> None:
        self.instruction = instruction
        self.base, *words = instruction.opcode.split(".")
        self.types = [word for word in words if word in TYPES]
        self.rest = [word for word in words if word not in TYPES and word not in IGNORED]

    def flag(self, word: str) -> bool:
        if word not in self.rest:
            return False
        self.rest.remove(word)
        return True

    def choose(self, options: Sequence[str], default: str | None = None) -> str:
        for word in self.rest:
            if word in options:
                self.rest.remove(word)
                return word
        if default is None:
            raise self.unsupported(f"none of {', '.join(options)}")
        return default

    def unsupported(self, why: str = "") -> UnsupportedInstructionError:
        return UnsupportedInstructionError(self.instruction.opcode, self.instruction.line, why)


@dataclass
class Pure:
    """Instructions from registers to registers: most of them."""

    compute: Callable[..., Lanes | tuple[Lanes, ...]]
    types: Sequence[np.dtype[Any]]
    sources: Sequence[Operand]
    result_types: Sequence[np.dtype[Any]]
    results: Sequence[Operand]


@dataclass
class Segment:
    line: int
    steps: list[Step] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    # Where the threads go: called with those that got to the end.
    end: Callable[[Run, Mask], None] | None = None


class Run:
    """Some blocks that run together."""

    def __init__(
        self,
        program: Program,
        device: DeviceMemory,
        grid: Dim,
        block: Dim,
        blocks: range,
        dynamic: int,
        arguments: bytes,
    ) -> None:
        threads = block[0] * block[1] * block[2]
        self.per_block = -(-threads // WARP) * WARP
        self.n_blocks = len(blocks)
        self.width = self.n_blocks * self.per_block
        lane = np.arange(self.width, dtype=np.int64)
        thread, self.block_of = lane % self.per_block, lane // self.per_block
        number = self.block_of + blocks.start
        self.every = lane
        self.full = np.ones(self.width, np.bool_)
        self.alive = thread < threads
        self.program = program
        self.device = device
        self.dynamic = dynamic
        self.spaces: dict[str, Space] = {
            "global": device,
            "shared": OwnedMemory("shared", self.block_of, program.static_shared + dynamic),
            "local": OwnedMemory("local", lane, program.local_size),
            "param": ParameterMemory(arguments),
        }
        self.spaces["const"] = device
        special = {
            "laneid": thread % WARP,
            "warpid": thread // WARP,
            "nwarpid": 0 * lane + self.per_block // WARP,
            "dynamic_smem_size": 0 * lane + dynamic,
            "total_smem_size": 0 * lane + program.static_shared + dynamic,
        }
        for name, index, extents in (("tid", thread, block), ("ctaid", number, grid)):
            special[f"{name}.x"] = index % extents[0]
            special[f"{name}.y"] = index // extents[0] % extents[1]
            special[f"{name}.z"] = index // (extents[0] * extents[1])
            for axis, extent in zip("xyz", extents, strict=True):
                special[f"n{name}.{axis}"] = 0 * lane + extent
        one = np.uint64(1) << (thread % WARP).astype(np.uint64)
        for name, bits in (
            ("eq", one),
            ("lt", one - 1),
            ("le", 2 * one - 1),
            ("gt", ~(2 * one - 1)),
            ("ge", ~(one - 1)),
        ):
            special[f"lanemask_{name}"] = (bits & np.uint64(0xFFFFFFFF)).astype(np.int64)
        self.registers: list[Lanes] = [np.zeros(self.width, dtype) for dtype in program.dtypes]
        for slot, kind, what in program.constants:
            dtype = program.dtypes[slot]
            if kind == "special":
                if what not in special:
                    raise UnsupportedInstructionError(f"%{what}", 0, "special register")
                self.registers[slot] = special[what].astype(dtype)
            elif kind == "argument":
                data = arguments[what : what + dtype.itemsize]
                self.registers[slot] = np.full(self.width, np.frombuffer(data, dtype)[0])
            else:
                value = np.array(what % (1 << (8 * dtype.itemsize)), unsigned(dtype)).view(dtype)
                self.registers[slot] = np.full(self.width, value)
        self.runnable: dict[int, Mask] = {}
        self.waiting: dict[int, Mask] = {}
        self.n_executed = 0

    def push(self, segment: int, mask: Mask) -> None:
        if segment in self.runnable:
            mask = self.runnable[segment] | mask
            if mask.all():
                mask = self.full
        self.runnable[segment] = mask

    def write(self, slot: int, value: Lanes, mask: Mask | None) -> None:
        self.registers[slot] = value if mask is None else np.where(mask, value, self.registers[slot])

    def lanes(self, mask: Mask | None) -> Indices:
        return self.every if mask is None else np.flatnonzero(mask)

    def go(self) -> None:
        segments = self.program.segments
        self.push(0, self.full if self.alive.all() else self.alive.copy())
        turn = 0
        while True:
            if not self.runnable:
                self.meet_again()
                if not self.runnable:
                    return
            # Now and then the last ones, or a thread that waits for another in a loop would keep it from coming.
            turn += 1
            index = max(self.runnable) if turn % 512 == 0 else min(self.runnable)
            mask = self.runnable.pop(index)
            segment = segments[index]
            self.n_executed += len(segment.steps) + 1
            if self.n_executed > MAX_INSTRUCTIONS:
                raise StuckError(f"more than {MAX_INSTRUCTIONS} instructions, now at line {segment.line}")
            active = None if mask is self.full else mask
            position = 0
            try:
                for position, step in enumerate(segment.steps):  # noqa: B007
                    step(self, active)
            except MemoryAccessError as fault:
                raise MemoryAccessError(f"{self.program.name}, line {segment.lines[position]}: {fault}") from None
            if segment.end is None:
                self.push(index + 1, mask)
            else:
                segment.end(self, mask)

    def meet_again(self) -> None:
        """Threads that ended are not waited for."""
        for index in sorted(self.waiting):
            segment = self.program.segments[index]
            assert segment.end is not None
            mask = self.waiting.pop(index, None)
            if mask is not None:
                segment.end(self, mask)
        if self.waiting and not self.runnable:
            places = [
                f"line {self.program.segments[index].lines[-1]}: threads {_ranges(np.flatnonzero(mask))}"
                for index, mask in sorted(self.waiting.items())
            ]
            raise StuckError(f"{self.program.name}: waiting for ever at " + "; ".join(places))

    def whole_warps(self, index: int, mask: Mask, members: Lanes) -> Mask | None:
        """Of the threads at a collective those whose partners are there; the others are put to wait."""
        mask = mask | self.waiting.pop(index) if index in self.waiting else mask
        if mask.all():
            return self.full
        own = np.uint32(1) << (self.every % WARP).astype(np.uint32)
        outside = mask & (members & own == 0)
        if outside.any():
            line = self.program.segments[index].lines[-1]
            raise StuckError(f"{self.program.name}, line {line}: threads outside of their mask")
        absent = members & np.repeat(_warp_bits(self.alive) & ~_warp_bits(mask), WARP)
        ready = mask & (absent == 0)
        rest = mask & ~ready
        if rest.any():
            self.waiting[index] = rest
        return ready if ready.any() else None

    def whole_blocks(self, barrier: int, counts: Lanes | None) -> list[tuple[int, Mask]]:
        """Of all threads at a barrier those whose block is complete."""
        places = [index for index in self.waiting if self.program.barriers.get(index) == barrier]
        arrived = np.zeros(self.width, np.bool_)
        for index in places:
            arrived |= self.waiting[index]
        shape = (self.n_blocks, self.per_block)
        n_arrived = arrived.reshape(shape).sum(1)
        if counts is None:
            wanted = self.alive.reshape(shape).sum(1)
        else:
            wanted = np.where(arrived, counts, 0).reshape(shape).max(1)
        complete = np.repeat((n_arrived >= wanted) & (n_arrived > 0), self.per_block)
        released = []
        for index in places:
            mask = self.waiting[index]
            go, stay = mask & complete, mask & ~complete
            if go.any():
                released.append((index, self.full if go.all() else go))
                del self.waiting[index]
                if stay.any():
                    self.waiting[index] = stay
        return released


def _warp_bits(mask: Mask) -> NDArray[np.uint32]:
    return np.packbits(mask.reshape(-1, WARP), axis=1, bitorder="little").view(np.uint32)[:, 0]


def _ranges(numbers: Indices) -> str:
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


class Program:
    """One kernel, decoded."""

    def __init__(self, module: Module, name: str) -> None:
        if name not in module.functions:
            raise KeyError(f"no kernel {name}")
        self.module, self.name = module, name
        self.entry = module.functions[name]
        self.dtypes: list[np.dtype[Any]] = []
        self.slots: dict[str, int] = {}
        self.constants: list[tuple[int, str, Any]] = []
        self.known_constants: dict[tuple[Any, ...], int] = {}
        self.segments: list[Segment] = []
        # Segments that end at a block's barrier: its number, and what its reduction writes.
        self.barriers: dict[int, int] = {}
        self.finishers: dict[int, Callable[[Run, Mask], None]] = {}
        self.local_size = 0
        self.locals: dict[str, int] = {}
        self.n_inlined = 0
        self.written_parameters: set[str] = set()
        self.offsets, self.argument_size = _layout(self.entry.parameters)
        self._place_variables()
        code: list[Instruction] = []
        labels: dict[str, int] = {}
        self.tables: dict[str, list[str]] = {}
        self._flatten(self.entry, "", {}, (), code, labels)
        self._decode(code, labels)

    def _place_variables(self) -> None:
        """Shared variables after one another, the module's own from MODULE_VARIABLES on."""
        self.symbols: dict[str, int] = {}
        self.initial: list[tuple[int, bytes]] = []
        self.static_shared = 0
        at = MODULE_VARIABLES
        for variable in self.module.variables.values():
            if variable.space == "shared":
                self._place_shared(variable)
                continue
            at = -(-at // 256) * 256
            self.symbols[variable.name] = at
            self.initial.append((at, (variable.initial or b"").ljust(variable.size, b"\0")))
            at += variable.size
        for function in self.module.functions.values():
            for variable in function.variables.values():
                if variable.space == "shared" and (function is self.entry or not function.is_entry):
                    self._place_shared(variable)
        self.static_shared = -(-self.static_shared // 16) * 16
        for variable in self.module.external.values():
            if variable.space == "shared":
                self.symbols[variable.name] = self.static_shared

    def _place_shared(self, variable: Variable) -> None:
        at = -(-self.static_shared // variable.align) * variable.align
        self.symbols[variable.name] = at
        self.static_shared = at + variable.size

    # Inlining

    def _flatten(
        self,
        function: Function,
        prefix: str,
        bound: dict[str, str],
        callers: tuple[str, ...],
        code: list[Instruction],
        labels: dict[str, int],
    ) -> None:
        for variable in function.variables.values():
            if variable.space == "local":
                self.local_size = -(-self.local_size // variable.align) * variable.align
                self.locals[prefix + variable.name] = self.local_size
                self.local_size += variable.size
        for register, kind in function.registers.items():
            if kind in TYPES:
                self._slot(prefix + register, unsigned(TYPES[kind]) if kind[0] in "bsu" else TYPES[kind])
        marks: dict[int, list[str]] = {}
        for label, position in function.labels.items():
            marks.setdefault(position, []).append(label)
        end = f"{prefix}@end"
        own = (function.labels.keys() | function.tables.keys() | function.variables.keys()) - self.symbols.keys()

        def renamed(operand: Any) -> Any:
            if isinstance(operand, Register):
                return Register(prefix + operand.name) if operand.name in function.registers else operand
            if isinstance(operand, Symbol):
                if operand.name in bound:
                    return Symbol(bound[operand.name])
                return Symbol(prefix + operand.name) if operand.name in own else operand
            if isinstance(operand, Address):
                return replace(operand, base=renamed(operand.base))
            if isinstance(operand, Several):
                return Several(tuple(renamed(item) for item in operand.items))
            if isinstance(operand, Negated):
                return Negated(renamed(operand.register))
            return operand

        for table, targets in function.tables.items():
            self.tables[prefix + table] = [prefix + target for target in targets]
        for position, instruction in enumerate(function.instructions):
            for label in marks.get(position, ()):
                labels[prefix + label] = len(code)
            operands = tuple(renamed(operand) for operand in instruction.operands)
            guard = renamed(instruction.guard)
            here = replace(instruction, operands=operands, guard=guard)
            if instruction.opcode.split(".")[0] == "call":
                self._inline(here, (*callers, function.name), code, labels)
            elif instruction.opcode in ("ret", "ret.uni") and callers:
                code.append(Instruction("bra", (Symbol(end),), guard, instruction.line))
            else:
                code.append(here)
        for label in marks.get(len(function.instructions), ()):
            labels[prefix + label] = len(code)
        labels[end] = len(code)

    def _inline(
        self, call: Instruction, callers: tuple[str, ...], code: list[Instruction], labels: dict[str, int]
    ) -> None:
        groups = [one.items for one in call.operands if isinstance(one, Several)]
        name = next((one.name for one in call.operands if isinstance(one, Symbol)), "")
        function = self.module.functions.get(name)
        if function is None or name in callers:
            code.append(replace(call, opcode=f"call {name}", operands=()))
            return
        self.n_inlined += 1
        prefix = f"{self.n_inlined}:"
        formal = [variable.name for variable in (*function.results, *function.parameters)]
        actual = [one.name for group in groups for one in group if isinstance(one, Symbol)]
        if len(formal) != len(actual):
            code.append(replace(call, opcode=f"call {name}", operands=()))
            return
        if call.guard is not None:
            around = Negated(call.guard) if isinstance(call.guard, Register) else call.guard.register
            code.append(Instruction("bra", (Symbol(f"{prefix}@end"),), around, call.line))
        self._flatten(function, prefix, dict(zip(formal, actual, strict=True)), callers, code, labels)

    # Registers and constants

    def _slot(self, name: str, dtype: np.dtype[Any]) -> int:
        if name not in self.slots:
            self.slots[name] = len(self.dtypes)
            self.dtypes.append(dtype)
        return self.slots[name]

    def _constant(self, kind: str, what: Any, dtype: np.dtype[Any]) -> int:
        key = (kind, what, dtype.str)
        if key not in self.known_constants:
            self.known_constants[key] = len(self.dtypes)
            self.constants.append((len(self.dtypes), kind, what))
            self.dtypes.append(dtype)
        return self.known_constants[key]

    def _source_slot(self, operand: Operand, dtype: np.dtype[Any], words: _Words) -> int:
        if isinstance(operand, Register):
            if operand.name in self.slots:
                return self.slots[operand.name]
            if operand.name.startswith("%"):
                kind = np.dtype(np.uint32)
                return self._constant("special", operand.name[1:], kind if dtype.itemsize <= 4 else np.dtype(np.uint64))
        if isinstance(operand, Number):
            value = number_bits(operand.text)
            if dtype.kind == "f" and operand.text.lstrip("-")[:2].lower() not in ("0f", "0d"):
                value = int(np.array(float(operand.text), dtype).view(unsigned(dtype)))
            if dtype == np.bool_:
                value = int(value != 0)
            return self._constant("number", value, dtype)
        if isinstance(operand, Symbol):
            address = self._symbol(operand.name)
            if address is not None:
                return self._constant("number", address, dtype)
        raise words.unsupported(f"operand {operand}")

    def _symbol(self, name: str) -> int | None:
        for places in (self.symbols, self.locals, self.offsets):
            if name in places:
                return places[name]
        return None

    def reader(self, operand: Operand, dtype: np.dtype[Any], words: _Words) -> Reader:
        """The operand as lanes of a type: the same bits, or the low ones of a wider register."""
        if isinstance(operand, Negated):
            slot = self._source_slot(operand.register, dtype, words)
            return lambda registers: ~registers[slot]
        slot = self._source_slot(operand, dtype, words)
        own = self.dtypes[slot]
        if own == dtype:
            return lambda registers: registers[slot]
        if own.itemsize == dtype.itemsize:
            return lambda registers: registers[slot].view(dtype)
        if own.itemsize > dtype.itemsize and own.kind == "u":
            low = unsigned(dtype)
            return lambda registers: registers[slot].astype(low).view(dtype)
        raise words.unsupported(f"{operand} is narrower than the instruction")

    def writer(
        self, operand: Operand, dtype: np.dtype[Any], words: _Words
    ) -> Callable[[Run, Lanes, Mask | None], None]:
        """Stores lanes of a type in a register that is as wide, or wider."""
        if not isinstance(operand, Register):
            raise words.unsupported(f"result {operand}")
        if operand.name == "_":
            return lambda run, value, mask: None
        slot = self.slots[operand.name]
        own = self.dtypes[slot]
        if own == dtype:
            return lambda run, value, mask: run.write(slot, value, mask)
        if own.itemsize == dtype.itemsize:
            return lambda run, value, mask: run.write(slot, value.view(own), mask)
        if own.itemsize > dtype.itemsize and dtype.kind in "iu":
            wide = np.dtype(f"{dtype.kind}{own.itemsize}")
            return lambda run, value, mask: run.write(slot, value.astype(wide).view(own), mask)
        raise words.unsupported(f"{operand} is narrower than the result")

    # Segments

    def _decode(self, code: list[Instruction], labels: dict[str, int]) -> None:
        starts = {0, len(code), *labels.values()}
        starts |= {i + 1 for i, one in enumerate(code) if one.opcode.split(".")[0] in _ENDS}
        order = sorted(starts)
        segment_at = {start: index for index, start in enumerate(order)}
        targets = {label: segment_at[position] for label, position in labels.items()}
        for index, (first, last) in enumerate(zip(order, [*order[1:], len(code)], strict=True)):
            segment = Segment(code[first].line if first < len(code) else 0)
            self.segments.append(segment)
            for instruction in code[first:last]:
                segment.lines.append(instruction.line)
                words = _Words(instruction)
                try:
                    if words.base in _ENDS:
                        segment.end = self._end(words, index, targets)
                    else:
                        segment.steps.append(self._step(words))
                except UnsupportedInstructionError as error:
                    self._unknown(segment, error)
            if first == len(code):
                segment.end = _exit

    def _unknown(self, segment: Segment, error: UnsupportedInstructionError) -> None:
        def fail(run: Run, mask: Mask | None) -> None:
            raise UnsupportedInstructionError(error.opcode, error.line, f"{error}, in {self.name}")

        segment.steps.append(fail)

    def _guard(self, words: _Words) -> Reader | None:
        guard = words.instruction.guard
        return None if guard is None else self.reader(guard, TYPES["pred"], words)

    def _step(self, words: _Words) -> Step:
        decode = _DECODERS.get(words.base)
        if decode is None:
            raise words.unsupported()
        try:
            decoded = decode(self, words, list(words.instruction.operands))
        except (LookupError, ValueError, TypeError) as error:
            raise words.unsupported(f"not understood: {error!r}") from error
        step = self._pure(decoded, words) if isinstance(decoded, Pure) else decoded
        if words.rest:
            raise words.unsupported(f"unknown {', '.join(words.rest)}")
        guard = self._guard(words)
        if guard is None:
            return step

        def guarded(run: Run, mask: Mask | None) -> None:
            wanted = guard(run.registers)
            active = wanted if mask is None else mask & wanted
            if active.any():
                step(run, active)

        return guarded

    def _pure(self, pure: Pure, words: _Words) -> Step:
        readers = [self.reader(one, dtype, words) for one, dtype in zip(pure.sources, pure.types, strict=True)]
        writers = [self.writer(one, dtype, words) for one, dtype in zip(pure.results, pure.result_types, strict=True)]
        compute = pure.compute
        if len(writers) == 1:
            (write,) = writers
            if len(readers) == 2:
                first, second = readers

                def two(run: Run, mask: Mask | None) -> None:
                    write(run, compute(first(run.registers), second(run.registers)), mask)  # type: ignore[arg-type]

                return two

            def any_number(run: Run, mask: Mask | None) -> None:
                write(run, compute(*[read(run.registers) for read in readers]), mask)  # type: ignore[arg-type]

            return any_number

        def several(run: Run, mask: Mask | None) -> None:
            results = compute(*[read(run.registers) for read in readers])
            for write, result in zip(writers, results, strict=True):
                write(run, result, mask)

        return several

    # Ends of segments

    def _end(self, words: _Words, index: int, targets: dict[str, int]) -> Callable[[Run, Mask], None]:
        guard = self._guard(words)
        go: Callable[[Run, Mask], None]
        operands = words.instruction.operands
        if words.base in ("ret", "exit"):
            go = _exit
        elif words.base == "trap":

            def go(run: Run, mask: Mask) -> None:
                raise TrapError(f"{self.name}, line {words.instruction.line}")

        elif words.base == "bra":
            (label,) = operands
            assert isinstance(label, Symbol)
            target = targets[label.name]

            def go(run: Run, mask: Mask) -> None:
                run.push(target, mask)

        elif words.base == "brx":
            words.choose(("idx",))
            choice, table = operands
            assert isinstance(table, Symbol)
            read = self.reader(choice, TYPES["u32"], words)
            branches = [targets[label] for label in self.tables[table.name]]

            def go(run: Run, mask: Mask) -> None:
                chosen = read(run.registers)
                for value in np.unique(chosen[mask]):
                    run.push(branches[int(value)], mask & (chosen == value))

        elif words.base in ("bar", "barrier") and "warp" not in words.rest:
            if guard is not None:
                raise words.unsupported("guarded")
            return self._barrier(words, index)
        else:
            if guard is not None:
                raise words.unsupported("guarded")
            return self._collective(words, index)
        if words.rest:
            raise words.unsupported(f"unknown {', '.join(words.rest)}")
        if guard is None:
            return go

        def guarded(run: Run, mask: Mask) -> None:
            wanted = guard(run.registers)
            taken = wanted & mask
            count = int(np.count_nonzero(taken))
            if count == 0:
                run.push(index + 1, mask)
            elif count == int(np.count_nonzero(mask)):
                go(run, mask)
            else:
                go(run, taken)
                run.push(index + 1, mask & ~wanted)

        return guarded

    def _barrier(self, words: _Words, index: int) -> Callable[[Run, Mask], None]:
        kind = words.choose(("sync", "red"))
        operands = list(words.instruction.operands)
        reduction = words.choose(("popc", "and", "or")) if kind == "red" else ""
        if words.rest:
            raise words.unsupported()
        result = operands.pop(0) if reduction else None
        value = operands.pop() if reduction else None
        name = operands[0]
        if not isinstance(name, Number):
            raise words.unsupported("a barrier whose number is not a literal")
        barrier = number_bits(name.text)
        read_count = self.reader(operands[1], TYPES["u32"], words) if len(operands) > 1 else None
        self.barriers[index] = barrier
        if result is not None and value is not None:
            read = self.reader(value, TYPES["pred"], words)
            dtype = TYPES["u32"] if reduction == "popc" else TYPES["pred"]
            write = self.writer(result, dtype, words)

            def finish(run: Run, mask: Mask) -> None:
                shape = (run.n_blocks, run.per_block)
                each = read(run.registers) | (not mask.all() and reduction == "and" and ~mask)
                each = (each if reduction == "and" else each & mask).reshape(shape)
                whole = {"popc": each.sum, "and": each.all, "or": each.any}[reduction](1)
                write(run, np.repeat(whole, run.per_block).astype(dtype), mask)

            self.finishers[index] = finish

        def arrive(run: Run, mask: Mask) -> None:
            run.waiting[index] = run.waiting[index] | mask if index in run.waiting else mask
            released = run.whole_blocks(barrier, read_count(run.registers) if read_count else None)
            for place, threads in released:
                if place in self.finishers:
                    self.finishers[place](run, threads)
                run.push(place + 1, threads)

        return arrive

    def _collective(self, words: _Words, index: int) -> Callable[[Run, Mask], None]:
        operands = list(words.instruction.operands)
        members = self.reader(operands[-1], TYPES["u32"], words)
        step = _COLLECTIVES[words.base](self, words, operands[:-1], members)
        if words.rest:
            raise words.unsupported(f"unknown {', '.join(words.rest)}")

        def meet(run: Run, mask: Mask) -> None:
            ready = run.whole_warps(index, mask, members(run.registers))
            if ready is not None:
                step(run, None if ready is run.full else ready)
                run.push(index + 1, ready)

        return meet

    # Running

    def launch(self, device: DeviceMemory, grid: Dim, block: Dim, dynamic: int, arguments: bytes) -> int:
        """Runs the whole grid, and returns how many instructions that took."""
        if len(arguments) < self.argument_size:
            raise ValueError(f"{self.name} takes {self.argument_size} bytes of arguments, not {len(arguments)}")
        n_blocks, threads = grid[0] * grid[1] * grid[2], block[0] * block[1] * block[2]
        at_once = max(1, LANES_AT_ONCE // (-(-threads // WARP) * WARP))
        executed = 0
        with np.errstate(all="ignore"):
            for first in range(0, n_blocks, at_once):
                blocks = range(first, min(first + at_once, n_blocks))
                run = Run(self, device, grid, block, blocks, dynamic, arguments)
                run.go()
                executed += run.n_executed
        return executed


def _exit(run: Run, mask: Mask) -> None:
    run.alive = run.alive & ~mask


def _layout(variables: Sequence[Variable]) -> tuple[dict[str, int], int]:
    at, offsets = 0, {}
    for variable in variables:
        at = -(-at // variable.align) * variable.align
        offsets[variable.name] = at
        at += variable.size
    return offsets, at


_ENDS = {"bra", "brx", "ret", "exit", "trap", "bar", "barrier", "shfl", "vote", "match", "redux"}
Decoder: TypeAlias = Callable[[Program, _Words, list[Operand]], Pure | Step]
_DECODERS: dict[str, Decoder] = {}
_COLLECTIVES: dict[str, Callable[[Program, _Words, list[Operand], Reader], Step]] = {}
_PRED, _U32, _S32, _U64 = TYPES["pred"], TYPES["u32"], TYPES["s32"], TYPES["u64"]
_ROUNDING = ("rn", "rz", "rm", "rp")


def _decodes(*names: str) -> Callable[[Decoder], Decoder]:
    def register(decoder: Decoder) -> Decoder:
        for name in names:
            _DECODERS[name] = decoder
        return decoder

    return register


def _same(compute: Callable[..., Any], kind: str, operands: list[Operand]) -> Pure:
    """All operands of one type."""
    dtype = TYPES[kind]
    return Pure(compute, [dtype] * (len(operands) - 1), operands[1:], [dtype], operands[:1])


def _float_wrapped(compute: Callable[..., Lanes], words: _Words) -> Callable[..., Lanes]:
    """With ``.ftz`` and ``.sat`` where the opcode has them."""
    ftz, clamp = words.flag("ftz"), words.flag("sat")
    if words.types[-1] != "f32":
        ftz = False
    if not ftz and not clamp:
        return compute

    def wrapped(*values: Lanes) -> Lanes:
        out = compute(*[ar.flush(value) for value in values] if ftz else values)
        out = ar.flush(out) if ftz else out
        return ar.saturate(out) if clamp else out

    return wrapped


# Arithmetic


@_decodes("add", "sub")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    kind = words.types[0]
    subtract = words.base == "sub"
    if kind[0] == "f":
        mode = words.choose(_ROUNDING, "rn")
        if mode == "rn":
            compute: Callable[..., Lanes] = np.subtract if subtract else np.add
        else:

            def compute(a: Lanes, b: Lanes) -> Lanes:
                return ar.add(a, -b if subtract else b, mode)

        return _same(_float_wrapped(compute, words), kind, operands)
    if words.flag("sat"):
        return _same(
            lambda a, b: _saturated(a.astype(np.int64) + (-1 if subtract else 1) * b.astype(np.int64)), "s32", operands
        )
    if words.flag("cc"):
        return _with_carry(program, kind, operands, subtract, uses=False, keeps=True)
    return _same(np.subtract if subtract else np.add, "u" + kind[1:], operands)


def _saturated(x: Lanes) -> Lanes:
    return np.clip(x, -(1 << 31), (1 << 31) - 1).astype(np.int32)


@_decodes("addc", "subc")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    return _with_carry(program, words.types[0], operands, words.base == "subc", uses=True, keeps=words.flag("cc"))


def _with_carry(
    program: Program, kind: str, operands: list[Operand], subtract: bool, *, uses: bool, keeps: bool
) -> Pure:
    """A sum or a difference that takes or leaves the carry, which is a register like any other here."""
    program._slot("%cc", _PRED)
    carry = Register("%cc")
    dtype = TYPES["u" + kind[1:]]

    def compute(a: Lanes, b: Lanes, flag: Lanes) -> Lanes | tuple[Lanes, Lanes]:
        more = flag.astype(dtype) if uses else np.zeros_like(a)
        if subtract:
            out, over = a - b - more, (a < b) | ((a == b) & (more == 1))
        else:
            part = a + b
            out = part + more
            over = (part < a) | (out < part)
        return (out, over) if keeps else out

    results, types = ([operands[0], carry], [dtype, _PRED]) if keeps else ([operands[0]], [dtype])
    return Pure(compute, [dtype, dtype, _PRED], [*operands[1:], carry], types, results)


@_decodes("mul", "mad", "madc", "mul24", "mad24")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    if words.base.endswith("24"):
        raise words.unsupported()
    kind = words.types[0]
    dtype = TYPES[kind]
    if kind[0] == "f":
        mode = words.choose(_ROUNDING, "rn")
        if words.base == "mad":
            return _same(_float_wrapped(lambda a, b, c: ar.fma(a, b, c, mode), words), kind, operands)
        compute = np.multiply if mode == "rn" else lambda a, b: ar.multiply(a, b, mode)
        return _same(_float_wrapped(compute, words), kind, operands)
    half = words.choose(("lo", "hi", "wide"))
    product = {"lo": np.multiply, "hi": ar.multiply_high, "wide": ar.multiply_wide}[half]
    wide = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}") if half == "wide" else dtype
    if words.base == "mul":
        return Pure(product, [dtype] * 2, operands[1:], [wide], operands[:1])
    uses, keeps = words.base == "madc", words.flag("cc")
    if uses or keeps:
        program._slot("%cc", _PRED)
        carry = Register("%cc")

        def with_carry(a: Lanes, b: Lanes, c: Lanes, flag: Lanes) -> Any:
            kind = unsigned(dtype)
            partial = product(a, b).view(kind)
            out = partial + c.view(kind)
            over = out < partial
            if uses:
                more = out + flag.astype(kind)
                over |= more < out
                out = more
            return (out.view(dtype), over) if keeps else out.view(dtype)

        results, types = ([operands[0], carry], [dtype, _PRED]) if keeps else ([operands[0]], [dtype])
        return Pure(with_carry, [dtype, dtype, dtype, _PRED], [*operands[1:], carry], types, results)
    if words.flag("sat"):
        raise words.unsupported("sat")
    return Pure(lambda a, b, c: product(a, b) + c, [dtype, dtype, wide], operands[1:], [wide], operands[:1])


@_decodes("fma")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    mode = words.choose(_ROUNDING)
    return _same(_float_wrapped(lambda a, b, c: ar.fma(a, b, c, mode), words), words.types[0], operands)


@_decodes("div", "rem")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    kind = words.types[0]
    if kind[0] == "f":
        words.choose(("rn", "approx", "full"))
        return _same(_float_wrapped(np.divide, words), kind, operands)
    return _same(ar.divide if words.base == "div" else ar.remainder, kind, operands)


def _reciprocal(x: Lanes) -> Lanes:
    return x.dtype.type(1) / x


def _reciprocal_root(x: Lanes) -> Lanes:
    return (1.0 / np.sqrt(x.astype(np.float64))).astype(x.dtype)


@_decodes("rcp", "sqrt", "rsqrt", "sin", "cos", "lg2", "ex2", "tanh")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    kind = words.types[0]
    allowed = ("approx", "rn") if words.base in ("rcp", "sqrt") else ("approx",)
    approximate = words.choose(allowed) == "approx"
    exact: dict[str, Callable[[Lanes], Lanes]] = {
        "rcp": _reciprocal, "sqrt": np.sqrt, "rsqrt": _reciprocal_root, "sin": np.sin, "cos": np.cos, "lg2": np.log2,
        "ex2": np.exp2, "tanh": np.tanh,
    }  # fmt: skip
    function = exact[words.base]
    if kind == "f64":
        if approximate:
            words.flag("ftz")
            return _same(lambda x: ar.crude(function(x)), kind, operands)
        return _same(function, kind, operands)
    if approximate:
        compute = _float_wrapped(lambda x: function(x.astype(np.float64)).astype(np.float32), words)
        return _same(compute, kind, operands)
    return _same(_float_wrapped(function, words), kind, operands)


@_decodes("min", "max")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    function = ar.minimum if words.base == "min" else ar.maximum
    compute = _float_wrapped(function, words) if words.types[0][0] == "f" else function
    if len(operands) != 3:
        raise words.unsupported("three of them")
    return _same(compute, words.types[0], operands)


@_decodes("abs", "neg")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    function = np.abs if words.base == "abs" else np.negative
    compute = _float_wrapped(function, words) if words.types[0][0] == "f" else function
    return _same(compute, words.types[0], operands)


@_decodes("copysign")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    return _same(lambda a, b: np.copysign(b, a), words.types[0], operands)


@_decodes("testp")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    wanted = words.choose(("finite", "infinite", "number", "notanumber", "normal", "subnormal"))
    dtype = TYPES[words.types[0]]
    return Pure(lambda x: ar.test_property(x, wanted), [dtype], operands[1:], [_PRED], operands[:1])


# Bits


@_decodes("and", "or", "xor", "not", "cnot")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    functions: dict[str, Callable[..., Lanes]] = {
        "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
        "cnot": lambda x: (x == 0).astype(x.dtype),
    }  # fmt: skip
    return _same(functions[words.base], words.types[0], operands)


@_decodes("shl", "shr")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    dtype = TYPES[words.types[0]]
    function = ar.shift_left if words.base == "shl" else ar.shift_right
    literal = operands[2]
    if isinstance(literal, Number) and 0 <= number_bits(literal.text) < 8 * dtype.itemsize:
        by = dtype.type(number_bits(literal.text))
        plain = np.left_shift if words.base == "shl" else np.right_shift
        return Pure(lambda x: plain(x, by), [dtype], operands[1:2], [dtype], operands[:1])
    return Pure(function, [dtype, _U32], operands[1:], [dtype], operands[:1])


@_decodes("shf")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    direction, mode = words.choose(("l", "r")), words.choose(("clamp", "wrap"))
    return _same(lambda a, b, c: ar.funnel_shift(a, b, c, direction, mode), "b32", operands)


@_decodes("popc", "clz", "bfind", "brev")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    dtype = TYPES[words.types[0]]
    if words.base == "brev":
        return _same(ar.reverse_bits, words.types[0], operands)
    if words.base == "bfind":
        amount = words.flag("shiftamt")
        return Pure(lambda x: ar.highest_bit(x, amount), [dtype], operands[1:], [_U32], operands[:1])
    function = ar.count_leading_zeros if words.base == "clz" else lambda x: np.bitwise_count(x).astype(np.uint32)
    return Pure(function, [dtype], operands[1:], [_U32], operands[:1])


@_decodes("bfe", "bfi")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    dtype = TYPES[words.types[0]]
    if words.base == "bfe":
        return Pure(ar.extract_bits, [dtype, _U32, _U32], operands[1:], [dtype], operands[:1])
    return Pure(ar.insert_bits, [dtype, dtype, _U32, _U32], operands[1:], [dtype], operands[:1])


@_decodes("prmt")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    return _same(ar.permute_bytes, "b32", operands)


@_decodes("lop3")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    table = operands.pop()
    if not isinstance(table, Number) or len(operands) != 4:
        raise words.unsupported()
    value = number_bits(table.text)
    return _same(lambda a, b, c: ar.logic3(a, b, c, value), "b32", operands)


# Comparison and selection


@_decodes("setp", "set")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    relation = words.choose(
        (
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "lo",
            "ls",
            "hi",
            "hs",
            "equ",
            "neu",
            "ltu",
            "leu",
            "gtu",
            "geu",
            "num",
            "nan",
        )
    )
    combine = words.choose(("and", "or", "xor"), "")
    kind = words.types[-1]
    if relation in ("lo", "ls", "hi", "hs"):
        kind = "u" + kind[1:]
    dtype = TYPES[kind]
    ftz = words.flag("ftz")
    join = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}.get(combine)

    def compute(a: Lanes, b: Lanes, *other: Lanes) -> Lanes:
        if ftz:
            a, b = ar.flush(a), ar.flush(b)
        out = ar.compare(a, b, relation)
        return join(out, other[0]) if join is not None else out

    sources = operands[1:]
    types = [dtype, dtype, _PRED][: len(sources)]
    result = operands[0]
    if words.base == "set":
        out = TYPES[words.types[0]]
        true = out.type(1) if out.kind == "f" else np.array(-1).astype(out)[()]
        return Pure(lambda *v: np.where(compute(*v), true, out.type(0)), types, sources, [out], [result])
    if isinstance(result, Several):

        def both(a: Lanes, b: Lanes, *other: Lanes) -> tuple[Lanes, Lanes]:
            opposite = ~ar.compare(a, b, relation)
            return compute(a, b, *other), join(opposite, other[0]) if join is not None else opposite

        return Pure(both, types, sources, [_PRED, _PRED], result.items)
    return Pure(compute, types, sources, [_PRED], [result])


@_decodes("selp")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    dtype = TYPES[words.types[0]]
    return Pure(lambda a, b, p: np.where(p, a, b), [dtype, dtype, _PRED], operands[1:], [dtype], operands[:1])


@_decodes("slct")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    dtype, sign = TYPES[words.types[0]], TYPES[words.types[1]]
    words.flag("ftz")
    return Pure(lambda a, b, c: np.where(c >= 0, a, b), [dtype, dtype, sign], operands[1:], [dtype], operands[:1])


# Moves and conversions


@_decodes("mov")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    to, source = operands
    dtype = TYPES[words.types[0]]
    if isinstance(to, Several):
        part = np.dtype(f"u{dtype.itemsize // len(to.items)}")
        n = len(to.items)

        def split(x: Lanes) -> tuple[Lanes, ...]:
            parts = x.view(part).reshape(-1, n)
            return tuple(np.ascontiguousarray(parts[:, i]) for i in range(n))

        return Pure(split, [unsigned(dtype)], [source], [part] * n, to.items)
    if isinstance(source, Several):
        part = np.dtype(f"u{dtype.itemsize // len(source.items)}")

        def joined(*parts: Lanes) -> Lanes:
            return np.stack(parts, 1).view(dtype)[:, 0]

        return Pure(joined, [part] * len(source.items), source.items, [dtype], [to])
    return Pure(lambda x: x, [dtype], [source], [dtype], [to])


@_decodes("cvt")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    if len(words.types) != 2 or len(operands) != 2:
        raise words.unsupported()
    to, source = TYPES[words.types[0]], TYPES[words.types[1]]
    mode = words.choose((*_ROUNDING, "rni", "rzi", "rmi", "rpi"), "rn" if to.kind == "f" else "")
    clamp, ftz = words.flag("sat"), words.flag("ftz")

    def compute(x: Lanes) -> Lanes:
        if ftz and x.dtype == np.float32:
            x = ar.flush(x)
        out = ar.convert(x, to, mode, clamp)
        return ar.flush(out) if ftz and out.dtype == np.float32 else out

    return Pure(compute, [source], operands[1:], [to], operands[:1])


@_decodes("cvta")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    back = words.flag("to")
    space = words.choose(("global", "const", "shared", "local", "param"))
    window = np.uint64({"shared": SHARED_WINDOW, "local": LOCAL_WINDOW, "param": PARAMETER_WINDOW}.get(space, 0))
    if back:
        return _same(lambda x: x - window, "u64", operands)
    return _same(lambda x: x + window, "u64", operands)


@_decodes("isspacep")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure:
    space = words.choose(("global", "const", "shared", "local", "param"))
    window = np.uint64({"shared": 1, "local": 2, "param": 3}.get(space, 0))
    shift = np.uint64(WINDOW_SHIFT)
    if space == "const":
        raise words.unsupported("const")
    return Pure(lambda x: x >> shift == window, [_U64], operands[1:], [_PRED], operands[:1])


@_decodes("membar", "fence", "nanosleep", "prefetch", "prefetchu", "pmevent", "griddepcontrol")
def _(program: Program, words: _Words, operands: list[Operand]) -> Step:
    words.rest.clear()
    return lambda run, mask: None


# Memory


def _address(program: Program, words: _Words, operand: Operand) -> Callable[[Run, Indices], Indices]:
    if not isinstance(operand, Address):
        raise words.unsupported(f"address {operand}")
    base, offset = operand.base, operand.offset
    slot = program._source_slot(base, _U64, words)
    if program.dtypes[slot].kind != "u":
        raise words.unsupported(f"address {operand}")

    def addresses(run: Run, lanes: Indices) -> Indices:
        values = run.registers[slot]
        values = values if lanes is run.every else values[lanes]
        return values.astype(np.int64) + offset

    return addresses


def _groups(run: Run, space: str, lanes: Indices, addresses: Indices) -> list[tuple[Space, Indices | None, Indices]]:
    """The memories that are addressed, for each the positions among the lanes (None: all) and the addresses within."""
    if space:
        return [(run.spaces[space], None, addresses)]
    window = addresses >> WINDOW_SHIFT
    inside = addresses & ((1 << WINDOW_SHIFT) - 1)
    names = ["global", "shared", "local", "param"]
    kinds = np.unique(window)
    if len(kinds) == 1 and 0 <= kinds[0] < 4:
        return [(run.spaces[names[int(kinds[0])]], None, inside)]
    groups: list[tuple[Space, Indices | None, Indices]] = []
    for kind in kinds:
        at = np.flatnonzero(window == kind)
        # A negative or a very large address lies nowhere, and device memory says so.
        known = 0 <= kind < 4
        memory = run.spaces[names[int(kind)]] if known else run.device
        groups.append((memory, at, inside[at] if known else addresses[at]))
    return groups


def _argument(
    program: Program, words: _Words, operand: Operand, dtype: np.dtype[Any], count: int
) -> list[Register] | None:
    """Registers that stand for words of a parameter of a call."""
    if not isinstance(operand, Address) or not isinstance(operand.base, Symbol):
        return None
    name = operand.base.name
    if name in program.offsets:
        return None
    names = [f"{name}+{operand.offset + i * dtype.itemsize}:{dtype.itemsize}" for i in range(count)]
    for one in names:
        program._slot(one, unsigned(dtype))
    return [Register(one) for one in names]


@_decodes("ld", "ldu")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure | Step:
    space = words.choose(("global", "shared", "local", "const", "param"), "")
    count = {"v2": 2, "v4": 4}.get(words.choose(("v2", "v4"), ""), 1)
    dtype = TYPES[words.types[0]]
    to, source = operands
    targets = to.items if isinstance(to, Several) else (to,)
    if space == "param":
        words.choose(("entry", "func"), "")
        assert isinstance(source, Address)
        arguments = _argument(program, words, source, dtype, count)
        if arguments is not None:
            for one in arguments:
                if one.name not in program.written_parameters:
                    raise words.unsupported(f"{one.name} is read in another way than written")
            identity = (lambda x: x) if count == 1 else (lambda *x: x)
            return Pure(identity, [dtype] * count, arguments, [dtype] * count, targets)
        if isinstance(source.base, Symbol):
            first = program.offsets[source.base.name] + source.offset
            slots = [program._constant("argument", first + i * dtype.itemsize, dtype) for i in range(count)]
            writers = [program.writer(one, dtype, words) for one in targets]

            def fetch(run: Run, mask: Mask | None) -> None:
                for slot, write in zip(slots, writers, strict=True):
                    write(run, run.registers[slot], mask)

            return fetch
    addresses = _address(program, words, source)
    writers = [program.writer(one, dtype, words) for one in targets]
    size = dtype.itemsize

    def load(run: Run, mask: Mask | None) -> None:
        lanes = run.lanes(mask)
        where = addresses(run, lanes)
        values = [np.zeros(run.width, unsigned(dtype)) for _ in range(count)]
        for memory, at, inside in _groups(run, space, lanes, where):
            some = lanes if at is None else lanes[at]
            words_read = memory.load(some, inside, size, count)
            if some is run.every:
                values = words_read
            else:
                for value, word in zip(values, words_read, strict=True):
                    value[some] = word
        for write, value in zip(writers, values, strict=True):
            write(run, value.view(dtype), mask)

    return load


@_decodes("st")
def _(program: Program, words: _Words, operands: list[Operand]) -> Pure | Step:
    space = words.choose(("global", "shared", "local", "param"), "")
    count = {"v2": 2, "v4": 4}.get(words.choose(("v2", "v4"), ""), 1)
    dtype = TYPES[words.types[0]]
    to, source = operands
    sources = source.items if isinstance(source, Several) else (source,)
    if space == "param":
        words.choose(("entry", "func"), "")
        arguments = _argument(program, words, to, dtype, count)
        if arguments is None:
            raise words.unsupported("to an address")
        program.written_parameters |= {one.name for one in arguments}
        identity = (lambda x: x) if count == 1 else (lambda *x: x)
        return Pure(identity, [dtype] * count, sources, [dtype] * count, arguments)
    addresses = _address(program, words, to)
    readers = [program.reader(one, unsigned(dtype), words) for one in sources]
    size = dtype.itemsize

    def store(run: Run, mask: Mask | None) -> None:
        lanes = run.lanes(mask)
        where = addresses(run, lanes)
        values = [read(run.registers) for read in readers]
        for memory, at, inside in _groups(run, space, lanes, where):
            some = lanes if at is None else lanes[at]
            memory.store(some, inside, [value[some] for value in values], size)

    return store


def _atomic_operation(name: str, dtype: np.dtype[Any]) -> Callable[[Any, Any, Any], Any]:
    def increase(old: Lanes, b: Lanes, c: Lanes) -> Lanes:
        return np.where(old >= b, dtype.type(0), old + dtype.type(1))

    def decrease(old: Lanes, b: Lanes, c: Lanes) -> Lanes:
        return np.where((old == 0) | (old > b), b, old - dtype.type(1))

    return {
        "add": lambda old, b, c: old + b,
        "min": lambda old, b, c: ar.minimum(old, b),
        "max": lambda old, b, c: ar.maximum(old, b),
        "and": lambda old, b, c: old & b,
        "or": lambda old, b, c: old | b,
        "xor": lambda old, b, c: old ^ b,
        "exch": lambda old, b, c: b,
        "cas": lambda old, b, c: np.where(old == b, c, old),
        "inc": increase,
        "dec": decrease,
    }[name]


@_decodes("atom", "red")
def _(program: Program, words: _Words, operands: list[Operand]) -> Step:
    space = words.choose(("global", "shared"), "")
    name = words.choose(("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"))
    words.flag("noftz")
    dtype = TYPES[words.types[0]]
    operate = _atomic_operation(name, dtype)
    result = operands.pop(0) if words.base == "atom" else Register("_")
    addresses = _address(program, words, operands[0])
    readers = [program.reader(one, dtype, words) for one in operands[1:]]
    write = program.writer(result, dtype, words)
    size = dtype.itemsize

    def atomic(run: Run, mask: Mask | None) -> None:
        lanes = run.lanes(mask)
        where = addresses(run, lanes)
        values = [read(run.registers) for read in readers]
        values.append(values[-1])  # what is missing is never read
        out = np.zeros(run.width, dtype)
        for memory, at, inside in _groups(run, space, lanes, where):
            some = lanes if at is None else lanes[at]
            memory_words = memory.store_.words[size].view(dtype)
            places = memory.positions(some, inside, size)
            # One after another where several threads meet, in the order of the threads: the n-th visit to every
            # place is one pass.
            order = np.argsort(places, kind="stable")
            ordered = places[order]
            new = np.ones(len(places), np.bool_)
            new[1:] = ordered[1:] != ordered[:-1]
            start = np.maximum.accumulate(np.where(new, np.arange(len(places)), 0))
            visit = np.empty(len(places), np.int64)
            visit[order] = np.arange(len(places)) - start
            by_visit = np.argsort(visit, kind="stable")
            bounds = np.searchsorted(visit[by_visit], np.arange(int(visit.max()) + 2))
            for first, last in itertools.pairwise(bounds):
                now = by_visit[first:last]
                old = memory_words[places[now]]
                who = some[now]
                memory_words[places[now]] = operate(old, values[0][who], values[1][who])
                out[who] = old
        write(run, out, mask)

    return atomic


# Warps


def _collects(name: str) -> Callable[[Any], Any]:
    def register(decoder: Any) -> Any:
        _COLLECTIVES[name] = decoder
        return decoder

    return register


@_collects("bar")
@_collects("barrier")
def _(program: Program, words: _Words, operands: list[Operand], members: Reader) -> Step:
    words.flag("warp")
    words.choose(("sync",))
    return lambda run, mask: None


@_collects("shfl")
def _(program: Program, words: _Words, operands: list[Operand], members: Reader) -> Step:
    words.choose(("sync",))
    mode = words.choose(("up", "down", "bfly", "idx"))
    to, source, by, clamp = operands
    pair = to.items if isinstance(to, Several) else (to,)
    write = program.writer(pair[0], _U32, words)
    write_inside = program.writer(pair[1], _PRED, words) if len(pair) > 1 else None
    read, read_by, read_clamp = (program.reader(one, _U32, words) for one in (source, by, clamp))

    def shuffle(run: Run, mask: Mask | None) -> None:
        registers = run.registers
        value, packed = read(registers), read_clamp(registers).astype(np.int64)
        offset = read_by(registers).astype(np.int64) & 31
        lane = run.every % WARP
        segment, limit = packed >> 8 & 31, packed & 31
        highest, lowest = (lane & segment) | (limit & ~segment), lane & segment
        if mode == "up":
            other = lane - offset
            inside = other >= highest
        elif mode == "idx":
            other = lowest | (offset & ~segment)
            inside = other <= highest
        else:
            other = lane + offset if mode == "down" else lane ^ offset
            inside = other <= highest
        other = np.where(inside, other, lane)
        # What a lane that takes no part would give is left open: rubbish.
        partner_in = (members(registers) >> other.astype(np.uint32) & np.uint32(1)) == 1
        there = run.every - lane + other
        partner_in &= run.full[there] if mask is None else mask[there]
        write(run, np.where(partner_in, value[there], np.uint32(0xDEADBEEF)), mask)
        if write_inside is not None:
            write_inside(run, inside, mask)

    return shuffle


def _among(mask: Mask | None, run: Run, members: Reader) -> Lanes:
    """For each thread the bits of the threads of its warp it acts together with."""
    here = np.full(run.width // WARP, 0xFFFFFFFF, np.uint32) if mask is None else _warp_bits(mask)
    return np.repeat(here, WARP) & members(run.registers)


@_collects("vote")
def _(program: Program, words: _Words, operands: list[Operand], members: Reader) -> Step:
    words.choose(("sync",))
    kind = words.choose(("all", "any", "uni", "ballot"))
    read = program.reader(operands[1], _PRED, words)
    write = program.writer(operands[0], _U32 if kind == "ballot" else _PRED, words)

    def vote(run: Run, mask: Mask | None) -> None:
        among = _among(mask, run, members)
        yes = np.repeat(_warp_bits(read(run.registers)), WARP) & among
        if kind == "ballot":
            out = yes
        elif kind == "any":
            out = yes != 0
        else:
            out = yes == among
            if kind == "uni":
                out |= yes == 0
        write(run, out, mask)

    return vote


def _matrix(value: Lanes, among: Lanes) -> tuple[Lanes, Lanes]:
    """Values (warps, 32), and for each lane which of its warp it acts with (warps, 32, 32)."""
    bits = among.reshape(-1, WARP)[:, :, None] >> np.arange(WARP, dtype=np.uint32) & np.uint32(1)
    return value.reshape(-1, WARP), bits == 1


@_collects("match")
def _(program: Program, words: _Words, operands: list[Operand], members: Reader) -> Step:
    kind = words.choose(("any", "all"))
    words.choose(("sync",))
    read = program.reader(operands[1], TYPES[words.types[0]], words)
    to = operands[0]
    pair = to.items if isinstance(to, Several) else (to,)
    write = program.writer(pair[0], _U32, words)
    write_all = program.writer(pair[1], _PRED, words) if len(pair) > 1 else None

    def match(run: Run, mask: Mask | None) -> None:
        value, with_me = _matrix(read(run.registers), _among(mask, run, members))
        equal = (value[:, :, None] == value[:, None, :]) & with_me
        if kind == "all":
            same = (equal == with_me).all(2)
            equal = with_me & same[:, :, None]
            if write_all is not None:
                write_all(run, same.reshape(-1), mask)
        bits = np.packbits(equal, axis=2, bitorder="little").view(np.uint32)[:, :, 0]
        write(run, np.ascontiguousarray(bits.reshape(-1)), mask)

    return match


@_collects("redux")
def _(program: Program, words: _Words, operands: list[Operand], members: Reader) -> Step:
    words.choose(("sync",))
    name = words.choose(("add", "min", "max", "and", "or", "xor"))
    dtype = TYPES[words.types[0]]
    if dtype.kind == "f":
        raise words.unsupported("of floats")
    read, write = program.reader(operands[1], dtype, words), program.writer(operands[0], dtype, words)
    function: Any = {
        "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }[name]  # fmt: skip
    limits = np.iinfo(dtype)
    neutral = {"min": limits.max, "max": limits.min, "and": -1 if dtype.kind == "i" else limits.max}.get(name, 0)

    def reduce(run: Run, mask: Mask | None) -> None:
        value, with_me = _matrix(read(run.registers), _among(mask, run, members))
        each = np.where(with_me, value[:, None, :], dtype.type(neutral))
        write(run, function.reduce(each, axis=2, dtype=dtype).reshape(-1), mask)

    return reduce
