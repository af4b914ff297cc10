"""The documentation site: ``make docs`` builds it into build/site and treats every warning as an error.

The repository is the source folder, so pages link to README, to each other and to recorded results as they do there.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import egtmetrics
from egtmetrics.cli import command_parser

project = "egtmetrics"
author = "the egtmetrics developers"
copyright = author  # Sphinx reads this name
release = egtmetrics.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "benchmarks/results/*.md"]
exclude_patterns = [".*", "build", "dist", "egtmetrics", "tests", "training"]  # not even looked into

# Pages.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Cells run when the site is built, each page in a folder of its own; a cell that fails stops the build.
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parents[1] / "build" / "site-cells")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # cells find egtmetrics
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm misses widgets, which pages could not show

# A command in a cell, !egtmetrics ..., prints all at once, since myst-nb ends a line after every piece, and stops the
# build if it fails, which IPython ignores.
startup = Path(__file__).parents[1] / "build" / "ipython" / "profile_default" / "startup" / "commands.py"
startup.parent.mkdir(parents=True, exist_ok=True)
startup.write_text("""
import subprocess

def system(command):
    done = subprocess.run(command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout, end="")
    done.check_returncode()

get_ipython().system = system
""")
os.environ["IPYTHONDIR"] = str(startup.parents[2])

# The reference is what the docstrings say.
napoleon_numpy_docstring = True
napoleon_google_docstring = False
autodoc_member_order = "groupwise"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
autosummary_generate = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90  # a longer one has a line for each argument

# Copied without prompts and outputs.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"egtmetrics {release}"
html_static_path = ["_static"]
html_extra_path = ["_root"]  # its index.html leads to docs/index.html
html_css_files = ["site.css"]


class CommandHelp(SphinxDirective):
    """A section for every command, and for every command of it, with what ``--help`` prints."""

    def run(self) -> list[nodes.Node]:
        return self.sections(command_parser())

    def sections(self, parser: argparse.ArgumentParser) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    section = nodes.section("", nodes.title("", command.prog), ids=[nodes.make_id(command.prog)])
                    self.state.document.note_explicit_target(section, section)
                    section += nodes.literal_block("", command.format_help(), language="none")
                    section += self.sections(command)
                    found.append(section)
        return found


KINDS = {
    "Functions": ("function", inspect.isroutine),
    "Classes": ("class", inspect.isclass),
    "Warnings and errors": ("exception", lambda value: inspect.isclass(value) and issubclass(value, Exception)),
    "Constants and types": ("data", lambda value: True),
}
"""The sections of the page of a module: the directive of their members, and what belongs there."""


def kind_of(value: object) -> str:
    """Return the section that something public belongs to."""
    order = ("Warnings and errors", "Classes", "Functions", "Constants and types")
    return next(kind for kind in order if KINDS[kind][1](value))


def write_outputs(app: Sphinx, docname: str, source: list[str]) -> None:
    """Write a table of every part of the schema below the page on outputs."""
    if docname != "docs/reference/outputs":
        return
    parts = json.loads(Path(app.srcdir, "docs/reference/outputs.schema.json").read_text())["$defs"]
    for name, part in parts.items():
        lines = [f"## {name}", part["description"]]
        rows = [
            f"| `{key}`{'' if key in part['required'] else '°'} | {type_of(value)} | {value.get('description', '')} |"
            for key, value in part.get("properties", {}).items()
        ]
        lines += ["\n".join(["| key | type | what |", "|---|---|---|", *rows])] if rows else []
        lines += [f"And the keys of {type_of(part)}."] if "$ref" in part else []
        rest = part.get("additionalProperties") or part.get("unevaluatedProperties")
        lines += [rest["description"]] if rest else []
        # An option is code, or its dashes would become one.
        source[0] += "\n\n" + re.sub(r"(?<!`)(--[a-z]+)", r"`\1`", "\n\n".join(lines))


def type_of(schema: dict[str, Any]) -> str:
    """Say in words what values a part of a schema takes."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema["type"] == "array":
        return f"list of {type_of(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"by name: {type_of(schema['additionalProperties'])}"
    return schema["type"] if isinstance(schema["type"], str) else " or ".join(schema["type"])


def write_reference(app: Sphinx, docname: str, source: list[str]) -> None:
    """Write the rest of a page of the reference below its title, which is the name of a module."""
    name = source[0].removeprefix("# ").strip()
    if not docname.startswith("docs/reference/") or not name.startswith("egtmetrics."):
        return
    module = importlib.import_module(name)
    public = {member: getattr(module, member) for member in sorted(module.__all__, key=str.lower)}
    kinds = {kind: [member for member in public if kind_of(public[member]) == kind] for kind in KINDS}
    parts = [f".. automodule:: {name}\n   :no-members:"]
    for kind, members in kinds.items():
        if members:
            listed = "".join(f"\n   {member}" for member in members)
            parts.append(f".. rubric:: {kind}\n\n.. autosummary::\n   :nosignatures:\n{listed}")
    text = ["\n\n".join(parts)]
    for kind, members in kinds.items():
        described = "\n".join(f".. auto{KINDS[kind][0]}:: {name}.{member}" for member in members)
        text += [described] if members else []
    blocks = [f"```{{eval-rst}}\n.. currentmodule:: {name}\n\n{block}\n```" for block in text]
    headings = [f"## {kind}\n\n" for kind, members in kinds.items() if members]
    rest = (f"{heading}{block}" for heading, block in zip(headings, blocks[1:], strict=True))
    source[0] = "\n\n".join([source[0], blocks[0], *rest])


def setup(app: Sphinx) -> None:
    """Add what this site needs of its own."""
    app.add_directive("command-help", CommandHelp)
    app.connect("source-read", write_reference)
    app.connect("source-read", write_outputs)
