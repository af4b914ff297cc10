"""Folders of images, texts and files of features go into every command alike; ``egtmetrics encode`` writes features."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egtmetrics.cli import main
from egtmetrics.cli._sides import open_side
from egtmetrics.data import ImageFiles, read_labelled_features
from egtmetrics.encoders import ImageEncoder
from tests.encoders._models import corner_network
from tests.test_cli_evaluate import json_of, refused, write_images

pytestmark = [
    pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning"),
    pytest.mark.filterwarnings("default::egtmetrics.results.UnreliableScoreWarning"),  # of few rows
]

CORNER = ["--encoder", "corner.pt", "--device", "cpu"]
FID = ["--metrics", "fid"]


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folders real and fake and the network corner.pt lie, and commands run."""
    write_images(tmp_path / "real", 0)
    write_images(tmp_path / "fake", 1)
    corner_network(tmp_path)
    monkeypatch.chdir(tmp_path)


def encode(name: str, *more: str) -> None:
    assert main(["encode", name, "--out", f"{name}.npz", "--quiet", *CORNER, *more]) == 0


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of images of each batch that a network sees."""
    counted: list[int] = []
    forward = ImageEncoder._forward
    monkeypatch.setattr(
        ImageEncoder, "_forward", lambda self, batch: (counted.append(len(batch)), forward(self, batch))[1]
    )
    return counted


def test_folders_and_files_of_encode_give_the_same_in_any_mixture(capsys: pytest.CaptureFixture[str]) -> None:
    expected = json_of(["evaluate-images", "real", "fake", *CORNER, *FID], capsys)
    encode("real")
    encode("fake")
    for real, fake in (("real", "fake"), ("real.npz", "fake"), ("real", "fake.npz"), ("real.npz", "fake.npz")):
        options = [] if ".npz" in real and ".npz" in fake else CORNER
        content = json_of(["evaluate", real, fake, *options, *FID], capsys)
        assert content["by_group"] == expected["by_group"]
        assert content["overall"] == expected["overall"]
        assert content["encoder"] == expected["encoder"]


def test_a_file_of_encode_says_what_it_is_made_of() -> None:
    encode("real")
    with np.load("real.npz") as arrays:
        assert arrays["file_name"].tolist() == ImageFiles("real").names
    read = read_labelled_features("real.npz")
    encoder = ImageEncoder("corner.pt", device="cpu")
    np.testing.assert_array_equal(read.features, encoder(ImageFiles("real")))
    assert read.groups["group"].tolist() == ImageFiles("real").subfolders()
    assert read.source["encoder"] == encoder.identity
    assert read.source["samples"] == {"file": "real", "groups": "folder", "images": 24, "left_out": 0, "in_no_group": 0}


def test_an_interrupted_encode_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The last image is damaged, so the first run ends there; two batches of ten were kept."""
    last = Path("real", ImageFiles("real").names[-1])
    whole = last.read_bytes()
    last.write_bytes(whole[:40])
    command = ["encode", "real", "--out", "real.npz", "--batch-size", "10", "--quiet", *CORNER]
    assert main(command) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not Path("real.npz").exists()
    last.write_bytes(whole)
    counted = count_encoded(monkeypatch)
    assert main(command) == 0
    assert sum(counted) == 4
    assert not Path("real.npz.cache").exists()
    np.testing.assert_array_equal(
        read_labelled_features("real.npz").features, ImageEncoder("corner.pt", device="cpu")(ImageFiles("real"))
    )


KILLED = """
import os, signal, sys
from egtmetrics.cli import main
from egtmetrics.encoders._cache import FeatureCache
put, puts = FeatureCache.put, []
def counted(self, keys, features):
    put(self, keys, features)
    puts.append(len(keys))
    if len(puts) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
FeatureCache.put = counted
main(sys.argv[1:])
"""


def test_killed_amid_shards_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards()
    command = ["encode", "real-{0..1}.tar", "--groups", "time", "--out", "x.npz", "--batch-size", "7", *CORNER]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", KILLED, *command], env=environment).returncode == -9
    assert not Path("x.npz").exists()
    counted = count_encoded(monkeypatch)
    assert main(command) == 0
    assert sum(counted) == 24 - 2 * 7
    found = read_labelled_features("x.npz")
    np.testing.assert_allclose(
        found.features, ImageEncoder("corner.pt", device="cpu")(ImageFiles("real")), rtol=1e-6, atol=1e-6
    )
    assert found.groups["time"].tolist() == ImageFiles("real").subfolders()


def write_shards() -> None:
    """Write the images of the folder real into two tar files, with their groups."""
    for shard in range(2):
        with tarfile.open(f"real-{shard}.tar", "w") as archive:
            for name in ImageFiles("real").names[12 * shard : 12 * (shard + 1)]:
                described = json.dumps({"time": name.split("/")[0]}).encode()
                member = tarfile.TarInfo(name.replace(".png", ".json"))
                member.size = len(described)
                archive.addfile(member, io.BytesIO(described))
                archive.add(Path("real", name), name)


def test_the_same_images_in_any_form_give_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    datasets = pytest.importorskip("datasets")
    command = ["fake", *CORNER, *FID, "--fake-groups", "folder"]
    expected = json_of(["evaluate", "real", *command], capsys)["by_group"]
    names = ImageFiles("real").names
    groups = [name.split("/")[0] for name in names]
    rows = ["file_name,time", *(f"real/{name},{group}" for name, group in zip(names, groups, strict=True))]
    Path("real.csv").write_text("\n".join(rows))
    write_shards()
    paths = [str(Path("real", name)) for name in names]
    features = datasets.Features({"face": datasets.Image(), "time": datasets.Value("string")})
    datasets.Dataset.from_dict({"face": paths, "time": groups}, features=features).save_to_disk("saved")
    Path("faces.json").write_text(
        json.dumps({name: {"a": {"time": group}} for name, group in zip(names, groups, strict=True)})
    )
    for place, spec in (
        ("real.csv", "time"),
        ("real-{0..1}.tar", "time"),
        ("datasets:saved", "time"),
        ("real", "real.csv:time"),
        ("real", "faces.json:a.time"),
    ):
        if spec == "real.csv:time":
            Path("real.csv").write_text("\n".join(rows).replace("real/", ""))
        content = json_of(["evaluate", place, *command, "--real-groups", spec], capsys)
        assert list(content["by_group"].values()) == list(expected.values())
        assert content["real"]["file"] == place
    Path("plan.toml").write_text(
        'command = "evaluate"\nreal = "datasets:saved"\nfake = "real-{0..1}.tar"\ngroups = "time"\nmetrics = "fid"\n'
    )
    assert main(["audit", "plan.toml", "--check"]) == 0
    Path("real-1.tar").unlink()
    capsys.readouterr()
    refused(["audit", "plan.toml", "--check"], "real-1.tar: No such file or directory", capsys)


def test_samples_without_groups_are_encoded_and_labelled_later(capsys: pytest.CaptureFixture[str]) -> None:
    write_images(Path("real"), 0, n=60)
    write_images(Path("bare"), 1, subfolders=False)
    encode("real")
    encode("bare")
    assert main(["evaluate", "real.npz", "bare.npz", *FID]) == 2
    assert "bare.npz: holds no names of groups" in capsys.readouterr().err
    labelled = json_of(["evaluate", "real.npz", "fake", *CORNER, *FID], capsys)
    content = json_of(["evaluate", "real.npz", "bare.npz", "--fake-groups", "oracle", *FID], capsys)
    assert content["by_group"] == labelled["by_group"]
    assert content["fake"]["oracle"]["error_by_group"] == {"day": 0.0, "night": 0.0}


def test_one_command_makes_a_page_of_two_folders_with_their_images() -> None:
    pytest.importorskip("jinja2")
    assert main(["report", "real", "fake", "--out", "page.html", "--quiet", *CORNER, "--metrics", "ipr,fid"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 16
    assert "Is fake equally good for every group?" in page


def test_compare_takes_folders_and_files_alike(capsys: pytest.CaptureFixture[str]) -> None:
    encode("fake")
    Path("fake.npz").rename("same.npz")
    command = ["compare", "--reference", "real", "fake", "same.npz", *CORNER, *FID, "--permutations", "0"]
    content = json_of(command, capsys)
    assert content["models"]["fake"]["by_group"] == content["models"]["same"]["by_group"]
    assert content["encoder"]["model"] == "corner.pt"


def test_prepare_takes_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "real", "--out", "real.egt", "--quiet", *CORNER, *FID]) == 0
    expected = json_of(["evaluate", "real", "fake", *CORNER, *FID], capsys)
    assert json_of(["evaluate", "real.egt", "fake", *CORNER, *FID], capsys)["by_group"] == expected["by_group"]


def test_each_image_of_several_models_is_encoded_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(Path("other"), 2)
    counted = count_encoded(monkeypatch)
    json_of(["compare", "--reference", "real", "fake", "other", *CORNER, *FID, "--permutations", "0"], capsys)
    assert sum(counted) == 3 * 24


def test_tables_are_texts_where_they_have_the_key_of_texts(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i},{i * i % 7},{'fm'[i % 2]}" for i in range(20)]
    Path("x.csv").write_text("\n".join(["a,b,g", *rows]))
    content = json_of(["evaluate", "x.csv", "x.csv", "--groups", "g", *FID], capsys)
    assert content["real"]["shape"] == [20, 2]
    Path("t.csv").write_text("\n".join(["text,b,g", *rows]))
    command = ["evaluate", "t.csv", "x.csv", "--groups", "g", *FID, "--quiet"]
    refused([*command, "--encoder", "./none"], "./none is not a folder; pass the folder of a sentence-tra", capsys)
    keys = ["--real-key", "text,b", "--fake-key", "a,b"]
    assert json_of([*command, *keys], capsys)["by_group"] == content["by_group"]


REFUSED: dict[str, tuple[list[str], str]] = {
    "another encoder": (["evaluate", "real.npz", "fake", *CORNER, "--size", "3"], "by different encoders or settings"),
    "another kind": (["evaluate", "real", "t.jsonl", "--groups", "folder"], "no key 'folder' in it"),
    "two kinds": (["evaluate", "real", "t.jsonl", "--fake-groups", "g"], "real holds images, t.jsonl holds texts"),
    "nothing to encode": (["evaluate", "real.npz", "real.npz", *CORNER], "--encoder is for images and texts, and all"),
    "unknown kind": (["evaluate", "x.doc", "fake"], "x.doc: unknown kind of file '.doc'; expected a folder"),
    "nothing there": (["evaluate", "nowhere", "fake"], "nowhere: No such file or directory"),
    "a prompt": (["evaluate", "real", "fake", "--prompt", "x"], "--prompt is for texts, and these are images"),
    "encoded already": (["encode", "real.npz", "--out", "x.npz"], "real.npz: holds features already"),
    "another column": (["encode", "t.csv", "--image-key", "p", "--out", "x.npz"], "already, .* name the column"),
    "no npz": (["encode", "real", "--out", "x.csv"], "--out x.csv: features are written as .npz"),
    "an oracle for nothing": (
        ["encode", "real", "--groups", "oracle", "--out", "x.npz"],
        "--groups oracle: would call FAKE by a classifier that is fitted on REAL, and here is one set; choose a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_one_line_and_status_2(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    encode("real")
    Path("x.doc").touch()
    Path("t.csv").write_text("file_name,g\na.png,day\n")
    Path("t.jsonl").write_text(
        "\n".join(json.dumps({"text": f"a {i}", "g": ("day", "night")[i % 2]}) for i in range(9))
    )
    arguments, message = REFUSED[case]
    metrics = [] if arguments[0] == "encode" else FID
    refused([*arguments, *metrics, "--quiet"], message, capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--metrics", "kid", "--subset-size", "30"],
            r"all samples \(24 real, 24 fake\), metric 'kid': real has 24 rows",
        ),
        (["--metrics", "kid", "--subset-size", "15", "--strict"], r"group 'day' \(12 real, 12 fake\), metric 'kid'"),
        (["--metrics", "prdc", "--n-neighbors", "24"], r"all samples \(24 real, 24 fake\), metric 'prdc'"),
        (["--metrics", "prdc", "--n-neighbors", "12", "--strict"], r"group 'day' \(12 real, 12 fake\), metric 'prdc'"),
        (
            [*FID, "--baseline", "split", "--baseline-samples", "7"],
            "--baseline-samples 7, but group 'day' has only 6 sa",
        ),
    ],
)
def test_sizes_are_refused_before_anything_is_encoded(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = count_encoded(monkeypatch)
    refused(["evaluate", "real", "fake", *CORNER, *options, "--quiet"], message, capsys)
    assert counted == []


def test_sizes_are_those_after_matching(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ImageFiles("fake").names[:4]:  # of the day
        Path("fake", name).unlink()
    options = ["--metrics", "kid", "--subset-size", "20", "--encoder", "none.pt", "--quiet"]
    refused(["evaluate", "real", "fake", *options], "none.pt is not a file", capsys)
    refused(["evaluate", "real", "fake", *options, "--match-groups"], r"all samples \(16 real, 16 fake\)", capsys)


def test_help_lists_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["encode", "--help"])
    text: Any = capsys.readouterr().out
    assert "dinov2         768 features" in text
    assert text.index("encoders:") < text.index("examples:")


def test_clusters_of_texts_and_images_are_read() -> None:
    """Of texts from another key of the same file; of images from a table, or from the names of folders."""
    rows = [{"text": "She wrote.", "prompt": "a"}, {"text": "He wrote.", "prompt": "b"}]
    Path("fake.jsonl").write_text("\n".join(map(json.dumps, rows)))
    args = argparse.Namespace(
        fake_clusters="prompt", real_clusters=None, groups="oracle:pronouns", kind=None, text_key=None, image_key=None
    )
    assert open_side(args, "fake", "fake.jsonl").others["clusters"]["prompt"].tolist() == ["a", "b"]
    assert open_side(args, "real", "fake.jsonl").others == {}
    Path("fake.txt").write_text("She wrote.\nHe wrote.\n")
    with pytest.raises(ValueError, match="txt file holds one text per line and no 'prompt'"):
        open_side(args, "fake", "fake.txt")
    names = ImageFiles("fake").names
    Path("meta.csv").write_text("\n".join(["file_name,prompt", *(f"{name},{i}" for i, name in enumerate(names))]))
    args.fake_clusters, args.groups = "meta.csv:prompt", "folder"
    found = open_side(args, "fake", "fake").others["clusters"]
    assert found["prompt"].tolist() == [str(i) for i in range(len(names))]
