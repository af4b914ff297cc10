"""Results for readers: tables, JSON, figures, and the HTML page.

Nothing here knows a metric by its name: labels, units, directions and explanations are those that the scores declare
(:class:`~egtmetrics.results.Score`), titles those of the metrics.
"""

from egtmetrics._atomic import write_whole
from egtmetrics.plots import plot_precision_recall, save_figure
from egtmetrics.report.tables import render

__all__ = ["plot_precision_recall", "render", "save_figure", "write_whole"]
