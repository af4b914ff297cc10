"""``--encoder`` may be repeated: do the gaps of the first encoder survive the others?"""

from __future__ import annotations

import json
import shlex
import warnings
from pathlib import Path

import pytest
import torch

from egtmetrics import GenerativeMetricFrame
from egtmetrics.cli import main
from egtmetrics.data import ImageFiles
from egtmetrics.encoders import ImageEncoder
from egtmetrics.groups import compare_views
from tests.encoders._models import corner_network
from tests.test_cli_evaluate import json_of, refused, write_images

pytestmark = [
    pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning"),
    pytest.mark.filterwarnings("default::egtmetrics.results.UnreliableScoreWarning"),  # of few rows
]

TWO = ["--encoder", "corner.pt", "--encoder", "pool.pt", "--device", "cpu", "--metrics", "fid"]


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folders real and fake and two networks lie, and commands run."""
    write_images(tmp_path / "real", 0, n=200)
    write_images(tmp_path / "fake", 1, n=200)
    corner_network(tmp_path)
    pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*deprecated", DeprecationWarning)
        torch.jit.trace(pool, torch.ones(2, 3, 4, 4)).save(str(tmp_path / "pool.pt"))
    monkeypatch.chdir(tmp_path)


def test_the_command_compares_the_encoders_as_the_library_does(capsys: pytest.CaptureFixture[str]) -> None:
    content = json_of(["evaluate", "real", "fake", *TWO, "--baseline-splits", "1"], capsys)
    real, fake = ImageFiles("real"), ImageFiles("fake")
    baselines = {}
    for name in ("corner.pt", "pool.pt"):
        encoder = ImageEncoder(name, device="cpu")
        frame = GenerativeMetricFrame(
            metrics="fid",
            real=encoder(real),
            fake=encoder(fake),
            real_sensitive_features=real.subfolders(),
            fake_sensitive_features=fake.subfolders(),
            random_state=0,
        )
        baselines[name] = frame.baseline(n_splits=1)
    assert content["views"] == compare_views(baselines, of="encoder").to_dict()
    assert content["encoder"]["model"] == "corner.pt"
    assert content["encoder pool.pt"]["model"] == "pool.pt"
    alone = json_of(["evaluate", "real", "fake", *TWO[:2], *TWO[4:]], capsys)
    assert content["by_group"] == alone["by_group"]  # all else is of the first
    assert "views" not in alone


def test_one_page_with_a_section_and_a_figure() -> None:
    pytest.importorskip("jinja2")
    assert main(["report", "real", "fake", *TWO, "--baseline-splits", "1", "--quiet", "--out", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert '<h2 id="views">Gaps under several encoders</h2>' in page
    assert "fid: pool.pt" in page
    command = shlex.split(page.split("<pre>")[1].split("</pre>")[0])
    assert [command[i + 1] for i, word in enumerate(command) if word == "--encoder"] == ["corner.pt", "pool.pt"]
    assert command[command.index("--baseline") + 1] == "split"


def test_the_table_says_it_in_words_and_the_figure_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "real", "fake", *TWO, "--baseline-splits", "1", "--quiet", "--figure", "gaps.svg"]) == 0
    out = capsys.readouterr().out
    assert "Gaps under several encoders, in words" in out
    assert "of 2 encoders" in out
    assert Path("gaps.svg").read_text().startswith("<?xml")


def test_the_groups_of_an_oracle_are_those_of_the_first_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    write_images(Path("bare"), 1, n=200, subfolders=False)
    command = ["evaluate", "real", "bare", "--fake-groups", "oracle", *TWO, "--baseline-splits", "1"]
    content = json_of(command, capsys)
    assert [row["encoder"] for row in content["views"]["gaps"]] == ["corner.pt", "pool.pt"]
    assert content["fake"]["oracle"]["error_by_group"] == {"day": 0.0, "night": 0.0}


def test_groups_too_small_are_scored_and_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "few", 2)
    assert main(["evaluate", "few", "few", *TWO, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert "an interval needs sets of at least 50" in json.loads(out)["no comparison of encoders"]
    assert "warning: no comparison of encoders: encoder 'corner.pt': the baseline compares sets of 6" in err


@pytest.mark.parametrize(
    ("more", "message"),
    {
        "twice": (["--encoder", "./corner.pt"], "--encoder corner.pt and --encoder ./corner.pt are one encoder"),
        "unknown": (["--encoder", "none.pt"], "--encoder none.pt is not a file"),
        "sets too small": (["--baseline-samples", "10"], "intervals and verdicts need sets of at least 50"),
    }.values(),
)
def test_what_cannot_be_used_is_refused_before_the_first_image(
    more: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageEncoder, "__call__", lambda *_: pytest.fail("an image was encoded"))
    refused(["evaluate", "real", "fake", *TWO, *more, "--quiet"], message, capsys)


def test_one_encoder_where_there_is_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    refused(["encode", "real", "--out", "real.npz", *TWO[:4]], "--encoder: this command takes one", capsys)
    assert main(["encode", "real", "--out", "real.npz", "--quiet", *TWO[2:6]]) == 0
    refused(["evaluate", "real.npz", "real.npz", *TWO], "--encoder is for images and texts", capsys)
