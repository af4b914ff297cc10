"""The declarations of the primitives as data, and the methods of a backend that follow from them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from egtmetrics.ops._backend import Features, HostBackend, Shape

_B = TypeVar("_B")
_OWN = {"x": Shape("n", "d"), "y": Shape("m", "d")}


@dataclass(frozen=True)
class Value:
    """An argument or a result."""

    name: str
    dtype: str
    """``"features"``, the dtype of another array such as ``"uint16"``, or ``"int"``, ``"float"``, ``"bool"``."""
    shape: Shape | None
    optional: bool = False

    @property
    def is_features(self) -> bool:
        return self.dtype == "features"

    @property
    def on_host(self) -> bool:
        return self.shape is not None and self.shape.on_host

    @property
    def on_device(self) -> bool:
        return self.shape is not None and not self.shape.on_host

    @property
    def stays(self) -> bool:
        return self.is_features or (self.shape is not None and self.shape.stays)

    @property
    def lengths(self) -> tuple[str, ...]:
        return () if self.shape is None else self.shape.lengths


@dataclass(frozen=True)
class Primitive:
    """What a method of the protocols declares. A parameter that is a tuple has several arguments, its parts."""

    name: str
    declaration: Callable[..., Any]
    signature: inspect.Signature
    parts: dict[str, tuple[Value, ...]]
    """The arguments by parameter."""
    results: tuple[Value, ...]
    types: dict[str, Any]
    """The type of every parameter, and of what is returned."""

    @functools.cached_property
    def arguments(self) -> tuple[Value, ...]:
        return tuple(argument for parts in self.parts.values() for argument in parts)

    @property
    def takes_arrays(self) -> bool:
        return any(argument.on_device for argument in self.arguments)

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the value of every argument by name."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values: dict[str, Any] = {}
        for name, parts in self.parts.items():
            given = bound.arguments[name]
            names = (argument.name for argument in parts)
            values |= zip(names, [given] if len(parts) == 1 else given, strict=True)
        return values

    def call(self, backend: Any, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Call the method of a backend with the value of every argument; return its results."""
        parameters = {}
        for name, parts in self.parts.items():
            given = [values[argument.name] for argument in parts]
            parameters[name] = given[0] if len(given) == 1 else _tuple(self.types[name], given)
        results = getattr(backend, self.name)(**parameters)
        return results if isinstance(results, tuple) else (results,)

    def lengths(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return every length by name, from the arrays given; whole numbers are lengths, too."""
        found: dict[str, Any] = {}
        for argument in self.arguments:
            value = values[argument.name]
            if value is not None:
                sizes = value.shape if argument.on_device else [len(value)] if argument.on_host else []
                found |= zip(argument.lengths, sizes, strict=True)
            if argument.dtype == "int":
                found[argument.name] = value
        if "n" in found:
            found.setdefault("m", found["n"])
        return found

    def result_shapes(self, values: Mapping[str, Any]) -> Iterator[tuple[Value, tuple[Any, ...]]]:
        """Yield every result with its lengths."""
        lengths = self.lengths(values)
        for result in self.results:
            needed = result.shape.empty_without if result.shape else None
            missing = needed is not None and values[needed] is None
            yield result, (0,) if missing else tuple(lengths[length] for length in result.lengths)

    def joined(self, results: Sequence[Any]) -> Any:
        """Return results as the method does: one array, a tuple, or a named tuple."""
        if len(self.results) == 1:
            return results[0]
        return _tuple(self.types["return"], results)


def _tuple(kind: Any, values: Sequence[Any]) -> Any:
    return kind(*values) if hasattr(kind, "_fields") else tuple(values)


def _values(name: str, hint: Any) -> Iterator[Value]:
    """The value of this name and type, or the parts of a tuple."""
    optional = NoneType in get_args(hint)
    if optional and hint != Features | None:
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    shape = None
    if get_origin(hint) is Annotated:
        hint, shape = hint.__origin__, next(iter(hint.__metadata__))
    if hint in (Features, Features | None):
        yield Value(name, "features", shape or _OWN[name], optional)
    elif hasattr(hint, "_fields"):
        for field, part in get_type_hints(hint, include_extras=True).items():
            yield from _values(field, part)
    elif get_origin(hint) is tuple:
        for number, part in enumerate(get_args(hint)):
            yield from _values(f"{name}_{number}", part)
    elif get_origin(hint) is np.ndarray:
        scalar = get_args(get_args(hint)[1])[0]
        yield Value(name, np.dtype(scalar).name, shape, optional)
    else:
        yield Value(name, hint.__name__, None, optional)


def _read(declaration: Callable[..., Any]) -> Primitive:
    types = get_type_hints(declaration, include_extras=True)
    signature = inspect.signature(declaration)
    _, *parameters = signature.parameters.values()
    return Primitive(
        name=declaration.__name__,
        declaration=declaration,
        signature=signature.replace(parameters=parameters),
        parts={one.name: tuple(_values(one.name, types[one.name])) for one in parameters},
        results=tuple(_values("result", types["return"])),
        types=types,
    )


@functools.cache
def primitives(protocol: type = HostBackend) -> dict[str, Primitive]:
    """Return the primitives that a protocol declares, by name."""
    functions = (function for _, function in inspect.getmembers(protocol, inspect.isfunction))
    return {one.__name__: _read(one) for one in functions if not one.__name__.startswith("_")}


class WrappedBackend:
    """A backend that hands to another what it does not do itself."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.name: str = backend.name
        self.device: str | None = backend.device

    @property
    def arithmetic(self) -> str:
        """What the last digits of a result depend on."""
        return f"{self.name} {getattr(self._backend, 'arithmetic', self.device)}"

    def _run(self, primitive: Primitive, values: dict[str, Any]) -> Any:
        return primitive.joined(primitive.call(self._backend, values))


def implements(protocol: type) -> Callable[[type[_B]], type[_B]]:
    """Give a class the methods of ``protocol`` that it does not define: they call ``_run(primitive, values)``."""

    def complete(backend: type[_B]) -> type[_B]:
        for primitive in primitives(protocol).values():
            if primitive.name not in vars(backend):
                setattr(backend, primitive.name, _method(primitive))
        return backend

    return complete


def _method(primitive: Primitive) -> Callable[..., Any]:
    @functools.wraps(primitive.declaration)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._run(primitive, primitive.bind(*args, **kwargs))

    return method
