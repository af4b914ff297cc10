"""Completion of the command line, in the shell it is for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from egtmetrics.cli import main

BASH = shutil.which("bash")
ASK = """
source completion.bash
complete -p egtmetrics >/dev/null || exit 1
ask() { COMP_WORDS=(egtmetrics "$@"); COMP_CWORD=$#; COMPREPLY=(); _shtab_egtmetrics egtmetrics "${!#}"; }
ask ev; echo "${COMPREPLY[@]}"
ask evaluate --real-gr; echo "${COMPREPLY[@]}"
ask evaluate --backend c; echo "${COMPREPLY[@]}"
ask evaluate rea; echo "${COMPREPLY[@]}"
ask report real.npz fa; echo "${COMPREPLY[@]}"
ask reproduce table1 --checkpoint fa; echo "${COMPREPLY[@]}"
"""


def printed(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", shell])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_bash_completes_commands_options_choices_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "completion.bash").write_text(printed("bash", capsys))
    for name in ("real.npz", "fake.npz"):
        (tmp_path / name).touch()
    done = subprocess.run([str(BASH), "-c", ASK], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    commands, *others = done.stdout.splitlines()
    assert commands.split() == ["evaluate", "evaluate-text", "evaluate-images"]
    assert others == ["--real-groups", "cpu cuda", "real.npz", "fake.npz", "fake.npz"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "fine-tune-encoder" in printed(shell, capsys)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", "fish"])
    assert end.value.code == 2
    assert "'zsh'" in capsys.readouterr().err
