"""The cost model of the scaling study, the labels of its rows, and a run that was stopped and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import scaling
from benchmarks.scaling import CASES, Record

PRDC = next(case for case in CASES if case.model == "PRDC")
FID = next(case for case in CASES if case.model == "FID")


@given(st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5), st.sampled_from(range(5)))
def test_the_fit_recovers_an_exact_cost(sizes_of_terms: list[float], missing: int) -> None:
    """One term is missing; two values of B distinguish n^2 from n^2 B."""
    units = [1e-3, 1e-7, 1e-9, 1e-10, 1e-12]
    truth = dict(zip(scaling.topp_terms(1, 1), map(float.__mul__, units, sizes_of_terms), strict=True))
    truth[list(truth)[missing]] = 0.0
    terms = [scaling.topp_terms(n, b) for n in (1000, 3000, 10_000, 30_000) for b in (10, 1000)]
    values = [scaling.predict(truth, row) for row in terms]
    found = scaling.fit(terms, values)
    for row, value in zip(terms, values, strict=True):
        assert scaling.predict(found, row) == pytest.approx(value, rel=1e-6)
    assert min(found.values()) >= 0.0


def test_the_fit_minimises_relative_errors() -> None:
    """One constant for 1 s and 100 s: least squares of absolute errors give 50.5, of relative errors 1.0099."""
    found = scaling.fit([{"1": 1.0}, {"1": 1.0}], [1.0, 100.0])
    assert found["1"] == pytest.approx((1 + 1 / 100) / (1 + 1 / 100**2))


def record(seconds: float, peak: float = 100.0) -> Record:
    times = {"core_seconds": seconds, "clock_seconds": seconds / 2, "repeats": 1}
    return {**times, "peak_megabytes": peak, "ceiling_core_seconds": seconds / 2}


def test_the_model_is_checked_at_a_size_it_was_not_fitted_on_and_rows_are_labelled() -> None:
    seconds = {n: 1e-3 + 1e-8 * n**2 for n in (1000, 10_000, 50_000)}
    measured = {PRDC.name: {n: record(value) for n, value in seconds.items()} | {100_000: record(200.0)}}
    content = scaling.report(measured, [1000, 10_000, 50_000, 100_000, 1_000_000])
    rows = {row["n"]: row for row in content["rows"]}
    assert {n: (row["label"], row.get("role")) for n, row in rows.items()} == {
        1000: ("measured", "fitted"),
        10_000: ("measured", "fitted"),
        50_000: ("measured", "fitted"),
        100_000: ("measured", "check"),
        1_000_000: ("modelled", None),
    }
    assert rows[100_000]["core_seconds"] == 200.0
    assert rows[100_000]["relative_error"]["core_seconds"] == pytest.approx(-0.5, rel=1e-4)  # it took twice the 100 s
    assert rows[1_000_000]["model"]["core_seconds"] == pytest.approx(1e4, rel=1e-4)
    assert "core_seconds" not in rows[1_000_000]
    lines = {
        line.split("|")[2].strip(): line for line in scaling.markdown(content, "").splitlines() if "PRDC, k" in line
    }
    for n, texts in (("100,000", ("| measured |", "200 s", "-50%")), ("1,000,000", ("| modelled |", "2.78 h"))):
        assert all(text in lines[n] for text in texts), lines[n]


def test_two_sizes_give_no_model() -> None:
    content = scaling.report({FID.name: {1000: record(1.0), 3000: record(2.0)}}, [1000, 3000, 10**7])
    assert content["models"] == {}
    assert [row["n"] for row in content["rows"]] == [1000, 3000]


@pytest.mark.slow
def test_a_stopped_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")  # times the ceiling

    def run(sizes: str) -> Record:
        arguments = ["--only", "PRDC", "--sizes", sizes, "--stages", str(tmp_path), "--out", str(tmp_path)]
        monkeypatch.setattr("sys.argv", ["scaling", *arguments])
        scaling.main()
        content: Record = json.loads((tmp_path / "scaling.json").read_text())
        return content

    (first,) = run("500")["rows"]
    whole = run("500,1000,2000,1000000")
    rows = {row["n"]: row for row in whole["rows"]}
    assert list(rows) == [500, 1000, 2000, 1_000_000]
    for key in record(0.0):
        assert rows[500][key] == first[key], "measured again"
    assert rows[2000]["peak_megabytes"] > 30.0  # more than an interpreter
    assert 0.0 < rows[2000]["core_seconds"] < 60.0
    assert rows[1_000_000]["label"] == "modelled"
    assert (tmp_path / "scaling.md").read_text() in capsys.readouterr().out
