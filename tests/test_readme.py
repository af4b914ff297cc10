"""What README promises to print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_ten_lines_print_what_stands_below_them(capsys: pytest.CaptureFixture[str]) -> None:
    """The last digits depend on the instruction set, the spaces on the version of pandas."""
    found = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", README.read_text(), re.DOTALL)
    assert found
    exec(compile(found[1], str(README), "exec"), {})
    printed, promised = capsys.readouterr().out.split(), found[2].split()
    assert len(printed) == len(promised) > 30
    for one, other in zip(printed, promised, strict=True):
        if re.fullmatch(r"[\d.]+", other):
            assert float(one) == pytest.approx(float(other), abs=5e-4)
        else:
            assert one == other
