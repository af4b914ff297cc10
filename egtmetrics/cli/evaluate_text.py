"""``egtmetrics evaluate-text``: texts in files, their groups by an oracle or a column."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    import pandas as pd

_EPILOG = """\
files:
  .jsonl            one object per line, the text under "text" unless --text-key names another key
  .csv .parquet     columns
  .txt              one text per line, without labels

groups:
  oracle:pronouns   male if he, him, his, himself are more than she, her, hers, herself; female if fewer; else no group
  oracle:names      by pronouns, else by the first name that the text begins with ("Ada Lovelace was ...")
  oracle:names:KEY  by pronouns, else by the first name under KEY
  KEY               a key (column) of the file; several, separated by commas, give their intersections
  The number of texts in no group is printed and stored. They count only in the overall scores.

examples:
  egtmetrics evaluate-text real.jsonl fake.jsonl --groups oracle:pronouns --metrics topp,mauve --cache embeddings
  egtmetrics evaluate-text real.csv fake.txt --real-groups gender --fake-groups oracle:pronouns --match-sizes \\
      --model Qwen/Qwen3-Embedding-4B --out result.json --figure result.png
"""


class _Texts(NamedTuple):
    texts: list[str]
    groups: pd.DataFrame
    source: dict[str, Any]


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "evaluate-text",
        _evaluate_text,
        check=check_options,
        help="compare real and generated texts, group by group",
        description="Embed real and generated texts, compare them overall and group by group, and print every "
        "disparity.",
        epilog=_EPILOG,
    )
    add_sides(parser, "file with the {} texts")
    data = parser.add_argument_group("data")
    data.add_argument("--groups", metavar="GROUPS", help="how the groups of both files are found: see below")
    for side in ("real", "fake"):
        data.add_argument(
            f"--{side}-groups",
            dest=f"{side}_sensitive_features",
            metavar="GROUPS",
            help=f"the same, for {side.upper()} alone",
        )
    data.add_argument("--text-key", default="text", metavar="KEY", help="key of the texts (default: %(default)s)")
    encoder = add_encoder_options(parser, batch_size=64, content="texts")
    encoder.add_argument(
        "--model",
        metavar="MODEL",
        help="folder or Hugging Face name of a sentence-transformers model (default: all-MiniLM-L6-v2, from a package)",
    )
    encoder.add_argument("--prompt", metavar="TEXT", help="put before every text (default: the model's own prompt)")
    add_options(parser, data)
    add_verdict_options(parser, "a file like REAL")


def _evaluate_text(args: argparse.Namespace) -> int:
    plan = check_options(args)
    args.other_options = {
        f"{name}_sensitive_features": f"--groups of {name.upper()}"
        for name in ("real", "fake")
        if getattr(args, f"{name}_sensitive_features") is None
    }
    sides: dict[str, _Texts] = {}
    for name in ("real", "fake"):
        spec = getattr(args, f"{name}_sensitive_features") or args.groups
        if spec is None:
            raise ValueError(f"no groups are given for {name.upper()}; pass --groups, or --{name}-groups")
        sides[name] = _read(getattr(args, name), spec, args.text_key)
        note(args, _count(sides[name]))
    check_groups(args, sides["real"].groups, sides["fake"].groups)
    held_out_path = held_out_file(args)
    if held_out_path is not None:
        spec = args.held_out_sensitive_features or args.real_sensitive_features or args.groups
        sides["held_out"] = _read(held_out_path, spec, args.text_key)
        note(args, _count(sides["held_out"]))

    from egtmetrics.encoders import TextEncoder

    encoder = TextEncoder(
        args.model,
        prompt=args.prompt,
        batch_size=args.batch_size,
        cache=args.cache,
        device=args.device,
        progress=show_progress(args),
    )
    features = {}
    for name, side in sides.items():
        features[name] = encoder(side.texts)
        side.source["truncated"] = encoder.truncated
    held_out = None
    if held_out_path is not None:
        side = sides.pop("held_out")
        held_out = HeldOut(features.pop("held_out"), side.groups, side.source)
    samples = group_samples(
        args, **features, **{f"{name}_sensitive_features": side.groups for name, side in sides.items()}
    )
    provenance = {**{name: side.source for name, side in sides.items()}, "encoder": encoder.identity}
    return evaluate_and_write(args, plan, samples, provenance, held_out)


def _read(path: str, spec: str, text_key: str) -> _Texts:
    import pandas as pd

    from egtmetrics.data import read_text_columns
    from egtmetrics.oracles import NameOracle, PronounOracle

    oracle, _, name_key = spec.removeprefix("oracle:").partition(":")
    by_oracle = spec.startswith("oracle:")
    if by_oracle and (oracle not in ("pronouns", "names") or (oracle == "pronouns" and name_key)):
        raise ValueError(
            f"groups {spec!r} are unknown; choose oracle:pronouns, oracle:names, oracle:names:KEY or a KEY"
        )
    label_keys = [key for key in [name_key] if key] if by_oracle else spec.split(",")
    columns = read_text_columns(path, [text_key], labels=label_keys)
    texts = columns[text_key].tolist()
    for number, text in enumerate(texts, start=1):
        if text is None or not text.strip():
            raise ValueError(f"{path}: text {number} is empty or has no {text_key!r}; remove it, or fill it in")
    if by_oracle:
        names = columns[name_key].tolist() if name_key else None
        found = PronounOracle()(texts) if oracle == "pronouns" else NameOracle()(texts, names=names)
        groups = pd.DataFrame({"gender": found}, dtype=object)
    else:
        groups = columns[label_keys]
    in_no_group = int(groups.isna().any(axis=1).sum())
    if in_no_group == len(texts):
        raise ValueError(f"{path}: no text of {len(texts)} is in a group by {spec}; use another oracle, or a column")
    source = {"file": str(Path(path)), "groups": spec, "texts": len(texts), "in_no_group": in_no_group}
    return _Texts(texts, groups, source)


def _count(side: _Texts) -> str:
    groups = side.groups.dropna().agg(", ".join, axis=1).value_counts(sort=False).sort_index()
    counts = listed(f"{n} {name}" for name, n in groups.items())
    return f"{side.source['file']}: of {len(side.texts)} texts {counts}, {side.source['in_no_group']} in no group"
