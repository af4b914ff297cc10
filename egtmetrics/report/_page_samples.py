"""The samples that a page shows: ranked ones, and those beside training samples."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egtmetrics.labels import group_text
from egtmetrics.report._page_tables import p_text, table_of
from egtmetrics.results import Score

_THUMBNAIL = 192
"""Pixels: twice what a phone shows."""
_LONGEST_TEXT = 600


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankedSamples:
    """Samples for :func:`render_page` to show."""

    ranking: pd.DataFrame
    """As :func:`~egtmetrics.report.explanations.rank_samples` returns it."""
    contents: Mapping[int, str | NDArray[np.uint8]]
    """What each row of the ranking is: a text, or levels ``(channels, height, width)`` with 1 or 3 channels."""
    n_neighbors: int = 5
    """As it was given to ``rank_samples``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuspectedCopies:
    """Generated samples for :func:`render_page` to show beside the nearest training samples."""

    pairs: pd.DataFrame
    """As :func:`~egtmetrics.groups.suspected_copies` returns it."""
    contents: Mapping[int, str | NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    """What each generated row is, as in :class:`RankedSamples`; empty where that is not known."""
    training_contents: Mapping[int, str | NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    """The same of the training rows."""
    training_names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Of the training rows, such as those of files."""
    test: pd.DataFrame | None = None
    """As :func:`~egtmetrics.groups.copying_test` returns it."""


def samples_section(samples: RankedSamples) -> dict[str, Any]:
    words = {"farthest": "farthest from the real samples", "nearest": "nearest to the real samples"}
    strips = []
    for key, rows in samples.ranking.groupby(["group", "end"], sort=False):
        group, end = key[0], str(key[1])
        name = group_text(group)
        items = [
            _sample(
                samples.contents[row],
                f"{score:.2f} · row {row}",
                f"Generated sample {row} of group {name}, {words[end]}",
            )
            for row, score in zip(rows["row"].tolist(), rows["score"].tolist(), strict=True)
        ]
        texts = any(item["text"] is not None for item in items)
        strips.append({"title": f"{name}: {words[end]}", "samples": items, "texts": texts})
    k = samples.n_neighbors
    return {
        "note": f"The number is the distance to the {f'{k}th ' if k > 3 else ['', 'second ', 'third '][k - 1]}nearest "
        "real sample of the same group, divided by the usual such distance among the real samples. It is about 1 for a "
        "sample like the real ones, and more for one that lies apart. A number far below 1 may also mean a copy. Rows "
        "are counted from 0.",
        "strips": strips,
    }


def copies_section(copies: SuspectedCopies) -> dict[str, Any]:
    sentences = [
        "For each group, the generated samples that are most likely copies, each beside the training sample that is "
        "nearest to it. The ratio is their distance divided by that of this training sample to its nearest other one. "
        "0 is a copy, 1 or less a near-copy, as the metric authenticity counts them. A perfect generator makes some, "
        "too, by chance: look at the pairs. Rows are counted from 0."
    ]
    tables = []
    if copies.test is None:
        sentences.append(
            "Whether the model copies more than chance was not tested: that needs held-out real samples, which it was "
            "not trained on (--baseline FILE)."
        )
    else:
        sentences.append(
            "Nearer is the chance that a generated sample lies nearer to the training set than a held-out real one of "
            "its group: 50 % for a perfect generator. A small p, corrected for the number of groups, means that the "
            "model copies, or that it makes too few of the samples that lie far from all others."
        )
        score = Score(label="nearer", percent=True)
        tested = copies.test.to_dict("records")
        columns = {
            "group": [*map(group_text, copies.test.index)],
            "generated": [str(row["n_fake"]) for row in tested],
            "held out": [str(row["n_held_out"]) for row in tested],
            "nearer (%)": [score.text(row["nearer"]) for row in tested],
            "corrected p": [p_text(row["adjusted_p_value"]).removeprefix("= ") for row in tested],
        }
        tables.append(table_of("Nearer to the training set than held-out samples?", [*columns.items()]))
    groups = []
    for group, rows in copies.pairs.groupby("group", sort=False):
        name = group_text(group)
        pairs = []
        for pair in rows.to_dict("records"):
            row, of_training = int(pair["row"]), int(pair["training_row"])
            file = copies.training_names.get(of_training)
            sides = [
                _sample(copies.contents.get(row), f"generated · row {row}", f"Generated sample {row} of group {name}"),
                _sample(
                    copies.training_contents.get(of_training),
                    f"training · row {of_training}{f' · {file}' if file else ''}",
                    f"Training sample {of_training}, the nearest to generated sample {row}",
                ),
            ]
            texts = any(side["text"] is not None for side in sides)
            title = f"distance {pair['distance']:.4g}, ratio {pair['ratio']:.2f}"
            pairs.append({"title": title, "samples": sides, "texts": texts})
        groups.append({"title": name, "pairs": pairs})
    return {"sentences": sentences, "tables": tables, "groups": groups}


def _sample(content: str | NDArray[np.uint8] | None, caption: str, what: str) -> dict[str, Any]:
    """Return a sample to show; one whose content is not known has a caption alone."""
    item: dict[str, Any] = {"text": None, "image": None, "small": False, "alt": what, "caption": caption}
    if content is None:
        return item
    if isinstance(content, str):
        item["text"] = content if len(content) <= _LONGEST_TEXT else content[:_LONGEST_TEXT].rstrip() + " …"
    else:
        item["small"] = max(content.shape[1:]) <= _THUMBNAIL // 3
        item["image"] = "data:image/png;base64," + base64.b64encode(_png(content)).decode()
    return item


def _png(levels: NDArray[np.uint8]) -> bytes:
    import PIL.Image  # matplotlib needs it

    image = PIL.Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
