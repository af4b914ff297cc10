"""What metrics return: frozen dataclasses with named scores."""

from __future__ import annotations

import dataclasses
import html
from typing import Any, ClassVar


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricResult:
    """Base of every result. ``score_names`` lists the fields a frame compares between groups, in display order."""

    score_names: ClassVar[tuple[str, ...]] = ()
    depends_on_size: ClassVar[bool] = True
    """Whether the expectation may change with the number of samples; groups of unlike sizes are then warned of."""

    backend: str
    """Which backend computed it: ``"cpu"``, ``"cuda"`` or ``"reference"``, ``"numpy"`` where no kernel takes part."""
    n_real: int
    n_fake: int

    def scores(self) -> dict[str, float]:
        """The headline numbers by name."""
        return {name: float(getattr(self, name)) for name in self.score_names}

    def _repr_html_(self) -> str:
        """What notebooks show: the scores."""
        cells = "".join(
            f'<tr><th scope="row" style="text-align: left">{html.escape(name)}</th><td>{value:.4g}</td></tr>'
            for name, value in self.scores().items()
        )
        caption = f"{type(self).__name__}, {self.n_real} real and {self.n_fake} fake samples"
        return f"<table><caption>{html.escape(caption)}</caption><tbody>{cells}</tbody></table>"

    def to_dict(self) -> dict[str, Any]:
        """Every field, as plain Python values."""
        return dataclasses.asdict(self)
