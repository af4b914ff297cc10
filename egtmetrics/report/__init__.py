"""Results for readers: tables, JSON, a figure, and files that are written whole or not at all."""

from egtmetrics._atomic import write_whole
from egtmetrics.report.figures import plot_precision_recall, save_figure
from egtmetrics.report.tables import render

__all__ = ["plot_precision_recall", "render", "save_figure", "write_whole"]
