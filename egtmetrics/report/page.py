"""A frame as one HTML page that needs nothing else: for readers, on paper, on a phone, with a screen reader."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Mapping
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

from egtmetrics import __version__
from egtmetrics._extras import extra
from egtmetrics._text import shown
from egtmetrics.groups import (
    Baseline,
    DoseResponse,
    GenerativeMetricFrame,
    LabelCorrection,
    LabelSensitivity,
    Verdict,
    ViewComparison,
)
from egtmetrics.groups.controlled import ControlledScores
from egtmetrics.report._page_figures import draw_gaps, draw_precision_recall, plain_text_figures
from egtmetrics.report._page_parts import Doses, Excess, Inference, TrueGroups, WithinStrata, find_gaps, infer
from egtmetrics.report._page_samples import RankedSamples, SuspectedCopies, copies_section, samples_section
from egtmetrics.report._page_sections import (
    divergence_section,
    dose_section,
    excess_section,
    labels_section,
    proportions_section,
    strata_section,
    views_section,
)
from egtmetrics.report._page_summary import cautions, finding, headline, lead
from egtmetrics.report._page_tables import Cell, Table, gap_table, score_table
from egtmetrics.report.explanations import DecomposedSamples
from egtmetrics.report.tables import method_notes, views_title
from egtmetrics.report.words import verdict_sentence

if TYPE_CHECKING:
    import jinja2

__all__ = ["RankedSamples", "SuspectedCopies", "load_template", "render_page"]

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that HTML does not allow."""
_PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "matplotlib")


def render_page(
    frame: GenerativeMetricFrame,
    *,
    baseline: Baseline | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
    dose: DoseResponse | None = None,
    views: ViewComparison | None = None,
    sensitivity: Mapping[str, LabelSensitivity] | None = None,
    controlled: ControlledScores | None = None,
    correction: LabelCorrection | None = None,
    title: str = "Is the model equally good for every group?",
    level: float | None = 0.95,
    divergence: DecomposedSamples | str | None = None,
    samples: RankedSamples | None = None,
    copies: SuspectedCopies | None = None,
    provenance: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> str:
    """Return one self-contained HTML page: what the frame says in plain words, tables, figures, and the method.

    The page loads nothing and runs no script. Figures are inline SVG, images are data URIs; names of groups and texts
    are escaped. The same arguments give the same page.

    Parameters
    ----------
    frame
        What to show.
    baseline
        What ``frame.baseline()`` returned. The summary then speaks of the excess over other real samples. Without it,
        it says that a gap may not be the model's.
    verdicts
        By metric, what ``certify`` returned: whether its largest gap is within a tolerance.
    dose
        What ``frame.dose_response()`` returned. If a damage explains the scores, the summary speaks of its doses, which
        are equal for equal damage; a section shows the curves and all that was tried.
    views
        What ``compare_views(...)`` returned, for the same samples under several encoders or options: a section says
        which gaps survive.
    sensitivity
        By metric, what ``frame.label_sensitivity()`` returned: which rate of wrong labels would change the finding.
    controlled
        What ``frame.controlled()`` returned: a section shows the gaps within strata beside those over all samples, the
        scores and weights of the strata, and what was left out.
    correction
        What ``frame.correct_labels(...)`` returned: a section shows scores and gaps by true group, and how much of
        every called group is not of it.
    title
        Heading of the page.
    level
        Confidence level of the intervals. A gap counts as more than noise if its p-value from ``frame.test``, corrected
        for the number of gaps, is at most ``1 - level``. If the frame has no intervals, the page says why. None leaves
        them out.
    divergence
        From :func:`~egtmetrics.report.explanations.decompose_samples`, or the reason why it is missing.
    samples
        Generated samples to show, by group.
    copies
        Generated samples to show beside the nearest training samples, by group.
    provenance
        Facts for the method, as for :func:`~egtmetrics.report.render`.
    command
        The command line that makes this page again.

    Raises
    ------
    ImportError
        jinja2 or matplotlib is missing.
    ValueError
        ``level`` is not in (0, 1).

    Notes
    -----
    Cost: that of ``frame.interval``, and a second for the figures.

    Examples
    --------
    >>> def mean_gap(real, fake):
    ...     return float(abs(real.mean() - fake.mean()))
    >>> frame = GenerativeMetricFrame(
    ...     metrics={"gap": mean_gap}, real=[[0.0], [0.0], [1.0], [1.0]], fake=[[0.5], [0.5], [1.0], [1.0]],
    ...     real_sensitive_features=["f", "f", "<m>", "<m>"], fake_sensitive_features=["f", "f", "<m>", "<m>"])
    >>> page = render_page(frame)
    >>> "<m>" in page, "&lt;m&gt;" in page
    (False, True)
    """
    template = load_template()
    inference = infer(frame, level)
    gaps = find_gaps(frame, inference)
    single = [gap for gap in gaps if gap.column is not None]
    excess = None if baseline is None else Excess.of(baseline, level)
    doses = None if dose is None else Doses.of(dose, frame, level)
    strata = None if controlled is None else WithinStrata.of(controlled, level)
    true = None if correction is None else TrueGroups.of(correction, level, verdicts)
    sections = {
        "summary": "Summary",
        "groups": "Scores by group",
        "gaps": "Gaps",
        "strata": None if strata is None else "Within strata",
        "excess": None if baseline is None else "Against other real samples",
        "dose": None if dose is None else "As how much damage",
        "views": None if views is None else views_title(views),
        "labels": None if true is None else "By true group",
        "proportions": "Proportions",
        "divergence": None if divergence is None else "Divergence",
        "samples": None if samples is None else "Samples",
        "copies": None if copies is None else "Copies",
        "method": "Method",
    }
    with plain_text_figures():
        proportions = proportions_section(frame)
        page: str = template.render(
            title=title,
            lead=lead(frame),
            contents=[(anchor, name) for anchor, name in sections.items() if name is not None],
            verdict=headline(single, inference, excess, doses),
            findings=[
                *(finding(gap, frame, inference, excess) for gap in single),
                {"text": proportions["sentences"][0], "kind": "open", "tag": ""},
            ],
            verdicts=[
                {
                    "text": verdict_sentence(frame, one),
                    "kind": {"within": "calm", "beyond": "alarm", "undecided": "open"}[one.outcome],
                    "tag": one.outcome,
                }
                for one in (verdicts or {}).values()
            ],
            cautions=cautions(frame, inference, baseline, sensitivity or {}, strata, true),
            scores=[
                score_table(frame.tables[metric], gaps if excess is None else excess.gaps, frame, inference)
                for metric in frame.settings["metrics"]
            ],
            glossary=_glossary(frame),
            precision_recall=draw_precision_recall(frame, inference),
            forest=draw_gaps([gap for gap in gaps if len(gap.disparity.families) == 1], inference),
            gaps=gap_table(gaps, inference),
            has_sums=len(single) < len(gaps),
            strata=None if strata is None else strata_section(strata, gaps, frame),
            excess=None if excess is None else excess_section(excess, frame),
            dose=None if doses is None else dose_section(doses, frame),
            views=None if views is None else views_section(views),
            labels=None if true is None else labels_section(true, frame),
            proportions=proportions,
            divergence=None if divergence is None else divergence_section(divergence),
            samples=None if samples is None else samples_section(samples),
            copies=None if copies is None else copies_section(copies),
            method=_method(frame, inference, provenance or {}),
            command=command,
            versions=_versions(),
            version=__version__,
        )
    return _UNSEEN.sub(lambda match: shown(match[0]), page)


def load_template() -> jinja2.Template:
    """Return what :func:`render_page` fills in; raise ImportError where a package is missing that it takes."""
    with extra("report", "the page needs jinja2 and matplotlib"):
        import jinja2
        import matplotlib.figure  # noqa: F401  that the figures can be drawn
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    source = resources.files("egtmetrics.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


def _glossary(frame: GenerativeMetricFrame) -> list[tuple[str, str]]:
    """Label and explanation of every score that has one."""
    entries = [(score.label, f"{score.help} {score.direction}".strip()) for score in frame.describe().values()]
    return [(label, text) for label, text in dict.fromkeys(entries) if text]


def _method(frame: GenerativeMetricFrame, inference: Inference, provenance: Mapping[str, Any]) -> list[str]:
    notes = method_notes(frame, provenance)
    if inference.intervals is not None:
        notes.append(
            f"intervals ({inference.level:.0%}): of the average of the scores over other samples of this size, "
            "estimated from random parts of the samples (frame.interval). The interval of a gap starts at 0 where the "
            "groups may be equal. δ if equal: the gap that noise alone gives on average to groups with equal expected "
            "scores. It grows with the number of groups."
        )
    if inference.tests is not None:
        notes.append(
            "corrected p: the chance of a gap like this or a larger one between groups with equal expected scores. It "
            "is a normal approximation that accounts for the number of pairs of groups, corrected for the number of "
            "gaps of all metrics (frame.test)."
        )
    return notes if inference.tests is not None else [*notes, f"intervals and tests: {inference.reason}"]


def _versions() -> Table:
    rows = [("egtmetrics", __version__), ("Python", platform.python_version())]
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            rows.append((package, metadata.version(package)))
    cells = [[Cell(text=text) for text in row] for row in rows]
    return Table(caption="Versions", header=["package", "version"], rows=cells)
