"""``egtmetrics evaluate-images``: images in folders or zip files, their groups by labels or an oracle."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from egtmetrics._errors import listed
from egtmetrics.cli._common import Commands, add_command
from egtmetrics.cli._evaluation import (
    add_encoder_options,
    add_options,
    add_sides,
    check_groups,
    check_options,
    evaluate_and_write,
    group_samples,
    note,
    show_progress,
)
from egtmetrics.cli._verdicts import HeldOut, add_verdict_options, held_out_file

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from egtmetrics.data import ImageFiles

_FILE_COLUMN = "file_name"

_EPILOG = """\
images:
  PNG, JPEG, WEBP and whatever else Pillow reads, in a folder and its subfolders, or in a zip file. Transparency is put
  over white. Files that are left out but may be images are named in a warning.

groups:
  json              REAL/dataset.json: {"labels": [["00000/img0.png", 1], ...]}
  folder            the name of the image's subfolder
  FILE:KEY          a .csv, .parquet or .jsonl file with the columns file_name and KEY (as metadata.csv of image
                    folders); several keys, separated by commas, give their intersections
  oracle            for FAKE: a classifier of the encoder's features, fitted on REAL and its groups; its
                    cross-validated error is printed and stored
  The default is json where there is a dataset.json, else folder.

examples:
  egtmetrics evaluate-images real/ fake/ --metrics topp,fid --cache features
  egtmetrics evaluate-images ffhq.zip samples/ --real-groups ffhq.csv:gender --fake-groups oracle --match-groups \\
      --model dinov2.pt2 --size 224 --out result.json --figure result.png
"""


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "evaluate-images",
        _evaluate_images,
        check=check_options,
        help="compare real and generated images, group by group",
        description="Encode real and generated images, compare them overall and group by group, and print every "
        "disparity.",
        epilog=_EPILOG,
    )
    add_sides(parser, "folder or zip file with the {} images")
    data = parser.add_argument_group("data")
    for side in ("real", "fake"):
        data.add_argument(
            f"--{side}-groups",
            dest=f"{side}_sensitive_features",
            metavar="GROUPS",
            help=f"how the groups of {side.upper()} are found: see below",
        )
    data.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="oracle: an image whose calibrated probability is below P is in no group (default: %(default)s)",
    )
    encoder = add_encoder_options(parser, batch_size=32, content="images")
    encoder.add_argument(
        "--model",
        metavar="FILE",
        help="network from float32 (k, 3, h, w) in [0, 1] to (k, d): .pt2 of torch.export, or TorchScript; load only "
        "what you trust (default: EfficientNet-Lite0, from a package)",
    )
    encoder.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="height and width that images are resized to (default: 224, with --model as they are)",
    )
    add_options(parser, data)
    add_verdict_options(parser, "a folder or zip file")


def _evaluate_images(args: argparse.Namespace) -> int:
    plan = check_options(args)
    if args.real_sensitive_features == "oracle":
        raise ValueError("--real-groups oracle: the oracle is fitted on the groups of REAL; give them in another way")

    from egtmetrics.data import ImageFiles
    from egtmetrics.encoders import ImageEncoder

    real_files, fake_files = ImageFiles(args.real), ImageFiles(args.fake)
    real_groups, real_by = _labels(real_files, args.real_sensitive_features)
    held_out_path = held_out_file(args)
    if held_out_path is not None:
        held_out_files = ImageFiles(held_out_path)
        held_out_groups, held_out_by = _labels(
            held_out_files, args.held_out_sensitive_features or args.real_sensitive_features
        )
    by_oracle = args.fake_sensitive_features == "oracle"
    if not by_oracle:
        fake_groups, fake_by = _labels(fake_files, args.fake_sensitive_features)
        check_groups(args, real_groups, fake_groups)
    encoder = ImageEncoder(
        args.model,
        size=args.size,
        batch_size=args.batch_size,
        cache=args.cache,
        device=args.device,
        progress=show_progress(args),
    )
    real, fake = encoder(real_files), encoder(fake_files)
    provenance: dict[str, Any] = {"encoder": encoder.identity}
    if by_oracle:
        fake_groups, provenance["oracle"] = _by_oracle(args, real, real_groups, fake)
        fake_by = "oracle"
        check_groups(args, real_groups, fake_groups)
    sources = {
        "real": _source(real_files, real_groups, real_by),
        "fake": _source(fake_files, fake_groups, fake_by),
    }
    held_out = None
    if held_out_path is not None:
        source = _source(held_out_files, held_out_groups, held_out_by)
        held_out = HeldOut(encoder(held_out_files), held_out_groups, source)
    samples = group_samples(
        args, real=real, fake=fake, real_sensitive_features=real_groups, fake_sensitive_features=fake_groups
    )
    return evaluate_and_write(args, plan, samples, {**sources, **provenance}, held_out)


def _source(files: ImageFiles, groups: pd.DataFrame, by: str) -> dict[str, Any]:
    return {
        "file": str(files.path),
        "groups": by,
        "images": len(files),
        "left_out": len(files.left_out),
        "in_no_group": int(groups.isna().any(axis=1).sum()),
    }


def _labels(files: ImageFiles, spec: str | None) -> tuple[pd.DataFrame, str]:
    """Return one column of labels per sensitive feature, and where they come from."""
    import pandas as pd

    json_labels = files.json_labels() if spec in (None, "json") else None
    if json_labels is not None:
        return pd.DataFrame({"group": [str(label) for label in json_labels]}, dtype=object), "json"
    if spec == "json":
        raise ValueError(f"{files.path}: has no dataset.json with labels; give the groups in another way")
    if spec in (None, "folder"):
        return pd.DataFrame({"group": files.subfolders()}, dtype=object), "folder"
    return _table_labels(files, str(spec)), str(spec)


def _table_labels(files: ImageFiles, spec: str) -> pd.DataFrame:
    from egtmetrics.data import read_text_columns

    path, _, keys = spec.rpartition(":")
    if not path or not keys:
        raise ValueError(f"groups {spec!r} are unknown; choose json, folder, FILE:KEY, or oracle for FAKE")
    table = read_text_columns(path, [_FILE_COLUMN], labels=keys.split(",")).set_index(_FILE_COLUMN)
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise ValueError(f"{path}: has two rows for {twice[0]}; remove one")
    missing = [name for name in files.names if name not in table.index]
    if missing:
        raise ValueError(
            f"{path}: has no row for {len(missing)} of the {len(files)} images of {files.path}, such as {missing[0]}; "
            f"its column {_FILE_COLUMN} must hold names relative to the folder"
        )
    return table.loc[files.names].reset_index(drop=True)


def _by_oracle(
    args: argparse.Namespace, real: NDArray[np.float32], real_groups: pd.DataFrame, fake: NDArray[np.float32]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predict the groups of FAKE by a classifier fitted on REAL; return them and what is known of its error."""
    import pandas as pd

    from egtmetrics.oracles import ClassifierOracle

    rows = list(real_groups.itertuples(index=False, name=None))
    name_of = {row: ", ".join(row) for row in sorted({row for row in rows if None not in row})}
    oracle = ClassifierOracle(
        real,
        [name_of.get(row) for row in rows],
        group_names=list(name_of.values()),
        min_confidence=args.min_confidence,
        random_state=args.random_state,
    )
    errors = oracle.error_by_group
    if oracle.warning is None:
        shown = listed(f"{error:.1%} in {name}" for name, error in errors.items())
        note(args, f"the oracle's cross-validated error is {shown}")
    facts = {
        "error_by_group": {name: None if math.isnan(error) else error for name, error in errors.items()},
        "abstention_by_group": oracle.abstention_by_group,
        "min_confidence": oracle.min_confidence,
    }
    row_of = {name: row for row, name in name_of.items()}
    found = [row_of.get(name, (None,) * len(real_groups.columns)) for name in oracle(fake)]
    return pd.DataFrame(found, columns=real_groups.columns, dtype=object), facts
