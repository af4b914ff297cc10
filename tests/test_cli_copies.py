"""``report --training``: the most suspicious generated samples beside the nearest training samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from egtmetrics import GroupedSamples
from egtmetrics.cli import main
from egtmetrics.data import ImageFiles
from egtmetrics.groups import copying_test, suspected_copies
from tests.encoders._models import corner_network
from tests.test_cli_evaluate import refused, write_images
from tests.test_cli_sides import count_encoded

pytest.importorskip("jinja2")
pytestmark = [
    pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning"),
    pytest.mark.filterwarnings("default::egtmetrics.results.UnreliableScoreWarning"),  # of few rows
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
]

RNG = np.random.default_rng(0)
GROUPS = np.repeat(["f", "m"], 40)
REAL, FAKE, TRAINING, HELD_OUT = RNG.normal(size=(4, 80, 3))
FAKE[[50, 60]] = TRAINING[[7, 8]]
REPORT = ["report", "real.npz", "fake.npz", "--groups", "y", "--metrics", "fid", "--out", "page.html", "--quiet"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, features in {"real": REAL, "fake": FAKE, "held_out": HELD_OUT}.items():
        np.savez(f"{name}.npz", features=features, y=GROUPS)
    np.save("training.npy", TRAINING)


def section(*command: str) -> str:
    assert main([*command]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    return page.split('<h2 id="copies">')[1].split('<h2 id="method">')[0] if 'id="copies"' in page else ""


def test_rows_of_features_stand_beside_each_other() -> None:
    samples = GroupedSamples(real=REAL, fake=FAKE, real_sensitive_features=GROUPS, fake_sensitive_features=GROUPS)
    pairs = suspected_copies(TRAINING, samples)
    of_m = pairs[pairs["group"] == "m"]
    assert of_m["row"].tolist()[:2] == [50, 60]
    assert of_m["training_row"].tolist()[:2] == [7, 8]
    page = section(*REPORT, "--training", "training.npy")
    shown = [(page.find(f"generated · row {a}<"), page.find(f"training · row {b}<"), page.find(f"ratio {ratio:.2f}<"))
             for a, b, ratio in pairs[["row", "training_row", "ratio"]].itertuples(index=False)]  # fmt: skip
    assert min(min(places) for places in shown) > 0
    assert page.count("generated · row") == 8
    assert "distance 0, ratio 0.00" in page
    assert "copies more than chance was not tested" in page
    assert section(*REPORT) == ""


def test_held_out_samples_test_for_copies() -> None:
    page = section(*REPORT, "--training", "training.npy", "--baseline", "held_out.npz")
    labels = {"fake_sensitive_features": GROUPS, "held_out_sensitive_features": GROUPS}
    expected = copying_test(TRAINING, FAKE, HELD_OUT, **labels)
    for nearer in expected["nearer"]:
        assert f">{100 * nearer:.2f}</td>" in page
    assert "was not tested" not in page


def test_images_stand_beside_the_images_that_they_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training set lies in no subfolders; one generated image of the night is a copy. A second encoder does not
    see the training set."""
    corner_network(Path())
    write_images(Path("real"), 0)
    write_images(Path("fake"), 1)
    write_images(Path("training"), 2, subfolders=False)
    shutil.copy("training/06.png", "fake/night/06.png")
    counted = count_encoded(monkeypatch)
    command = ["report", "real", "fake", "--training", "training", "--metrics", "fid", "--out", "page.html"]
    page = section(*command, "--encoder", "corner.pt", "--device", "cpu", "--quiet")
    assert sum(counted) == 3 * 24
    row, of_training = ImageFiles("fake").names.index("night/06.png"), ImageFiles("training").names.index("06.png")
    first = page.split("<h3>night</h3>")[1].split("</small></li>")
    assert f"generated · row {row}" in first[0]
    assert f"training · row {of_training} · 06.png" in first[1]
    images = [part.split('"')[0] for part in page.split("data:image/png;base64,")[1:]]
    assert len(images) == 16
    assert images[8] == images[9]
    assert images[10] != images[11]
    counted.clear()
    torch.jit.script(torch.nn.Flatten()).save("pixels.pt")
    section(*command, "--encoder", "corner.pt", "--encoder", "pixels.pt", "--device", "cpu", "--quiet")
    assert sum(counted) == 3 * 24 + 2 * 24
    Path("none").mkdir()
    PIL.Image.new("L", (6, 6)).save("none/a.png")
    status = main([*command[:4], "none", *command[5:], "--encoder", "corner.pt", "--device", "cpu", "--quiet"])
    assert status == 2


def test_texts_stand_beside_the_texts_that_they_copy() -> None:
    pytest.importorskip("sentence_transformers")
    from tests.encoders._models import random_bert

    encoder = random_bert(Path())
    for name, word in {"real": "ant", "fake": "bee", "training": "cat"}.items():
        texts = [{"text": f"{('she', 'he')[i % 2]} {word} {i}"} for i in range(20)]
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, texts)))
    lines = Path("fake.jsonl").read_text().splitlines()
    lines[3] = Path("training.jsonl").read_text().splitlines()[5]
    Path("fake.jsonl").write_text("\n".join(lines))
    command = ["report", "real.jsonl", "fake.jsonl", "--training", "training.jsonl", "--groups", "oracle:pronouns"]
    options = ["--encoder", f"./{encoder}", "--device", "cpu", "--metrics", "fid", "--out", "page.html", "--quiet"]
    page = section(*command, *options)
    of_men = page.split("<h3>male</h3>")[1]
    assert of_men.split("<blockquote")[1].split("</blockquote>")[0] == of_men.split("<blockquote")[2].split("</bl")[0]
    assert "generated · row 3<" in of_men.split("</li>")[0]


def test_a_training_set_of_another_encoder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("training.npy", TRAINING[:, :2])
    refused([*REPORT, "--training", "training.npy"], "training has 2 features and fake has 3", capsys)
    refused([*REPORT, "--training", "nowhere.npy"], "nowhere.npy: No such file", capsys)
