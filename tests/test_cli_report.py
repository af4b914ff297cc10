"""``egtmetrics report`` and ``egtmetrics compare``: from files to a page, to a table."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from egtmetrics.cli import main
from egtmetrics.groups import GenerativeMetricFrame
from egtmetrics.metrics import frechet_distance, improved_precision_recall
from egtmetrics.report.explanations import rank_samples
from egtmetrics.samples import GroupedSamples

pytest.importorskip("jinja2")
pytestmark = pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning")

RNG = np.random.default_rng(0)
GROUPS = np.repeat(["f", "m"], [60, 80])
REAL, FAKE, OTHER = (RNG.normal(size=(140, 3)) + shift * (GROUPS == "f")[:, None] for shift in (0.0, 2.0, 0.0))
SAMPLES = GroupedSamples(real=REAL, fake=FAKE, real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS)
LABELS = ["--real-groups", "y", "--fake-groups", "y"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, features in {"real": REAL, "fake": FAKE, "other": OTHER}.items():
        np.savez(f"{name}.npz", features=features, y=GROUPS)


def report(*more: str) -> str:
    arguments = ["report", "real.npz", "fake.npz", *LABELS, "--metrics", "ipr,fid", "--out", "page.html", "--quiet"]
    assert main([*arguments, *more]) == 0
    return Path("page.html").read_text(encoding="utf-8")


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_the_page_holds_the_numbers_of_the_library() -> None:
    page = report()
    frame = GenerativeMetricFrame(
        metrics={"ipr": improved_precision_recall, "fid": frechet_distance},
        real=REAL, fake=FAKE, real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS, random_state=0,
    )  # fmt: skip
    assert f"{100 * frame.disparities().loc[('ipr', 'delta_p'), 'value']:.2f} points" in page
    assert f"{frame.by_group.loc['f', 'fid']:.4g}" in page
    assert "Is fake.npz equally good for every group?" in page
    assert "Where the divergence comes from" in page
    assert "Samples farthest from" not in page


def test_the_command_in_the_page_makes_the_page_again(monkeypatch: pytest.MonkeyPatch) -> None:
    page = report("--match-groups", "--n-neighbors", "4", "--title", "It's “ours”", "--level", "0.9")
    command = page.split("<pre>")[1].split("</pre>")[0].replace("&#39;", "'").replace("&#34;", '"')
    words = shlex.split(command)
    assert words[:2] == ["egtmetrics", "report"]
    Path("page.html").unlink()
    assert main([*words[1:], "--quiet"]) == 0
    assert Path("page.html").read_text(encoding="utf-8") == page
    matched = SAMPLES.matched(across_groups=True, random_state=0)
    assert f"{len(matched.fake)} generated samples against {len(matched.real)} real ones" in page
    assert "before some were left out for the scores" in page
    assert "90% intervals" in page


def test_texts_are_those_of_the_rows() -> None:
    Path("fake.jsonl").write_text("".join(json.dumps({"text": f"text <{i}>"}) + "\n" for i in range(140)))
    page = report("--texts", "fake.jsonl")
    ranked = rank_samples(SAMPLES)
    shown = [part.split("</blockquote>")[0] for part in page.split('<blockquote dir="auto">')[1:]]
    assert shown == [f"text &lt;{row}&gt;" for row in ranked["row"]]
    assert report("--texts", "fake.jsonl:text").split("<pre>")[0] == page.split("<pre>")[0]


def test_images_are_shown() -> None:
    Path("images").mkdir()
    for i in range(140):
        PIL.Image.new("L", (5, 4), i).save(f"images/{i:03}.png")
    page = report("--images", "images")
    assert page.count("data:image/png;base64,") == 16
    assert "Generated sample" in page


def test_a_divergence_that_cannot_be_computed_leaves_a_reason() -> None:
    np.savez("real.npz", features=np.ones((140, 3)), y=GROUPS)
    np.savez("fake.npz", features=np.ones((140, 3)), y=GROUPS)
    assert "This could not be computed: n_clusters" in report("--metrics", "fid")


def test_what_cannot_be_done_is_said_before_it_is_begun(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["report", "real.npz", "fake.npz", *LABELS, "--metrics", "fid", "--out"]
    assert "ends in .html" in error(capsys, *command, "page.pdf")
    assert "is not a folder" in error(capsys, *command, "missing/page.html")
    assert "--level 2.0 is not" in error(capsys, *command, "page.html", "--level", "2")
    Path("short.txt").write_text("one\ntwo\n")
    message = error(capsys, *command, "page.html", "--texts", "short.txt")
    assert "--texts short.txt: holds 2 of them for the 140 rows of fake.npz" in message
    assert not Path("page.html").exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib.figure"])
def test_a_missing_package_of_the_page_is_said_before_anything_is_read(
    package: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    files = ["missing.npz", "missing.npz", *LABELS, "--metrics", "fid"]
    Path("plan.toml").write_text('command = "report"\nreal = "a"\nfake = "b"\ngroups = "y"\nout = "page.html"\n')
    for command in (
        ["report", *files, "--out", "page.html"],
        ["evaluate", *files, "--out", "result.json", "--out", "page.html"],
        ["audit", "plan.toml", "--check"],
    ):
        message = error(capsys, *command)
        assert "the page needs jinja2 and matplotlib" in message
        assert "pip install 'egtmetrics[report]'" in message
    assert "missing.npz: No such file" in error(capsys, "evaluate", *files, "--out", "result.json")


def compare(*more: str) -> list[str]:
    return ["compare", "--reference", "real.npz", "other.npz", "fake.npz", *LABELS, *more]


def test_compare_prints_and_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(compare("--metrics", "fid", "--out", "models.json", "--quiet")) == 0
    out = capsys.readouterr().out
    frame = GenerativeMetricFrame(
        metrics={"fid": frechet_distance},
        real=REAL, fake=FAKE, real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS, random_state=0,
    )  # fmt: skip
    found = {}
    for line in out.replace(" (squared feature units)", "").splitlines():
        if line.startswith(("fid  ", "  ")):
            found[tuple(line.split()[:2])] = line.split()
    assert found["fid", "overall"][-1] == f"{frame.overall['fid']:.4g}*"
    assert any(row[-1] == f"{frame.by_group.loc['f', 'fid']:.4g}*" for row in found.values() if row[0] == "f")
    content = json.loads(Path("models.json").read_text())
    assert content["models"]["fake"]["overall"]["fid"] == pytest.approx(frame.overall["fid"])
    assert content["null_hypothesis"] == "equal expected scores"
    (row,) = [row for row in content["tests"] if row["score"] == "fid" and row["group"] is None]
    assert row["low"] < row["difference"] < row["high"] < 0.0 or row["low"] > 0.0
    assert content["real"]["file"] == "real.npz"


def test_compare_tests_the_matched_samples(capsys: pytest.CaptureFixture[str]) -> None:
    """What is tested is the difference of the scores that are shown."""
    options = ["--metrics", "fid", "--match-groups", "--permutations", "79", "--format", "json", "--quiet"]
    assert main(compare(*options)) == 0
    content = json.loads(capsys.readouterr().out)
    models = content["models"]
    results = [model["results"]["by_group"].values() for model in models.values()]
    assert {found["fid"]["n_fake"] for by_group in results for found in by_group} == {60}
    for row in content["tests"]:
        mine, first = (
            model["overall"]["fid"]
            if row["score"] == "fid" and row["group"] is None
            else model["disparities"]["fid"]["delta_fid"]["value"]
            if row["group"] is None
            else model["by_group"][row["group"]]["fid"]
            for model in (models["fake"], models["other"])
        )
        assert row["difference"] == pytest.approx(mine - first)


def test_compare_matches_the_sizes_of_all_models(capsys: pytest.CaptureFixture[str]) -> None:
    """So they are scored on the same real samples; without that, no test of equal scores could be made."""
    np.savez("fewer.npz", features=FAKE[:-15], y=GROUPS[:-15])
    command = ["compare", "--reference", "real.npz", "fake.npz", "fewer.npz", *LABELS, "--metrics", "fid"]
    for option, equal in (("--match-sizes", False), ("--match-groups", True)):
        assert main([*command, option, "--format", "json", "--quiet"]) == 0
        content = json.loads(capsys.readouterr().out)
        counts = [
            {
                group: (result["fid"]["n_real"], result["fid"]["n_fake"])
                for group, result in model["results"]["by_group"].items()
            }
            for model in content["models"].values()
        ]
        assert counts[0] == counts[1]
        assert all(n == m for n, m in counts[0].values())
        assert (len(set(counts[0].values())) == 1) == equal
        assert content["null_hypothesis"] == "equal expected scores"


def test_compare_says_why_there_is_no_test(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("real", "fake", "other"):
        with np.load(f"{name}.npz") as arrays:
            np.savez(f"few_{name}.npz", **{key: values[::2] for key, values in arrays.items()})
    command = ["compare", "--reference", "few_real.npz", "few_fake.npz", "few_other.npz", *LABELS, "--metrics", "fid"]
    assert main([*command, "--quiet"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not tested against each other (group 'f' has 30 samples of one kind, but" in out
    assert main([*command, "--permutations", "79", "--quiet"]) == 0
    assert "generate the same distribution" in " ".join(capsys.readouterr().out.split())


def test_compare_draws_and_can_leave_out_the_tests(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--permutations", "0", "--figure", "models.svg", "--match-sizes", "--interval", "0.8", "--quiet"]
    assert main(compare(*options)) == 0
    out = capsys.readouterr().out
    assert "The models were not tested against each other" in out
    assert "80 % intervals" in out
    assert "<svg" in Path("models.svg").read_text()


def test_compare_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert "pass two or more files" in error(capsys, "compare", "--reference", "real.npz", "fake.npz", *LABELS)
    twice = ["compare", "--reference", "real.npz", "fake.npz", "fake.npz", *LABELS]
    assert "fake.npz is given twice" in error(capsys, *twice)
    assert "at least 79" in error(capsys, *compare("--metrics", "fid", "--permutations", "5", "--quiet"))
