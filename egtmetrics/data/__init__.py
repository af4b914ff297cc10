"""From files to arrays: features with group labels; images and texts with theirs, whatever holds them.

Importing this package loads no framework and no pandas: each reader imports what it needs when it is called.
"""

from egtmetrics.data._beside import read_labels_beside
from egtmetrics.data.files import (
    LabelledFeatures,
    column_names,
    read_confusion,
    read_labelled_features,
    read_text_columns,
    write_labelled_features,
)
from egtmetrics.data.images import AnimationWarning, ImageFiles, ImageSource, LeftOutWarning
from egtmetrics.data.sources import TextSource, open_source

__all__ = [
    "AnimationWarning",
    "ImageFiles",
    "ImageSource",
    "LabelledFeatures",
    "LeftOutWarning",
    "TextSource",
    "column_names",
    "open_source",
    "read_confusion",
    "read_labelled_features",
    "read_labels_beside",
    "read_text_columns",
    "write_labelled_features",
]
