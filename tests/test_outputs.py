"""The JSON of the commands is what docs/reference/outputs.schema.json says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics.cli import main

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "reference" / "outputs.schema.json").read_text())
GROUPS = ["--groups", "y", "--metrics", "ipr", "--quiet", "--format", "json"]
FID = ["--groups", "y", "--metrics", "fid", "--quiet", "--format", "json"]
FULL = ["--baseline", "split", "--tolerance", "5pp", "--interval", "0.9"]
COMMANDS = {
    "evaluation": ["evaluate", "real.npz", "a.npz", *GROUPS],
    "evaluation with all": ["evaluate", "real.npz", "a.npz", *GROUPS, *FULL, "--match-groups", "--control", "s"],
    "evaluation audited": ["audit", "plan.toml"],
    "comparison": ["compare", "--reference", "real.npz", "a.npz", "b.npz", *GROUPS],
    "comparison with all": ["compare", "--reference", "real.npz", "a.npz", "b.npz", *GROUPS, *FULL],
    "comparison untested": ["compare", "--reference", "real.npz", "a.npz", "b.npz", *GROUPS, "--permutations", "0"],
    "comparison permuted": ["compare", "--reference", "real.npz", "a.npz", "b.npz", *FID, "--permutations", "79"],
    "plan": ["plan", "real.npz", "a.npz", *GROUPS, "--tolerance", "5pp"],
    "plan of a width": ["plan", "real.npz", "a.npz", *GROUPS, "--width", "20pp"],
}


def schema_of(name: str) -> dict[str, Any]:
    return {**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{name}"}]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y, s = np.repeat(["f", "m"], 150), np.tile(["a", "b"], 150)
    for name, shift in (("real", 0.0), ("a", 0.3), ("b", 0.5)):
        features = rng.normal(size=(300, 3)) + shift * (y == "f")[:, None]
        np.savez(tmp_path / f"{name}.npz", features=features, y=y, s=s)
    (tmp_path / "plan.toml").write_text(
        'command = "evaluate"\nreal = "real.npz"\nfake = "a.npz"\ngroups = "y"\nmetrics = ["fid"]\n'
        'format = "json"\nquiet = true\ninterval = 0.9\n'
    )
    monkeypatch.chdir(tmp_path)


def output(name: str, capsys: pytest.CaptureFixture[str]) -> Any:
    assert main(COMMANDS[name]) in (0, 3, 4)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", COMMANDS)
def test_output_is_what_the_schema_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema.Draft202012Validator(schema_of(name.split()[0])).validate(output(name, capsys))


def test_the_schema_is_one_and_closed(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    content = output("evaluation", capsys)
    content["by_group"]["f"]["ipr_recall"] = "high"
    content["disparities"]["ipr"]["delta_p"]["other"] = 1
    del content["overall"]
    errors = [
        *jsonschema.Draft202012Validator(SCHEMA["$defs"]["evaluation"] | {"$defs": SCHEMA["$defs"]}).iter_errors(
            content
        )
    ]
    assert len(errors) == 3
