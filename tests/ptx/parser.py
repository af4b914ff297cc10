"""PTX text to functions: what nvcc writes, names resolved, nothing executed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r'(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<newline>\n)|(?P<space>[ \t\r]+)|(?P<string>"[^"]*")'
    r"|(?P<word>[A-Za-z_$%.][\w$%.]*(?:::[\w.$]+)*)|(?P<number>-?\d[\w.]*)|(?P<mark>[{}()\[\],;:@!|<>+=-])",
    re.DOTALL,
)
SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
SPACES = (".param", ".shared", ".local", ".const", ".global")


class PtxError(Exception):
    """The text is not PTX that this parser can read."""


@dataclass(frozen=True)
class Register:
    name: str


@dataclass(frozen=True)
class Number:
    text: str


@dataclass(frozen=True)
class Symbol:
    """A variable, a function or a label."""

    name: str


@dataclass(frozen=True)
class Address:
    base: Register | Number | Symbol
    offset: int


@dataclass(frozen=True)
class Several:
    """``{a, b}``, ``(a, b)`` or ``a|b``."""

    items: tuple[Operand, ...]


@dataclass(frozen=True)
class Negated:
    register: Register


Operand = Register | Number | Symbol | Address | Several | Negated


@dataclass(frozen=True)
class Variable:
    name: str
    space: str
    type: str
    align: int
    size: int
    initial: bytes | None = None


@dataclass(frozen=True)
class Instruction:
    opcode: str
    operands: tuple[Operand, ...]
    guard: Register | Negated | None
    line: int


@dataclass
class Function:
    name: str
    is_entry: bool
    parameters: list[Variable]
    results: list[Variable]
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)


@dataclass
class Module:
    target: str = ""
    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    # Dynamic shared memory.
    external: dict[str, Variable] = field(default_factory=dict)


class _Scope:
    """What ``{`` opens: names declared in it hide those outside."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.names: dict[str, str] = {}


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, int]] = []
        position, line = 0, 1
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise PtxError(f"line {line}: cannot read {text[position : position + 20]!r}")
            if match.lastgroup in ("string", "word", "number", "mark"):
                self.tokens.append((match.group(), line))
            line += match.group().count("\n")
            position = match.end()
        self.tokens.append(("", line))
        self.at = 0
        self.module = Module()
        self.scopes: list[_Scope] = []
        self.n_scopes = 0
        self.registers: dict[str, str] = {}

    @property
    def token(self) -> str:
        return self.tokens[self.at][0]

    @property
    def line(self) -> int:
        return self.tokens[self.at][1]

    def take(self, expected: str | None = None) -> str:
        token = self.token
        if expected is not None and token != expected:
            raise PtxError(f"line {self.line}: {expected!r} expected, found {token!r}")
        self.at += 1
        return token

    def accept(self, token: str) -> bool:
        if self.token != token:
            return False
        self.at += 1
        return True

    def skip_line(self) -> None:
        line = self.line
        while self.line == line and self.token:
            self.at += 1

    def module_text(self) -> Module:
        external = False
        while self.token:
            token = self.token
            if token == ".target":
                self.module.target = self.tokens[self.at + 1][0]
                self.skip_line()
            elif token in (".version", ".address_size", ".file", ".pragma", ".loc"):
                self.skip_line()
            elif token in (".visible", ".weak", ".common", ".extern"):
                external = token == ".extern"
                self.take()
            elif token in (".entry", ".func"):
                self.function()
                external = False
            elif token in SPACES:
                for variable in self.variable():
                    (self.module.external if external else self.module.variables)[variable.name] = variable
                self.take(";")
                external = False
            else:
                raise PtxError(f"line {self.line}: unknown directive {token!r}")
        return self.module

    def variable(self) -> list[Variable]:
        """``.shared .align 4 .b8 name[16] = {...}``, without what ends it; ``name<2>`` stands for name0 and name1."""
        space, align, kind = self.take()[1:], 0, ""
        while self.token.startswith("."):
            word = self.take()
            if word == ".align":
                align = int(self.take())
            elif word.lstrip(".busf") in SIZES:
                kind = word[1:]
            elif word not in (".ptr", ".global", ".const", ".shared", ".local"):
                raise PtxError(f"line {self.line}: unknown {word!r} of a variable")
        name, count = self.take(), 1
        names = [name]
        if self.accept("<"):
            names = [f"{name}{i}" for i in range(int(self.take()))]
            self.take(">")
        while self.accept("["):
            count *= 0 if self.token == "]" else int(self.take(), 0)
            self.take("]")
        item = SIZES[kind.lstrip("busf")]
        initial = self.initial_value(kind, item) if self.accept("=") else None
        size = max(count * item, len(initial or b""))
        return [Variable(each, space, kind, max(align, item), size, initial) for each in names]

    def initial_value(self, kind: str, item: int) -> bytes:
        numbers = []
        if self.accept("{"):
            while not self.accept("}"):
                numbers.append(self.take())
                self.accept(",")
        else:
            numbers.append(self.take())
        data = b""
        for text in numbers:
            if not re.fullmatch(r"-?\d\w*", text):
                raise PtxError(f"line {self.line}: an initial value of {text!r} is an address, which is not supported")
            data += (number_bits(text) % (1 << (8 * item))).to_bytes(item, "little")
        return data

    def parameters(self) -> list[Variable]:
        found = []
        self.take("(")
        while not self.accept(")"):
            if self.accept(".reg"):
                raise PtxError(f"line {self.line}: a function with register parameters")
            found += self.variable()
            self.accept(",")
        return found

    def function(self) -> None:
        is_entry = self.take() == ".entry"
        results = self.parameters() if self.token == "(" else []
        name = self.take()
        parameters = self.parameters() if self.token == "(" else []
        function = Function(name, is_entry, parameters, results)
        while self.token not in ("{", ";"):
            self.skip_line()  # .maxntid and the like
        if self.accept(";"):
            return
        self.module.functions[name] = function
        for variable in (*parameters, *results):
            function.variables[variable.name] = variable
        self.scopes, self.registers = [], function.registers
        self.body(function)

    def body(self, function: Function) -> None:
        self.take("{")
        self.n_scopes += 1
        self.scopes.append(_Scope("" if not self.scopes else f"@{self.n_scopes}"))
        while not self.accept("}"):
            token = self.token
            if token == "{":
                self.body(function)
            elif token == ".reg":
                self.take()
                kind = self.take()[1:]
                while not self.accept(";"):
                    self.declare_registers(function, kind)
                    self.accept(",")
            elif token in SPACES:
                for variable in self.variable():
                    name = self.declare(variable.name)
                    function.variables[name] = Variable(
                        name, variable.space, variable.type, variable.align, variable.size, variable.initial
                    )
                self.take(";")
            elif token in (".pragma", ".loc"):
                self.skip_line()
            elif self.tokens[self.at + 1][0] == ":":
                self.label(function)
            else:
                function.instructions.append(self.instruction())
        self.scopes.pop()

    def declare(self, name: str) -> str:
        scope = self.scopes[-1]
        scope.names[name] = name + scope.suffix
        return scope.names[name]

    def declare_registers(self, function: Function, kind: str) -> None:
        name = self.take()
        names = [name]
        if self.accept("<"):
            names = [f"{name}{i}" for i in range(int(self.take()))]
            self.take(">")
        for each in names:
            function.registers[self.declare(each)] = kind

    def label(self, function: Function) -> None:
        name = self.take()
        self.take(":")
        if self.token == ".branchtargets":
            self.take()
            targets = []
            while not self.accept(";"):
                targets.append(self.take())
                self.accept(",")
            function.tables[name] = targets
        elif self.token == ".callprototype":
            while self.take() != ";":
                pass
        else:
            function.labels[name] = len(function.instructions)

    def instruction(self) -> Instruction:
        line, guard = self.line, None
        if self.accept("@"):
            negated = self.accept("!")
            register = self.name(self.take())
            if not isinstance(register, Register):
                raise PtxError(f"line {line}: a guard that is not a register")
            guard = Negated(register) if negated else register
        opcode, operands = self.take(), []
        while not self.accept(";"):
            operands.append(self.operand())
            self.accept(",")
        return Instruction(opcode, tuple(operands), guard, line)

    def operand(self) -> Operand:
        for opening, closing in (("{", "}"), ("(", ")")):
            if self.accept(opening):
                items = []
                while not self.accept(closing):
                    items.append(self.operand())
                    self.accept(",")
                return Several(tuple(items))
        if self.accept("["):
            base = self.name(self.take())
            offset = 0
            if self.accept("+") or self.token.startswith("-"):
                offset = int(self.take(), 0)
            self.take("]")
            return Address(base, offset)
        if self.accept("!"):
            register = self.name(self.take())
            if not isinstance(register, Register):
                raise PtxError(f"line {self.line}: not of something other than a register")
            return Negated(register)
        first = self.name(self.take())
        if self.accept("|"):
            return Several((first, self.name(self.take())))
        return first

    def name(self, token: str) -> Register | Number | Symbol:
        if re.match(r"-?\d", token):
            return Number(token)
        for scope in reversed(self.scopes):
            if token in scope.names:
                token = scope.names[token]
                break
        # Special registers are declared nowhere.
        is_register = token in self.registers or token == "_" or token.startswith("%")
        return Register(token) if is_register else Symbol(token)


def number_bits(text: str) -> int:
    """An integer literal, or the bits of a floating-point one; not yet cut to a width."""
    negative, digits = text.startswith("-"), text.lstrip("-")
    if digits[:2] in ("0f", "0F", "0d", "0D"):
        bits = int(digits[2:], 16)
        return bits ^ (1 << (31 if digits[1] in "fF" else 63)) if negative else bits
    digits = digits.rstrip("U")
    value = int(digits, 8) if re.fullmatch(r"0[0-7]+", digits) else int(digits, 0)
    return -value if negative else value


def parse(text: str) -> Module:
    return _Parser(text).module_text()
