"""The documentation site: ``make docs`` builds it into build/site and treats every warning as an error.

The repository is the source folder, so pages link to README, to each other and to recorded results as they do there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

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
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
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
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "imported-members": True}

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


def setup(app: Sphinx) -> None:
    """Add what this site needs of its own."""
    app.add_directive("command-help", CommandHelp)
