"""``--real-clusters``, ``--fake-clusters`` and ``--control``: the numbers of the library from columns of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from egtmetrics import GenerativeMetricFrame
from egtmetrics.cli import main
from egtmetrics.data import read_labelled_features
from egtmetrics.groups import MissingScoreWarning, compare_frames

N = 320


def side(seed: int, rho: float, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    prompts = np.arange(N) // 8
    common = rng.normal(size=(N // 8, 2))[prompts]
    features = np.sqrt(rho) * common + np.sqrt(1 - rho) * rng.normal(size=(N, 2))
    thing = np.where(prompts % 2, "face", "street")
    features = features + shift * (thing == "street")[:, None]
    return pd.DataFrame(features, columns=["x", "y"]).assign(
        group=np.where(np.arange(N) % 2, "f", "m"), prompt=[f"prompt {one}" for one in prompts], thing=thing
    )


REAL, FAKE, OTHER = side(0, 0.0).assign(prompt=np.arange(N)), side(1, 0.5, 1.0), side(2, 0.5, 1.0)
OPTIONS = ["--real-groups", "group", "--fake-groups", "group", "--metrics", "fid", "--format", "json"]
COLUMNS = ["--real-key", "x,y", "--fake-key", "x,y"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, table in (("real", REAL), ("fake", FAKE), ("other", OTHER)):
        table.to_csv(f"{name}.csv", index=False)
    return tmp_path


def frame(fake: pd.DataFrame = FAKE, **others: Any) -> GenerativeMetricFrame:
    return GenerativeMetricFrame(
        metrics="fid",
        real=REAL[["x", "y"]].to_numpy(),
        fake=fake[["x", "y"]].to_numpy(),
        real_sensitive_features=REAL["group"],
        fake_sensitive_features=fake["group"],
        random_state=0,
        **others,
    )


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("files")
def test_clusters_and_strata_are_columns_and_no_features(capsys: pytest.CaptureFixture[str]) -> None:
    clusters = ["--real-clusters", "prompt", "--fake-clusters", "prompt"]
    found = printed(
        capsys, "evaluate", "real.csv", "fake.csv", *OPTIONS, *clusters, "--control", "thing", "--interval", ".9"
    )
    expected = frame(
        real_clusters=REAL["prompt"].astype(str),  # as files are read
        fake_clusters=FAKE["prompt"],
        real_control_features=REAL[["thing"]],
        fake_control_features=FAKE[["thing"]],
    )
    assert found["settings"]["clusters"] == {"real": N, "fake": N // 8}
    assert found["intervals"]["disparities"]["fid"]["delta_fid"]["high"] == pytest.approx(
        expected.interval(0.9).disparities["high"].iloc[0]
    )
    controlled = expected.controlled()
    assert found["controlled"]["by_group"] == {
        label: pytest.approx(row.to_dict()) for label, row in controlled.by_group.iterrows()
    }
    assert found["controlled"]["intervals"]["level"] == 0.9
    ignored = printed(capsys, "evaluate", "real.csv", "fake.csv", *OPTIONS, *COLUMNS, "--interval", ".9")
    high = {name: one["intervals"]["by_group"]["f"]["fid"]["high"] for name, one in (("all", found), ("rows", ignored))}
    assert high["all"] > high["rows"]
    assert found["by_group"] == ignored["by_group"]


@pytest.mark.usefixtures("files")
def test_strata_are_printed_with_their_weights(capsys: pytest.CaptureFixture[str]) -> None:
    options = [*OPTIONS[:6], *COLUMNS, "--control", "thing"]
    assert main(["evaluate", "real.csv", "fake.csv", *options, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "Scores within strata" in out
    assert "Disparities of the averages over strata" in out
    lines = [line.split() for line in out.splitlines()]
    assert [line[:3] for line in lines if line[:1] in (["face"], ["street"])] == [
        ["face", "50.0", "f"],
        ["street", "50.0", "f"],
    ]
    assert any(line[:2] == ["average", "f"] for line in lines)
    assert "with the same weights for all groups" in " ".join(out.split())


@pytest.mark.usefixtures("files")
def test_models_are_paired_by_their_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "--reference", "real.csv", "fake.csv", "other.csv", *OPTIONS, *COLUMNS]
    found = printed(capsys, *arguments, "--fake-clusters", "prompt")
    frames = [frame(one, fake_clusters=one["prompt"]) for one in (FAKE, OTHER)]
    expected = compare_frames(*reversed(frames)).set_index(["score", "group"], drop=False)["p_value"]
    p_values = [row["p_value"] for row in found["tests"]]
    assert sorted(p_values) == pytest.approx(sorted(expected))


@pytest.mark.usefixtures("files")
def test_held_out_samples_and_other_files_have_clusters_too(capsys: pytest.CaptureFixture[str]) -> None:
    side(3, 0.5).to_csv("held.csv", index=False)
    FAKE["prompt"].to_csv("prompts.txt", index=False, header=False)
    clusters = ["--real-clusters", "prompt", "--fake-clusters", "prompts.txt", "--baseline", "held.csv"]
    found = printed(capsys, "evaluate", "real.csv", "fake.csv", *OPTIONS, *COLUMNS, *clusters, "--interval", ".95")
    held_out = side(3, 0.5)
    expected = frame(real_clusters=REAL["prompt"].astype(str), fake_clusters=FAKE["prompt"]).baseline(
        held_out[["x", "y"]].to_numpy(), held_out["group"], held_out_clusters=held_out["prompt"]
    )
    intervals = found["baseline"]["intervals"]["excess"]["by_group"]["f"]["fid"]
    low, high = expected.interval().by_group.loc[("fid", "f"), ["low", "high"]]
    assert (intervals["low"], intervals["high"]) == pytest.approx((low, high), rel=0.3)  # the draws differ


@pytest.mark.usefixtures("files")
@pytest.mark.filterwarnings("default::egtmetrics.results.UnreliableScoreWarning")
def test_a_missing_column_is_named_and_few_clusters_are_a_caveat(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "real.csv", "fake.csv", *OPTIONS, *COLUMNS, "--quiet"]
    assert main([*command, "--control", "scene"]) == 2
    assert "real.csv: no column 'scene' in it" in capsys.readouterr().err
    assert main([*command, "--fake-clusters", "thing"]) == 0
    captured = capsys.readouterr()
    assert "the fake samples are in 2 clusters" in " ".join(captured.err.split())
    assert not json.loads(captured.out)["disparities"]["fid"]["delta_fid"]["reliable"]


def test_other_labels_are_read_beside_the_groups(files: Path) -> None:
    read = read_labelled_features(files / "fake.csv", groups="group", others={"clusters": "prompt", "control": "thing"})
    assert read.features.shape == (N, 2)
    assert read.others["clusters"]["prompt"].tolist() == FAKE["prompt"].tolist()
    assert read.others["control"].columns.tolist() == ["thing"]
    assert read.source["clusters"] == "prompt"
    Path(files, "few.txt").write_text("a\nb\nc\n")
    others = {"clusters": str(files / "few.txt")}
    with pytest.raises(ValueError, match="3 labels for the 320 rows"):
        read_labelled_features(files / "fake.csv", groups="group", key="x,y", others=others)


OTHER_THINGS = ["--control", "thing", *COLUMNS, "--groups", "group", "--metrics", "fid"]


@pytest.fixture
def lost_stratum(files: Path) -> Path:
    """Two samples are of a stratum that is too small, and three of one that is on one side alone."""
    for name, table in (("real", REAL), ("fake", FAKE), ("other", OTHER)):
        thing = table["thing"].where(np.arange(N) >= 2, "<small>")
        if name != "real":
            thing = thing.where(np.arange(N) < N - 3, "sky")
        table.assign(thing=thing).to_csv(f"{name}.csv", index=False)
    return files


@pytest.mark.usefixtures("lost_stratum")
@pytest.mark.filterwarnings("default::egtmetrics.groups.MissingScoreWarning")
def test_the_page_has_gaps_within_strata_beside_those_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    options = [*OTHER_THINGS, "--level", "0.9", "--quiet"]
    assert main(["report", "real.csv", "fake.csv", *options, "--out", "page.html"]) == 0
    assert "not compared in stratum <small>. <small>: group 'f' (1 real, 1 fake)" in capsys.readouterr().err
    page = Path("page.html").read_text(encoding="utf-8")
    section = page.split('<section aria-labelledby="strata">')[1].split("</section>")[0]
    real, fake = (pd.read_csv(f"{name}.csv") for name in ("real", "fake"))
    whole = GenerativeMetricFrame(
        metrics="fid",
        # Not as old releases of pandas read them, which miss the last bit; the splits of intervals depend on it.
        real=REAL[["x", "y"]].to_numpy(),
        fake=FAKE[["x", "y"]].to_numpy(),
        real_sensitive_features=real["group"],
        fake_sensitive_features=fake["group"],
        real_control_features=real["thing"],
        fake_control_features=fake["thing"],
        random_state=0,
    )
    with pytest.warns(MissingScoreWarning):
        strata = whole.controlled()
    (row,) = [row for row in section.split("<tr>") if ">fid: FID" in row]
    for found in (whole, strata):
        gap, bounds = found.disparities().loc[("fid", "delta_fid")], found.interval(0.9).disparities
        low, high = bounds.loc[("fid", "delta_fid"), ["low", "high"]]
        assert f">{gap['value']:.4g}" in row
        assert f"{low:.4g} to {high:.4g}" in row
    for stratum, kept in strata.strata.iterrows():
        name = str(stratum).replace("<", "&lt;").replace(">", "&gt;")
        assert f'<tr><th scope="row">{name}</th>' in section.replace("\n", "")
        assert f">{100 * kept['weight']:.1f}</td>" in section
    assert "group f, m is not on both sides" in section
    assert "may also differ in thing. The gaps within strata do not." in page
    assert "--control thing" in page
    assert main(["evaluate", "real.csv", "fake.csv", *OTHER_THINGS, "--interval", "0.9", "--out", "other.html"]) == 0
    assert section in Path("other.html").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.MissingScoreWarning")
@pytest.mark.usefixtures("lost_stratum")
def test_models_are_compared_within_strata(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "--reference", "real.csv", "fake.csv", "other.csv", *OTHER_THINGS, "--permutations", "0"]
    found = printed(capsys, *command, "--format", "json", "--match-sizes")
    first, second = (found["models"][name]["controlled"] for name in ("fake", "other"))
    assert [one["n_real"] for one in first["strata"].values()] == [one["n_real"] for one in second["strata"].values()]
    assert first["strata"]["face"]["n_real"] == first["strata"]["face"]["n_fake"]
    alone = printed(capsys, "evaluate", "real.csv", "other.csv", *OTHER_THINGS, "--format", "json")["controlled"]
    unmatched = printed(capsys, *command, "--format", "json")["models"]["other"]["controlled"]
    assert unmatched == alone
    assert main([*command, "--quiet"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Fréchet distance: averages over strata" in text
    assert f"{alone['by_group']['f']['fid']:.4g}" in text
    assert text.count("stratum <small> is left out") == 1
    assert "with other weights" not in text
    table = pd.read_csv("other.csv")
    table[(table["thing"] != "face") | (table["group"] == "f")].to_csv("other.csv", index=False)
    assert main([*command, "--quiet"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "other: stratum face is left out: group m is not on both sides" in text
    assert "The averages of the models are of other strata, or with other weights" in text


@pytest.mark.filterwarnings("ignore::egtmetrics.groups.MissingScoreWarning")
@pytest.mark.usefixtures("files")
def test_strata_that_allow_less_leave_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "real.csv", "fake.csv", *OTHER_THINGS, "--interval", "0.9", "--format", "json"]
    FAKE.assign(thing=FAKE["thing"] + FAKE["prompt"].str[-2:]).to_csv("fake.csv", index=False)
    assert main([*command, "--quiet"]) == 2
    message = capsys.readouterr().err
    assert "--control thing: no stratum has every group on both sides: 'face' lacks f, m; name strata alike" in message
    for name, table in (("real", REAL), ("fake", FAKE)):  # 40 of each group in most of the strata
        table.assign(thing=np.arange(N) * 4 // N).to_csv(f"{name}.csv", index=False)
    found = printed(capsys, *command)
    assert "intervals" in found
    assert "by_group" in found["controlled"]
    assert "intervals" not in found["controlled"]
    assert main([*command[:-2], "--quiet"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "no intervals for averages over strata: stratum '0': group 'f' has 40 samples on one side" in out
    assert main([*command, "--quiet", "--strict"]) == 2
    assert "stratum '0': group 'f' has 40 samples on one side" in capsys.readouterr().err
    for name, table in (("real", REAL), ("fake", FAKE)):  # one of each group in every stratum
        table.assign(thing=np.arange(N) // 2).to_csv(f"{name}.csv", index=False)
    found = printed(capsys, *command)
    assert "controlled" not in found
    assert "stratum '0' is left out: group 'f' (1 real, 1 fake)" in found["no comparison within strata"]
