"""The sections of a page that some frames have: other real samples, doses, strata, views, labels, proportions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from egtmetrics.groups import DoseResponse, GenerativeMetricFrame, ScoreTable, ViewComparison
from egtmetrics.groups.disparity import EGO, MGO
from egtmetrics.labels import group_text
from egtmetrics.report._page_figures import draw_doses, draw_gaps, draw_proportions, draw_views
from egtmetrics.report._page_parts import Doses, Excess, Gap, TrueGroups, WithinStrata, gap_text, gaps_of, interval_text
from egtmetrics.report._page_summary import sentence
from egtmetrics.report._page_tables import (
    Cell,
    Table,
    gap_cell,
    gap_name,
    gap_table,
    p_cell,
    pair_cells,
    table_of,
    with_intervals,
)
from egtmetrics.report.explanations import DecomposedSamples
from egtmetrics.report.tables import (
    groups_title,
    label_columns,
    names_text,
    strata_columns,
    true_score_columns,
    view_columns,
    views_note,
    views_title,
)
from egtmetrics.report.words import verdict_sentence
from egtmetrics.results import Score


def excess_section(excess: Excess, frame: GenerativeMetricFrame) -> dict[str, Any]:
    baseline = excess.baseline
    sizes = baseline.sizes["n_samples"]
    held_out = baseline.settings["held_out"]
    sentences = [
        "What would a perfect generator score? To see it, "
        f"{'held-out real samples' if held_out else 'other real samples'} of each group took the place of the "
        f"generated ones, {sizes[sizes > 0].min()} in each set"
        f"{'' if held_out else ', by splitting the real samples at random, and averaging over splits'}. The excess is "
        "the model's score less theirs. A perfect generator has an excess of 0 in every group, up to noise.",
    ]
    shares = list(baseline.ratio)
    if shares:
        sentences.append(
            "For shares there is also the ratio of the two. If a tenth of a group's generated samples is bad, its "
            "precision is nine tenths of what other real samples score, in every group."
        )
    return {
        "sentences": sentences,
        "tables": [
            _excess_table(table, excess, frame)
            for table in baseline.tables().values()
            if table.values.notna().any(axis=None)
        ],
        "forest": draw_gaps(
            [gap for gap in excess.gaps if len(gap.disparity.families) == 1], excess.inference, "excess"
        ),
        "gaps": gap_table(excess.gaps, excess.inference, "Largest difference δ of the excess between two groups"),
    }


def _excess_table(table: ScoreTable, excess: Excess, frame: GenerativeMetricFrame) -> Table:
    baseline, inference = excess.baseline, excess.inference
    header, columns = [groups_title(frame)], []
    for name, score in frame.tables[table.metric].described.items():
        column = table.column(name)
        kinds = {"model": baseline.model, "other real": baseline.placebo, "excess": baseline.excess}
        if column in baseline.ratio:
            kinds["ratio"] = baseline.ratio
        for kind, values in kinds.items():
            unit = f" ({score.printed_unit})" if score.printed_unit and kind != "ratio" else ""
            header.append(f"{score.label}: {kind}{unit}")
            columns.append((kind, column, score, values[column].tolist()))

    def cell(kind: str, column: str, score: Score, value: float, group: Hashable) -> Cell:
        if kind == "ratio":
            return Cell(text=f"{value:.3f}", unreliable=group in table.caveats)
        bounds = interval_text(inference.score_bounds(column, group), score) if kind == "excess" else ""
        text = ("+" if kind == "excess" and value > 0 else "") + score.text(value)
        return Cell(text=text, interval=bounds, unreliable=group in table.caveats)

    return Table(
        caption=f"{frame.title(table.metric)}: model, other real samples, and excess{with_intervals(inference)}",
        header=header,
        rows=[
            [
                Cell(text=group_text(group)),
                *(cell(kind, column, score, values[i], group) for kind, column, score, values in columns),
            ]
            for i, group in enumerate(table.values.index.tolist())
        ],
    )


def views_section(views: ViewComparison) -> dict[str, Any]:
    return {
        "title": views_title(views),
        "sentences": [
            f"Is it the {views.of}? The same samples were seen under {len(views.gaps.index.unique(views.of))} "
            f"{views.of}s. All else on this page is of the first.",
            *views.sentences,
        ],
        "note": sentence(views_note(views)),
        "figure": draw_views(views),
        "table": table_of(f"The largest gap between two groups, under each {views.of}", view_columns(views)),
    }


def strata_section(strata: WithinStrata, gaps: Sequence[Gap], frame: GenerativeMetricFrame) -> dict[str, Any]:
    table = strata.scores.strata
    columns = [
        (strata.features, [*map(group_text, table.index)]),
        ("real", [*map(str, table["n_real"])]),
        ("generated", [*map(str, table["n_fake"])]),
        ("weight (%)", [f"{100 * weight:.1f}" for weight in table["weight"]]),
    ]
    if any(table["left_out"]):
        columns.append(("left out, because", [*table["left_out"]]))
    return {
        "sentences": [
            f"Two groups may score unequally because they differ in {strata.features}. So every group was also scored "
            f"within each stratum of {strata.features}, and the scores were averaged with the same weights for all "
            "groups: the strata's shares of the real samples, unless others were given. All else on this page is of "
            "all samples.",
            *(f"{note}." for note in strata.doubts()),
        ],
        "tables": [
            _gaps_beside(gaps, strata),
            table_of(f"Strata of {strata.features}, and what they count in the averages", columns),
            *(
                table_of(
                    f"{frame.title(metric)}: scores within strata{with_intervals(strata.inference)}",
                    strata_columns(frame, strata, metric, "\n"),
                )
                for metric in strata.scores.tables()
            ),
        ],
    }


def _gaps_beside(gaps: Sequence[Gap], strata: WithinStrata) -> Table:
    """Every gap over all samples, and beside it the one within strata."""
    plain = {(gap.table.metric, gap.disparity.name): gap for gap in gaps}
    within = gaps_of(strata.scores.tables(), strata.inference)
    tested = strata.inference.tests is not None
    rows = []
    for gap in within:
        both = (plain[gap.table.metric, gap.disparity.name], gap)
        rows.append(
            [
                Cell(text=gap_name(gap)),
                *(cell for one in both for cell in (gap_cell(one), *([p_cell(one)] if tested else []))),
                *pair_cells(gap),
            ]
        )
    p = ["corrected p"] if tested else []
    return Table(
        caption="Largest difference δ between two groups, over all samples and within strata"
        + with_intervals(strata.inference),
        header=["gap in", "δ over all samples", *p, "δ within strata", *p, "larger in", "smaller in"],
        rows=rows,
    )


def labels_section(true: TrueGroups, frame: GenerativeMetricFrame) -> dict[str, Any]:
    return {
        "sentences": [
            "The labels of the generated samples err, so that every called group also holds samples of others. That "
            "alone can make gaps, and hide some. With the confusion, which says how often, scores that are means over "
            "generated samples can be given by true group. All else on this page is by the labels as called.",
            *map(sentence, true.sentences()),
        ],
        "verdicts": [verdict_sentence(frame, one) for one in true.verdicts.values()],
        "tables": [
            table_of("Scores of called and of true groups", true_score_columns(frame, true)),
            gap_table(gaps_of(true.tables, true.inference), true.inference, "Largest difference δ between true groups"),
            table_of("Labels of the generated samples", label_columns(frame, true)),
        ],
    }


def dose_section(doses: Doses, frame: GenerativeMetricFrame) -> dict[str, Any]:
    response = doses.response
    sentences = [
        "What would known damage do? Real samples of each group were damaged, at several doses, and scored against "
        "other real samples. The model is read against the curve of its own group. The same damage then gives the same "
        "dose in every group, however unlike the groups are.",
        sentence(response.summary()),
    ]
    if response.explanation is None:
        sentences.append(
            "At no dose up to the largest that was tried are all scores those of the model. The damage may be of "
            "another kind, of several kinds at once, or larger."
        )
        return {"sentences": sentences, "tables": [_damage_table(response, frame)], "figure": None}
    others = [name for name in response.damages if name != response.explanation and response.explains(name)]
    sentences.append(
        "A dose shows which damage would give these scores, not that this damage was done."
        + (f" These explain the scores too, but fit less well: {names_text(others)}." if others else "")
    )
    return {
        "sentences": sentences,
        "tables": [
            _damage_table(response, frame),
            _dose_table(doses, frame),
            gap_table(doses.gaps, doses.inference, "Largest difference δ of the doses between two groups"),
        ],
        "figure": draw_doses(response, frame),
    }


def _damage_table(response: DoseResponse, frame: GenerativeMetricFrame) -> Table:
    """In words: every damage that was tried, whether it explains the scores, and the dose of every group."""
    groups = frame.by_group.index.tolist()
    rows = []
    for name, damage in response.damages.items():
        shown, found = damage.describe(), response.agreement.loc[name]
        cells = []
        for dose, low, high in found[["dose", "low", "high"]].itertuples(index=False):
            unit = f" {shown.printed_unit}" if shown.printed_unit else ""
            if math.isnan(low):
                cells.append(Cell(text="no dose fits"))
            elif low == 0.0 and high == shown.bounds[1]:
                cells.append(Cell(text="every dose fits"))
            else:
                cells.append(Cell(text=shown.text(dose) + unit, interval=interval_text((low, high), shown) + unit))
        explains = "yes, best" if name == response.explanation else "yes" if response.explains(name) else "no"
        rows.append([Cell(text=f"{damage.label} ({name})"), Cell(text=explains, number=False), *cells])
    return Table(
        caption="What was tried, and at which dose all scores of a group are those of the model, with 95% intervals",
        header=["damage", "explains the scores", *map(group_text, groups)],
        rows=rows,
    )


def _dose_table(doses: Doses, frame: GenerativeMetricFrame) -> Table:
    """The doses that every score reads."""
    tables, inference = doses.response.tables(), doses.inference
    columns = [(table, name, score) for table in tables.values() for name, score in table.described.items()]
    damage = doses.response.damages[str(doses.response.explanation)].describe()
    unit = f" ({damage.printed_unit})" if damage.printed_unit else ""

    def cell(table: ScoreTable, name: str, score: Score, group: Hashable) -> Cell:
        value = table.values[name].to_dict()[group]
        return Cell(
            text="none" if math.isnan(value) else score.text(value),
            interval=interval_text(inference.score_bounds(table.column(name), group), score),
            unreliable=group in table.caveats,
        )

    return Table(
        caption=f"Dose read by each score: {damage.label}{unit}{with_intervals(inference)}",
        header=[
            groups_title(frame),
            *(frame.tables[table.metric].described[name].label for table, name, _ in columns),
        ],
        rows=[
            [Cell(text=group_text(group)), *(cell(*column, group) for column in columns)]
            for group in frame.by_group.index.tolist()
        ],
    )


def proportions_section(frame: GenerativeMetricFrame) -> dict[str, Any]:
    counts, table = frame.group_counts, frame.tables["proportions"]
    mgo, ego = (disparity.of(table.values) for disparity in (MGO, EGO))
    described = table.described
    sentences = ["The generated samples hold every group in the proportion of the real ones (MGO is 0)."]
    if mgo.value > 0:
        group = mgo.smaller if mgo.larger is None else mgo.larger
        real, fake = (
            described[column].text(table.values[column].to_dict()[group])
            for column in ("real_proportion", "fake_proportion")
        )
        sentences = [
            f"{fake} % of the generated samples are {group_text(group)}, and {real} % of the real ones: the largest "
            f"deviation of a proportion, MGO (matching generative odds), is {gap_text(MGO.score, mgo.value)}."
        ]
    sentences.append(
        f"Between the groups, the generated proportions differ by up to {gap_text(EGO.score, ego.value)}: EGO "
        "(equalized generative odds), which is 0 if all groups are equally frequent."
    )
    if not frame.scored_counts.equals(counts[["n_real", "n_fake"]]):
        sentences.append("The proportions are those of all samples, before some were left out for the scores.")
    names = [group_text(group) for group in counts.index]
    rows = [
        [
            Cell(text=name),
            *(Cell(text=str(row[f"n_{side}"])) for side in ("real", "fake")),
            *(Cell(text=score.text(row[column])) for column, score in described.items()),
        ]
        for name, row in zip(names, counts.astype(object).to_dict("records"), strict=True)
    ]
    return {
        "sentences": sentences,
        "figure": draw_proportions(names, counts),
        "table": Table(
            caption="Samples in each group",
            header=[groups_title(frame), "real", "generated", "real (%)", "generated (%)"],
            rows=rows,
        ),
    }


def divergence_section(divergence: DecomposedSamples | str) -> dict[str, Any]:
    if isinstance(divergence, str):
        return {"sentences": [f"This could not be computed: {divergence}."], "table": None}
    parts = divergence.decomposition
    assert parts.weights is not None  # the squared Hellinger distance has a chain rule
    rows = []
    for group, weight in parts.weights.items():
        distance, chance = parts.by_group[group], divergence.chance.get(group)
        added = 0.0 if distance is None else weight * distance
        texts = [f"{value:.4f}" if value is not None else "" for value in (distance, chance, weight, added)]
        rows.append([group_text(group), *texts, _of(added, parts.total)])
    rows.append(
        ["wrong proportions", "", "", "", f"{parts.proportion_term:.4f}", _of(parts.proportion_term, parts.total)]
    )
    rows.append(["total", "", "", "", f"{parts.total:.4f}", _of(parts.total, parts.total)])
    above = [
        group_text(group) for group, chance in divergence.chance.items() if (parts.by_group[group] or 0.0) > chance
    ]
    return {
        "sentences": [
            "The squared Hellinger distance between the real and the generated samples, on "
            f"{divergence.n_clusters} clusters of their features, is {parts.total:.4f}, where 0 is equal and 2 is "
            "nothing in common. It is a sum: what wrong proportions of the groups add, and for each group its own "
            "distance times its weight. So few clusters show coarse differences only.",
            "A group whose real and generated samples come from one distribution stays below “chance” with probability "
            f"{divergence.level:.0%} ({divergence.n_permutations} random exchanges of its samples). Above it: "
            f"{', '.join(above) or 'none'}.",
        ],
        "table": Table(
            caption="The divergence, split over groups",
            header=["group", "within the group", "chance", "weight", "adds", "of the total"],
            rows=[[Cell(text=text) for text in row] for row in rows],
        ),
    }


def _of(part: float, total: float) -> str:
    return f"{part / total:.1%}" if total > 0 else ""
