"""What the pages show: Python blocks run, and every ``egtmetrics`` command has arguments that exist.

Links, and the cells of pages that have some, are the business of ``make docs``. A page may hold two comments, which a
reader does not see:

    <!-- python           code that runs before the block below it, such as what makes its files
    -->
    <!-- not run: why -->

The block below the second is compiled, its imports are made, and its calls are compared with signatures.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import doctest
import inspect
import io
import itertools
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from egtmetrics import registry
from egtmetrics.cli import command_parser
from egtmetrics.registry import registered_metrics

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HIDDEN = re.compile(r"<!-- python\n(.*)-->\s*", re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\s*")

Namespace = dict[str, Any]
Block = tuple[str, str, int, Callable[[str, Namespace], object]]
"""Its source, what it should print ("" if the page does not say), its line, and what to do with it."""


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def python_blocks(page: Path) -> Iterator[Block]:
    found = tokens(page)
    for before, token, after in zip([None, *found], found, [*found[1:], None], strict=False):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block" and (hidden := HIDDEN.fullmatch(token.content)):
            yield hidden[1], "", line, run
        elif token.type == "fence" and token.info == "python":
            if before is not None and before.type == "html_block" and NOT_RUN.fullmatch(before.content):
                yield token.content, "", line, check
            elif token.content.startswith(">>>"):
                yield token.content, "", line, run_examples
            else:
                printed = after.content if after is not None and after.type == "fence" and not after.info else ""
                yield token.content, printed, line, run


def run(source: str, namespace: Namespace) -> None:
    exec(compile(source, "block", "exec", dont_inherit=True), namespace)


def run_examples(source: str, namespace: Namespace) -> None:
    examples = doctest.DocTestParser().get_doctest(source, namespace, "block", None, None)
    assert doctest.DocTestRunner().run(examples, clear_globs=False).failed == 0
    namespace.update(examples.globs)


def check(source: str, namespace: Namespace) -> None:
    """Make the imports of a block, and see that its functions take the arguments that it gives them."""
    block = ast.parse(source)
    imports = [node for node in block.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module([*imports], []), "block", "exec"), namespace)
    calls = [node for node in ast.walk(block) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert calls
    for call in calls:
        name = call.func.id  # type: ignore[attr-defined]
        function = namespace.get(name) or getattr(builtins, name)
        inspect.signature(function).bind(*call.args, **{str(given.arg): given.value for given in call.keywords})


def assert_prints(printed: str, promised: str) -> None:
    """The last digits depend on the instruction set, the spaces on the version of pandas."""
    words, expected = printed.split(), promised.split()
    assert len(words) == len(expected)
    for word, other in zip(words, expected, strict=True):
        if re.fullmatch(r"[\d.]+", other):
            assert float(word) == pytest.approx(float(other), abs=5e-4)
        else:
            assert word == other


@pytest.mark.parametrize("page", [page for page in PAGES if [*python_blocks(page)]], ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", registered_metrics())  # a page may register a metric
    monkeypatch.chdir(tmp_path)
    namespace: Namespace = {"__name__": page.stem}
    for source, promised, line, act in python_blocks(page):
        try:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                act(source, namespace)
            if promised:
                assert_prints(printed.getvalue(), promised)
        except Exception as error:
            if isinstance(error, ImportError) and "torch" in str(error):
                pytest.skip("needs PyTorch")
            error.add_note(f"in the block at {page.name}, line {line}:\n{printed.getvalue()}")
            raise


def command_lines(page: Path) -> Iterator[tuple[str, bool]]:
    """Yield the commands of blocks, and those amid a text, which may leave out arguments that everybody has to give."""
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            for line in token.content.replace("\\\n", " ").splitlines():
                if command := re.match(r"(?:\$ |!)?egtmetrics (.*)", line):
                    yield command[1], True
        for child in token.children or []:
            if child.type == "code_inline" and (command := re.match(r"egtmetrics ([a-z].*)", child.content)):
                yield re.sub(r"\bN\b", "1", command[1]), False


def complaint(command: str, *, is_whole: bool) -> str:
    """Parse the arguments up to the end of the command; return what the parser has against them."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = [*itertools.takewhile(lambda word: not re.fullmatch(r"[|&;<>]+", word), lexer)]
    parser = command_parser()
    if not is_whole:
        ask_for_nothing(parser)
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(words)
        except SystemExit as end:
            return said.getvalue() if end.code else ""
    return ""


def ask_for_nothing(parser: Any) -> None:
    """Let every argument be left out."""
    parser.complete()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            action.required = False
            for command in action.choices.values():
                ask_for_nothing(command)
        elif action.option_strings:
            action.required = False
        else:
            action.nargs = "*"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_have_arguments_that_exist(page: Path) -> None:
    for command, is_whole in command_lines(page):
        said = complaint(command, is_whole=is_whole)
        assert not said, f"egtmetrics {command}\n{said}"


def test_a_command_that_does_not_exist_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```\negtmetrics evaluate a.npz b.npz \\\n    --groups 'y z' # all\n!egtmetrics info --nope | head\n```\n\n"
        "    egtmetrics report real.npz\n\nSay `egtmetrics evaluate --metrics prdc`, `egtmetrics evaluate --nope`.\n"
    )
    expected = ("", "--nope", "are required", "", "--nope")
    for (command, is_whole), words in zip(command_lines(page), expected, strict=True):
        said = complaint(command, is_whole=is_whole)
        assert words in said
        assert bool(said) == bool(words)


def test_modules_and_targets_that_pages_name_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    modules = set(re.findall(r"python -m\s+(benchmarks\.\w+)", text))
    assert len(modules) >= 4
    for module in modules:
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module
    targets = set(re.findall(r"^make ([a-z0-9-]+)|`make ([a-z0-9-]+)", text, re.MULTILINE))
    assert len(targets) >= 6
    made = re.findall(r"^([a-z0-9 -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {one or other for one, other in targets} <= {name for line in made for name in line.split()}


def test_the_packages_stand_in_the_order_of_the_import_contract() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [set(re.findall(r"egtmetrics\.([a-z]\w*)", layer)) for layer in contract["layers"]]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page[page.index("| packages, from the top |") : page.index("## The way of one array")]
    rows = [set(re.findall(r"`(\w+)`", line.split("|")[1])) for line in table.splitlines() if line.startswith("| `")]
    assert rows == [layer for layer in layers if layer]
    assert len(rows) > 10
