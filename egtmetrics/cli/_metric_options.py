"""Options of the command line that come from the registered metrics: their names, signatures and docstrings."""

from __future__ import annotations

import argparse
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from egtmetrics.registry import registered_metrics

_SHARED = ("random_state", "backend", "n_threads")
"""Options of every command, which the frame passes on."""
_METAVARS = {int: "N", float: "X", str: "TEXT"}


class Parameter(NamedTuple):
    """A keyword of a metric that the command line can set."""

    name: str
    default: Any
    kind: type
    choices: tuple[Any, ...] | None
    text: str
    """Its paragraph in the docstring of the metric."""


Options = Mapping[str, Mapping[str, Parameter]]
"""By option, which is also the attribute of the parsed arguments, and by metric."""


def add_registered(parser: argparse.ArgumentParser, group: Any, *, default: str) -> None:
    """Add ``--metrics`` and, for every keyword of a metric with a simple type, an option of the same name.

    Metrics share an option. Where a command has an option of that name already, or another metric has one of another
    type, the name of the metric goes in front: ``--approximate-prdc-level``.
    """
    metrics = registered_metrics()
    group.add_argument(
        "--metrics",
        type=metric_names,
        default=default,
        metavar="NAMES",
        help=f"separated by commas, of {', '.join(metrics)} (default: %(default)s)",
    )
    by_option: dict[tuple[str, type, tuple[Any, ...] | None], dict[str, Parameter]] = {}
    for metric in metrics.values():
        for parameter in parameters(metric.function):
            by_option.setdefault((parameter.name, parameter.kind, parameter.choices), {})[metric.name] = parameter
    options: dict[str, Mapping[str, Parameter]] = {}
    for (name, _, _), users in by_option.items():
        try:
            options |= _add(group, name, users)
        except argparse.ArgumentError:  # the command, or another metric, has one of this name
            for metric_name, parameter in users.items():
                options |= _add(group, f"{metric_name}-{name}", {metric_name: parameter})
    parser.set_defaults(metric_options=options)


def _add(group: Any, name: str, users: Mapping[str, Parameter]) -> dict[str, Mapping[str, Parameter]]:
    first = next(iter(users.values()))
    how: dict[str, Any] = {"type": first.kind, "metavar": _METAVARS.get(first.kind)}
    if first.kind is bool:
        how = {"action": argparse.BooleanOptionalAction}
    elif first.choices is not None:
        how = {"type": first.kind, "choices": first.choices}
    option = f"--{name.replace('_', '-')}"
    group.add_argument(option, dest=option, default=None, help=_help(users).replace("%", "%%"), **how)
    return {option: users}


def metric_names(value: str) -> list[str]:
    """Split the value of ``--metrics``."""
    known = registered_metrics()
    names = list(dict.fromkeys(name.strip() for name in value.split(",")))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown metric {unknown[0]!r}; choose from {', '.join(known)}")
    return names


def chosen_metrics(args: argparse.Namespace) -> dict[str, Callable[..., Any]]:
    """Return the metrics that were asked for, each with those of the given options that it has."""
    known = registered_metrics()
    chosen: dict[str, dict[str, Any]] = {name: {} for name in args.metrics}
    for option, users in args.metric_options.items():
        value = getattr(args, option)
        if value is None:
            continue
        if not set(users) & set(chosen):
            raise ValueError(
                f"{option} is an option of {', '.join(users)}, and --metrics {','.join(chosen)} has "
                "none of these; leave it out, or add its metric"
            )
        for name, parameter in users.items():
            if name in chosen:
                chosen[name][parameter.name] = value
    return {name: functools.partial(known[name].function, **options) for name, options in chosen.items()}


def with_precision_and_recall() -> list[str]:
    """Return the metrics that ``--figure`` can draw: those that declare scores named precision and recall."""
    return [name for name, metric in registered_metrics().items() if {"precision", "recall"} <= set(metric.scores())]


def with_own_variance() -> list[str]:
    """Return the metrics whose intervals cost little, since they have a variance estimator of their own."""
    return [name for name, metric in registered_metrics().items() if metric.variance is not None]


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """Return the keyword-only parameters of a metric that have a simple type: numbers, text, booleans, choices."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):  # names that are imported for type checkers only, or a callable object
        hints = {}
    texts = _parameter_texts(inspect.getdoc(function) or "")
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or name in _SHARED:
            continue
        simple = _simple(hints.get(name, type(parameter.default)))
        if simple is not None:
            found.append(Parameter(name, parameter.default, *simple, texts.get(name, "")))
    return found


def _simple(hint: Any) -> tuple[type, tuple[Any, ...] | None] | None:
    """Return the type of the option and its choices; None where the command line cannot give such a value."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        return _simple(members[0]) if len(members) == 1 else None
    if typing.get_origin(hint) is Literal:
        choices = tuple(choice for choice in typing.get_args(hint) if choice is not None)
        kinds = {type(choice) for choice in choices}
        return (kinds.pop(), choices) if len(kinds) == 1 else None
    return (hint, None) if hint in (int, float, str, bool) else None


def _parameter_texts(docstring: str) -> dict[str, str]:
    """Return the paragraphs of the section Parameters of a numpydoc docstring, by name."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+$|\Z)", docstring, flags=re.DOTALL | re.MULTILINE)
    texts = {}
    if section is not None:
        for names, text in re.findall(r"^(\S[^\n]*)\n((?:[ ]+[^\n]*\n?|\n)*)", section[1], flags=re.MULTILINE):
            for name in names.partition(" :")[0].split(","):
                texts[name.strip()] = " ".join(text.split())
    return texts


def _help(users: Mapping[str, Parameter]) -> str:
    texts = [sentence for parameter in users.values() if (sentence := _sentences(parameter.text)[0])]
    texts.sort(key=lambda sentence: sentence.startswith(("as in ", "as for ")))  # which say nothing here
    meaning = next((meaning for parameter in users.values() if (meaning := _meaning_of_none(parameter))), "none")
    defaults = {
        name: (_meaning_of_none(parameter) or meaning) if parameter.default is None else str(parameter.default)
        for name, parameter in users.items()
    }
    stated = next(iter(defaults.values()))
    if len(set(defaults.values())) > 1:
        users_of = {default: [name for name in defaults if defaults[name] == default] for default in defaults.values()}
        stated = "; ".join(f"{default} for {', '.join(names)}" for default, names in users_of.items())
    return f"{', '.join(users)}: {texts[0] if texts else 'see its documentation'} (default: {stated})"


def _meaning_of_none(parameter: Parameter) -> str:
    """Return what the docstring says that None means; empty if nothing."""
    for sentence in _sentences(parameter.text):
        meaning = re.search(r"\bNone(?: means| is|:) (.*)", sentence)
        if meaning is not None:
            return meaning[1]
    return ""


def _sentences(text: str) -> list[str]:
    """Return the sentences of a text without markup and full stops, the first in lower case."""
    plain = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("`", "")
    first, *others = re.split(r"(?<!al)\.(?:\s+|$)", plain)
    return [first[:1].lower() + first[1:] if first[1:2].islower() else first, *others]
