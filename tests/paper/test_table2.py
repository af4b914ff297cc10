"""Table 2 at the smallest scale: the stages against known texts, the command end to end, killed and resumed.

The language model is tiny and random. Its texts have no names and no meaning, so the oracle goes by length and the
encoder by hash; ``egtmetrics reproduce table2`` uses SmolLM2 and MiniLM by default.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("sentence_transformers")

from egtmetrics.cli import main
from egtmetrics.oracles import LabelOracle
from egtmetrics.paper import biographies as biographies_module
from egtmetrics.paper import table2
from egtmetrics.paper.biographies import GROUPS, Biographies
from egtmetrics.paper.causal_lm import LoRASettings, load_causal_lm
from egtmetrics.paper.generation import Sampling
from egtmetrics.paper.table2 import METHODS, PAPER, REAL, Table2, Table2Settings, reproduce_table2
from egtmetrics.paper.table2_report import describe_samples, describe_table2
from egtmetrics.training.language import losses_of_texts
from tests._killing import kill_when
from tests.training import _tiny

TINY = Table2Settings(
    n_seeds=2, n_real=3, n_per_group=75, max_draws=1200, n_steps=4, batch_size=8, micro_batch=4, learning_rate=1e-2,
    sampling=Sampling(top_p=0.95, max_new_tokens=8), generation_batch=16, n_bootstrap=10,
)  # fmt: skip
TRAINED = METHODS[2:]
rng = np.random.default_rng(0)
TEXTS = Biographies(
    texts=tuple(f"{name}: {'poet ' * n}" for name, n in zip(range(1000), rng.integers(1, 6, size=1000), strict=True)),
    groups=np.where(np.arange(1000) % 4 == 3, -1, np.arange(1000) % 4 != 0).astype(np.int64),
)
"""250 of group 0, 500 of group 1, 250 of none."""
ORACLE = LabelOracle(GROUPS, lambda texts: [(None, *GROUPS)[len(text) % 3] if text else None for text in texts])


def encode(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Gaussian, each text at a place of its own; texts of the two sides have one law."""
    return np.array([np.random.default_rng(zlib.crc32(text.encode())).normal(size=5) for text in texts])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = _tiny.tokenizer()
    tokenizer.model_max_length = 600
    tokenizer.save_pretrained(folder)
    _tiny.llama(len(tokenizer), num_hidden_layers=1, max_position_embeddings=600).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def settings(model: str) -> Table2Settings:
    return dataclasses.replace(TINY, model=model)


@pytest.fixture(scope="module")
def finished(settings: Table2Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table2]:
    folder = tmp_path_factory.mktemp("table2")
    return folder, reproduce(folder, settings)


def reproduce(folder: Path, settings: Table2Settings) -> Table2:
    return reproduce_table2(folder, TEXTS, settings=settings, oracle=ORACLE, encoder=encode)


def stage_in(folder: Path, settings: Table2Settings, seed: int = 0, oracle: Any = ORACLE) -> table2._Stage:
    return table2._Stage(folder / f"seed{seed}", seed, settings, TEXTS.labelled(), oracle, encode, "cpu", False)


def test_results_have_every_run_and_are_kept(finished: tuple[Path, Table2]) -> None:
    folder, table = finished
    assert table.runs.groupby("method", sort=False).size().to_dict() == dict.fromkeys(METHODS, 2) | {REAL: 3}
    models = table.runs[table.runs["method"] != REAL]
    assert models[["topp.precision/all", "mauve.mauve/all", "mgo", "mgo_generated"]].notna().all(axis=None)
    counted = models["n_female"] + models["n_male"] + models["n_abstained"]
    assert counted.tolist() == models["n_drawn"].tolist()
    assert (models[["n_female", "n_male"]] >= TINY.n_per_group).all(axis=None)
    for name in ("runs", "losses"):
        pd.testing.assert_frame_equal(pd.read_csv(folder / f"{name}.csv"), getattr(table, name))
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines if line] == table.samples.to_dict("records")
    # every method has seen as many texts, and keeps adapters
    assert models[models["method"].isin(TRAINED)]["n_seen"].eq(TINY.batch_size * 4).all()
    assert models[~models["method"].isin(TRAINED)]["n_seen"].isna().all()
    assert sorted(path.name for path in (folder / "seed1").glob("*-adapter")) == sorted(f"{m}-adapter" for m in TRAINED)


def test_all_methods_start_alike_and_see_the_same_texts(finished: tuple[Path, Table2]) -> None:
    folder, _ = finished
    checkpoints = {m: torch.load(folder / "seed0" / f"{m}.pt", weights_only=True) for m in TRAINED}
    assert len({c["settings"]["first weights"] for c in checkpoints.values()}) == 1
    assert {c["step"] for c in checkpoints.values()} == {4}
    counts = {m: pd.read_csv(folder / "seed0" / f"{m}-log.csv")[["n_0", "n_1"]].to_numpy().tolist() for m in TRAINED}
    assert all(count == counts["Unconditional"] for count in counts.values())
    weights = [torch.cat([w.flatten() for w in c["weights"].values()]) for c in checkpoints.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_losses_are_those_of_the_held_out_texts_under_the_adapters(
    finished: tuple[Path, Table2], settings: Table2Settings, model: str
) -> None:
    """From the saved adapters; the prompt of the conditional model names the group, the others do not."""
    folder, table = finished
    held_out = stage_in(folder, settings, seed=1).held_out
    for method in ("Pretrained", "Prompted", "Conditional", "Min-Max"):
        network, tokenizer = load_causal_lm(model)
        if method in TRAINED:
            network = _tiny.with_adapter(network, folder / "seed1" / f"{method}-adapter")
        for group, name in enumerate(GROUPS):
            chosen = [text for text, a in zip(held_out.texts, held_out.groups, strict=True) if a == group][:75]
            asked = [name] * 75 if method in ("Prompted", "Conditional") else None
            rows = _tiny.biographies(tokenizer, chosen, [group] * 75, attributes=asked)
            expected = float(losses_of_texts(network, rows).mean())
            row = table.losses.query("seed == 1 and method == @method and group == @name")
            assert row["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_conditional_model_is_asked_for_both_groups(finished: tuple[Path, Table2]) -> None:
    folder, table = finished
    draws = json.loads((folder / "seed0" / "Conditional-draws.json").read_text())
    assert draws["asked"].count("male") == draws["asked"].count("female") == len(draws["texts"]) / 2
    known = [(GROUPS[a], asked) for a, asked in zip(draws["groups"], draws["asked"], strict=True) if a >= 0]
    run = table.runs.query("seed == 0 and method == 'Conditional'")
    assert run["obeyed"].item() == pytest.approx(np.mean([group == asked for group, asked in known]))
    others = json.loads((folder / "seed0" / "Unconditional-draws.json").read_text())
    assert set(others["asked"]) == {None}


def draws_of(texts: Biographies) -> dict[str, Any]:
    counts = {"n_empty": 1, "n_unfinished": 2, "n_without_heading": 3}
    return {"texts": list(texts.texts), "groups": texts.groups.tolist(), "asked": [None] * len(texts), **counts}


def test_evaluation_of_known_texts(settings: Table2Settings, tmp_path: Path) -> None:
    """The held-out texts themselves have no gaps; with one text instead of a group, recall falls there."""
    stage = stage_in(tmp_path, settings)
    run = stage.evaluate("Unconditional", draws_of(stage.held_out))
    assert run["topp.precision/all"] == run["topp.recall/female"] == run["ipr.precision/male"] == 1.0
    assert run["mauve.mauve/all"] == 1.0
    assert run["fid.fid/all"] == pytest.approx(0.0, abs=1e-6)
    assert {run[name] for name in run if name.startswith(("topp.delta_", "ipr.delta_"))} == {0.0}
    counts = np.array([run["n_female"], run["n_male"]])
    assert counts.tolist() == stage.held_out.counts.tolist()
    assert run["mgo_generated"] == pytest.approx(abs(counts[1] / counts.sum() - 2 / 3))
    assert run["ego_generated"] == pytest.approx((counts[1] - counts[0]) / counts.sum())
    assert (run["n_abstained"], run["n_empty"], run["n_unfinished"], run["n_without_heading"]) == (0, 1, 2, 3)
    texts = tuple("x: x" if a == 0 else t for t, a in zip(stage.held_out.texts, stage.held_out.groups, strict=True))
    collapsed = stage.evaluate("Unconditional", draws_of(Biographies(texts=texts, groups=stage.held_out.groups)))
    assert collapsed["ipr.recall/female"] < 0.5
    assert collapsed["ipr.recall/male"] == 1.0
    assert collapsed["ipr.delta_r"] == pytest.approx(1.0 - collapsed["ipr.recall/female"])
    assert collapsed["fid.delta_fid"] > 1.0


def test_overall_sets_have_the_proportions_of_the_data(
    settings: Table2Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the texts are of group 0, or after thinning a half: 75 of group 1 come with 38, or with 75."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(table2, "compare", lambda *_, **options: seen.append(options) or {})
    stage_in(tmp_path, dataclasses.replace(settings, minority=None)).evaluate_real()
    stage_in(tmp_path, dataclasses.replace(settings, minority=0.5)).evaluate_real()
    assert [(options["n"], options["overall_sizes"]) for options in seen] == [(75, [38, 75]), (75, [75, 75])]


def test_a_model_that_writes_of_one_group_gets_no_scores(settings: Table2Settings, tmp_path: Path) -> None:
    """It is given up early, what it wrote is counted, and the others go on."""
    never_female = LabelOracle(GROUPS, lambda texts: ["male" if len(text) % 2 else None for text in texts])
    stage = stage_in(tmp_path, settings, oracle=never_female)
    draws = stage.draw("Unconditional", functools.partial(stage.train, "Pretrained"))
    assert len(draws["texts"]) == 320  # in steps of 32, the first beyond a quarter of 1200
    run = stage.evaluate("Unconditional", draws)
    assert run["n_female"] == 0
    assert run["n_male"] + run["n_abstained"] == 320
    assert (run["mgo_generated"], run["ego_generated"]) == (pytest.approx(1 / 3), 1.0)
    assert not any("precision" in name or name in ("mgo", "ego") for name in run)


@pytest.mark.parametrize(
    ("n", "female", "worth"),
    [
        (0, 0, True),
        (299, 0, True),
        (300, 0, False),
        (300, 14, False),
        (300, 15, True),
        (400, 75, False),
        (1199, 74, True),
    ],
)
def test_when_to_give_up(n: int, female: int, worth: bool, settings: Table2Settings, tmp_path: Path) -> None:
    """75 are needed of 1200 at most: below 60 in sight after a quarter, or 75 found, is the end."""
    groups = [0] * female + [1] * (n - female)
    assert stage_in(tmp_path, settings)._is_worth_it(groups) is worth
    assert not stage_in(tmp_path, settings)._is_worth_it([1] * 1200)


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same(finished: tuple[Path, Table2], model: str, tmp_path: Path) -> None:
    """Killed in a generation (a text file is there, its end is not) and between stages."""
    expected, _ = finished
    out = tmp_path / "out"
    for waited_for in ("seed0/Unconditional-texts/000000.jsonl", "seed0/Reweighted-losses.json"):
        kill_when((out / waited_for).exists, [sys.executable, "-W", "ignore", __file__, out, model])
    assert not (out / "runs.csv").exists()
    reproduce(out, dataclasses.replace(TINY, model=model))
    for name in ("runs.csv", "losses.csv", "samples.jsonl"):
        assert (out / name).read_bytes() == (expected / name).read_bytes()


def test_too_few_texts_are_refused(settings: Table2Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"n_per_group=100, but there are only 88 female, 175 male held out"):
        reproduce(tmp_path, dataclasses.replace(settings, n_per_group=100, minority=None))


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch, settings: Table2Settings) -> None:
    """Small defaults for the command."""
    monkeypatch.setattr(table2, "QUICK", dataclasses.replace(settings, model=None))
    monkeypatch.setattr(table2, "NameOracle", lambda: ORACLE)
    monkeypatch.setattr(table2, "TextEncoder", lambda *_, **__: encode)
    monkeypatch.setattr(biographies_module, "load_biographies", lambda _: TEXTS)


@pytest.mark.usefixtures("defaults")
def test_command(
    finished: tuple[Path, Table2], model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a finished folder: every stage is taken from there, and the text is that of the results."""
    folder, table = finished
    for name in ("train", "losses", "draw", "evaluate", "evaluate_real"):
        monkeypatch.setattr(table2._Stage, name, lambda *_: pytest.fail("computed again"))
    command = ["reproduce", "table2", "--quick", "--model", model, "--out", str(folder)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out == describe_table2(table.runs, table.losses, table.facts)
    figures = ("figure2.png", "precision_recall.png")
    names = ("table2.md", "samples.md", *figures, "runs.csv", "losses.csv", "samples.jsonl")
    assert all(f"wrote {folder / name}" in err for name in names)
    for figure in figures:
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    assert "| Min-Max" in (folder / "table2.md").read_text()
    assert (folder / "samples.md").read_text() == describe_samples(table.samples)
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr() == (out, "")


@pytest.mark.usefixtures("defaults")
def test_command_refuses_in_one_line(
    finished: tuple[Path, Table2], model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = finished
    command = ["reproduce", "table2", "--model", model, "--out", str(folder)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "holds a run with other settings: n_seeds was 2, is 5; " in error
    assert main([*command, "--quick", "--encoder", "another"]) == 2
    assert "encoder was None, is another" in capsys.readouterr().err
    monkeypatch.setattr(biographies_module, "load_biographies", lambda _: TEXTS.take(np.arange(990)))
    assert main([*command, "--quick"]) == 2
    assert "texts was" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--quick", "--config", "llama-3.2-1b"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_folder_with_adapters_on_other_layers_is_refused(
    finished: tuple[Path, Table2], settings: Table2Settings
) -> None:
    """As in folders from before adapters were on all layers."""
    earlier = dataclasses.replace(settings, lora=LoRASettings(targets=("q_proj", "v_proj")))
    with pytest.raises(
        ValueError, match=r"other settings: lora was .*'down_proj'].* is .*['q_proj', 'v_proj'].*pass the same, or an"
    ):
        reproduce(finished[0], earlier)


@pytest.mark.parametrize("name", ["llama-3.2-1b", "llama-3.2-3b", "gemma-3-4b-pt", "gemma-3-4b-it"])
def test_configurations_have_what_the_paper_says(name: str) -> None:
    settings = PAPER[name]
    given = (settings.lora.rank, settings.n_epochs, settings.n_steps, settings.batch_size, settings.learning_rate)
    assert given == (8, 6, None, 64, 1e-4)
    assert settings.encoder == "Qwen/Qwen3-Embedding-4B"
    assert settings.projected_dim == 32
    size, kind = name.split("-")[2], name.split("-")[-1]
    assert settings.model is not None
    assert size in settings.model.lower()
    assert settings.model.endswith({"pt": "-pt", "it": "-it"}.get(kind, "-Instruct"))
    assert settings.lora == LoRASettings()  # the layers: tests/paper/test_causal_lm.py


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_seeds": 0}, "n_seeds=0"),
        ({"n_steps": 1.5}, "n_steps=1.5"),
        ({"dtype": "float23"}, "dtype='float23' is not a dtype of torch"),
        ({"held_out": 1.0}, "held_out=1.0"),
        ({"minority": 0.0}, "minority=0.0"),
        ({"date": "today"}, "date='today' is no day of the calendar"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table2Settings(**options)


def test_dimensions_follow_the_number_of_texts() -> None:
    """Neighbour 5 d' is 2/15 of the texts, up to the paper's 32 dimensions."""
    dims = {n: Table2Settings(n_per_group=n).projected_dim for n in (10, 75, 150, 300, 1199, 1200, 9000)}
    assert dims == {10: 2, 75: 2, 150: 4, 300: 8, 1199: 31, 1200: 32, 9000: 32}


if __name__ == "__main__":
    reproduce(Path(sys.argv[1]), dataclasses.replace(TINY, model=sys.argv[2]))
