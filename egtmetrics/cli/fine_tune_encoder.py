"""``egtmetrics fine-tune-encoder``: labelled real images to a folder that is both encoder and oracle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from egtmetrics.cli._common import Commands, add_command, check_folder, seed
from egtmetrics.cli._evaluation import add_quiet, note, show_progress
from egtmetrics.cli._sides import add_image_key, joined_labels, open_side
from egtmetrics.cli._streams import show

if TYPE_CHECKING:
    from egtmetrics.training.encoder import FineTunedEncoder

_EPILOG = """\
The images are divided into --folds parts: one is held out and says how often the oracle is wrong, one chooses the epoch
and calibrates the probabilities, the others train. A run that was killed goes on where it was, from OUT.checkpoint,
which is removed in the end. OUT is a folder of transformers: --encoder OUT makes features of it, and
egtmetrics.oracles.ModelOracle(OUT) calls groups and knows its error. Needs the extras [training] and [vision], and
[language] for --lora-rank. See docs/encoders.md.

examples:
  egtmetrics fine-tune-encoder faces/ --groups labels.csv:gender --model dinov2 --last-blocks 2 --out dinov2-faces
  egtmetrics fine-tune-encoder faces/ --groups labels.csv:gender --clusters labels.csv:person --model dinov2 \\
      --lora-rank 8 --device cuda --out dinov2-faces
  egtmetrics fine-tune-encoder digits/ --model vit.json --epochs 30 --learning-rate 1e-3 --out vit-digits
  egtmetrics report real/ fake/ --encoder ./dinov2-faces --out page.html
"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands,
        "fine-tune-encoder",
        _fine_tune,
        help="fine-tune a vision model on labelled real images, as encoder and oracle",
        description="Fine-tune a vision model of transformers to tell the groups of real images apart, as the paper "
        "does with DINOv2, and print how often it is wrong on held-out ones, by group.",
        epilog=_EPILOG,
    )
    command.add_argument(
        "samples", metavar="IMAGES", help="real images, as egtmetrics encode takes them: a folder, a table of paths ..."
    )
    data = command.add_argument_group("data")
    data.add_argument(
        "--groups",
        metavar="GROUPS",
        help="json, folder, KEY or FILE:KEY, as for egtmetrics encode; several keys give their intersections (default: "
        "json where there is a dataset.json, else the name of the subfolder)",
    )
    add_image_key(data)
    data.add_argument(
        "--clusters",
        dest="samples_clusters",
        metavar="LABELS",
        help="where images are near-duplicates (photos of one person): a label that they share, in the form of "
        "--groups, so that none is held out whose like is trained on",
    )
    training = command.add_argument_group("training")
    training.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="dinov2, the folder of a vision model of transformers, its name on the Hugging Face hub if it was fetched "
        "before, or the .json file of a configuration, whose weights are drawn at random",
    )
    which = training.add_mutually_exclusive_group()
    which.add_argument(
        "--last-blocks", type=int, metavar="N", help="train the last N blocks and the head (default: all weights)"
    )
    which.add_argument("--lora-rank", type=int, metavar="R", help="train adapters (LoRA) of rank R, and the head")
    training.add_argument(
        "--epochs",
        dest="n_epochs",
        type=int,
        default=10,
        metavar="N",
        help="passes over the images that train (default: %(default)s)",
    )
    training.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images of a step (default: %(default)s)"
    )
    training.add_argument(
        "--learning-rate", type=float, default=1e-4, metavar="RATE", help="of AdamW (default: %(default)s)"
    )
    training.add_argument(
        "--folds",
        dest="n_folds",
        type=int,
        default=5,
        metavar="N",
        help="parts of the images, see below (default: %(default)s)",
    )
    training.add_argument("--random-state", type=seed, default=0, metavar="SEED", help="(default: %(default)s)")
    training.add_argument("--device", metavar="DEVICE", help="cpu, cuda ... (default: cuda if there)")
    output = command.add_argument_group("output")
    output.add_argument("--out", dest="folder", type=Path, required=True, metavar="OUT", help="the folder to write")
    add_quiet(output)
    command.set_defaults(kind="images", text_key=None)


def _fine_tune(args: argparse.Namespace) -> None:
    check_folder(args.folder)
    from egtmetrics.training.encoder import check_new, fine_tune_encoder

    check_new(args.folder)
    side = open_side(args, "samples", args.samples)
    if side.groups is None:
        found = "no groups are given" if args.groups is None else f"--groups {args.groups} errs, which would be learned"
        raise ValueError(
            f"{args.samples}: {found}; pass --groups with known labels, or sort the images into subfolders by group"
        )
    note(args, side.count_groups())
    args.folder.parent.mkdir(parents=True, exist_ok=True)  # for the checkpoint
    clusters = side.others.get("clusters")
    checkpoint = Path(f"{args.folder}.checkpoint")
    tuned = fine_tune_encoder(
        args.model,
        side.contents,
        joined_labels(side.groups),
        last_blocks=args.last_blocks,
        lora_rank=args.lora_rank,
        clusters=None if clusters is None else joined_labels(clusters),
        n_folds=args.n_folds,
        n_epochs=args.n_epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        checkpoint=checkpoint,
        device=args.device,
        random_state=args.random_state,
        progress=show_progress(args),
    )
    tuned.save(args.folder)
    checkpoint.unlink()
    chosen = f"epoch {tuned.best_epoch} of {args.n_epochs}, temperature {tuned.temperature:.3g}"
    note(args, f"wrote {args.folder} ({chosen})")
    show(_errors(tuned))


def _errors(tuned: FineTunedEncoder) -> str:
    """Return the table of held-out errors, and how the probabilities fit them."""
    from tabulate import tabulate

    confusion = tuned.confusion
    counts, found = confusion.counts, confusion.interval()
    assert counts is not None
    right = found[["low", "high"]].loc[[(name, name) for name in confusion.group_names]].to_numpy()
    held_out = counts.sum(axis=1).tolist()
    table = [
        [name, n, f"{error:.1%}", f"{1.0 - high:.1%} to {1.0 - low:.1%}"]
        for (name, error), (low, high), n in zip(confusion.error_by_group.items(), right, held_out, strict=True)
    ]
    headers = ["group", "held out", "error", "95 % interval"]
    aligned = tabulate(table, headers, disable_numparse=True, colalign=("left", "right", "right", "right"))
    n = counts.to_numpy()
    wrong = 1.0 - n.diagonal().sum() / n.sum()
    said = f"by their probabilities, {tuned.expected_error:.1%} would be"
    return f"{aligned}\n\nOf all held-out images, {wrong:.1%} are called wrongly; {said}.\n"
