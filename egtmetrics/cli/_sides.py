"""The samples of one side, real or generated: a path becomes features, groups, and where both came from.

A side is opened first, which finds its groups, and encoded afterwards. So all that can be refused for its groups, their
sizes and the encoder is refused before the first sample is encoded.
"""

from __future__ import annotations

import abc
import argparse
import copy
import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from egtmetrics._errors import listed
from egtmetrics.cli._common import Parser, check_folder
from egtmetrics.cli._ranks import own_device, shared

if TYPE_CHECKING:
    import pandas as pd

    from egtmetrics.data import ImageSource, TextSource
    from egtmetrics.data.sources import Source

ORACLE = "oracle"
_TEXT_ORACLES = ("pronouns", "names")
_SEVERAL = (
    "; may be repeated: do the gaps of the first survive the others? --baseline is then split where it is not given"
)
_BAD_SAMPLES = "a folder or .zip of images, a .tar or texts ({}), or features ({})"

_HELP = """\
samples:
  folder or .zip                images that Pillow reads, also in subfolders. Files that are left out but may be images
                                are named in a warning
  .csv .parquet .jsonl          texts, if there is a column "text", see --text-key; images, if a column "file_name" has
                                their paths, see --image-key; else features (.csv, .parquet): every column that is no
                                label, or those of --real-key and --fake-key. The fields of a .csv are separated by
                                commas, else by semicolons or tabs
  .txt                          texts, one per line
  .tar                          images or texts of WebDataset, also 'shards-{{000..003}}.tar', in quotes. The keys of
                                groups and texts are extensions (cls, txt) or keys of the .json
  datasets:NAME[:SPLIT]         images or texts of the Hugging Face hub, from its local cache (nothing is fetched;
                                `hf download NAME --repo-type dataset` fetches), or from a folder, also of save_to_disk;
                                with configurations, datasets:NAME:CONFIG:SPLIT
  .npy .npz .safetensors .pt    features (n, d), and labels (n,); egtmetrics encode writes a .npz with its groups
  .egt                          real samples and what was computed of them, as egtmetrics prepare writes it
  Files with Python objects in them (pickles) are refused. What becomes of transparency, 16 bits and other kinds of
  pixels: docs/data.md.

groups:
  KEY               an array, key or column of the samples' own file; several keys, separated by commas, give their
                    intersections
  FILE, FILE:KEY    of features: a file of labels (.txt: one per line), or a key in one. Of images and of .tar: a file
                    with the names of the samples (.csv, .parquet, .jsonl with a column "file_name", see --image-key;
                    CelebA's list_attr_celeba.txt), an object of JSON with an object for each name (FFHQ's
                    ffhq-dataset-v2.json), or a folder with a .json file for each name; in JSON, KEY may be
                    metadata.country
  json, folder      of folders of images: dataset.json, {{"labels": [["00000/img0.png", 1], ...]}}; the name of the
                    subfolder. The default is json where there is such a file, else folder
  oracle:pronouns   of texts: male if he, him, his, himself are more than she, her, hers, herself; female if fewer;
                    else no group; oracle:pronouns:FILE by the words of every group in a JSON file,
                    {{"female": ["elle", ...], "male": ["il", ...]}}
  oracle:names      of texts: by pronouns, else by the first name that the text begins with ("Ada Lovelace was ...");
                    oracle:names:KEY by the first name under KEY
  oracle:MODEL:GROUP=PROMPT|GROUP=PROMPT
                    of images: the group whose prompt is nearest under CLIP, SigLIP or another such model, by a name or
                    path as --encoder takes them: "oracle:clip:female=a photo of a woman|male=a photo of a man". A group
                    may have several prompts; =PROMPT is for images of no group; without GROUP= the prompt is the name
  oracle:MODEL      of images or texts: a classifier of transformers, a folder or a name; its labels are the groups
  oracle            of FAKE: a classifier of the features, fitted on REAL and its groups; its cross-validated error is
                    printed and stored, and it calls REAL, too, see --true-labels
  A file that egtmetrics encode wrote, and a reference (.egt), have groups of their own. Samples with an empty label are
  in no group, and count only in the overall scores.

encoders:
{encoders}
  Besides: the folder of a model of transformers, or its name on the Hugging Face hub, from its local cache (nothing is
  fetched; `hf download NAME` fetches); inception:FILE and inception-clean:FILE, the Inception-v3 of the FID papers with
  the weights in FILE; a .pt2 or TorchScript file. For texts, a model of sentence-transformers. See docs/encoders.md.
"""


def add_image_key(data: Any) -> None:
    data.add_argument(
        "--image-key",
        metavar="KEY",
        help="column with the paths of the images, or the names in FILE of FILE:KEY (default: file_name); column of a "
        "data set, or extension in a .tar, with the images (default: the only one)",
    )


def add_sample_options(
    parser: Parser,
    *,
    kind: str | None = None,
    roles: Sequence[str] = ("real", "fake"),
    several_encoders: bool = False,
) -> Any:
    """Add the options that say where groups are and how samples are encoded, with their help; return those on data.

    ``kind`` is the only one that the command takes, ``"images"`` or ``"texts"``; None to find it out. With
    ``several_encoders``, ``args.model`` is a list of names, or None.
    """
    data = parser.add_argument_group("data")
    data.add_argument("--groups", metavar="GROUPS", help="how the groups of all samples are found: see below")
    for role in roles:
        data.add_argument(
            f"--{role}-groups",
            dest=f"{role}_sensitive_features",
            metavar="GROUPS",
            help=f"the same, for {role.upper()} alone",
        )
    for role in roles:
        data.add_argument(
            f"--{role}-key",
            metavar="KEY",
            help=f"the features in {role.upper()}: an array, by default 'features' or else the only (n, d) one; or "
            "columns separated by commas",
        )
    for role in roles:
        data.add_argument(
            f"--{role}-clusters",
            metavar="LABELS",
            help=f"where samples of {role.upper()} vary together (images of one prompt, photos of one person): a label "
            "that they share, in the form of --groups; intervals and tests then divide whole clusters",
        )
    data.add_argument("--text-key", metavar="KEY", help="key of the texts (default: text; of a .tar: txt)")
    add_image_key(data)
    if "fake" in roles:
        data.add_argument(
            "--min-confidence",
            type=float,
            default=0.0,
            metavar="P",
            help="oracle, oracle:MODEL: a sample whose largest probability is below P is in no group; those of prompts "
            "are not calibrated (default: %(default)s)",
        )
        data.add_argument(
            "--true-labels",
            action="store_true",
            help="oracle: keep the labels of REAL. By default the oracle calls REAL, too (by folds that it was not "
            "fitted on), since labels that err on one side alone make gaps",
        )
    encoder = parser.add_argument_group("encoder, for images and texts")
    encoder.add_argument(
        "--encoder",
        dest="model",
        action="append" if several_encoders else _Once,
        metavar="NAME|PATH",
        help="see below; load only files that you trust (default: EfficientNet-Lite0 for images, all-MiniLM-L6-v2 for "
        "texts, both from packages)" + (_SEVERAL if several_encoders else ""),
    )
    encoder.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="height and width that images are resized to, for EfficientNet-Lite0 (default: 224) and networks in files "
        "(default: as they are)",
    )
    encoder.add_argument("--prompt", metavar="TEXT", help="put before every text (default: the model's own prompt)")
    encoder.add_argument(
        "--cache",
        metavar="FOLDER",
        help="keep features here by the samples' content, and reuse those that are there, also after a run was killed",
    )
    encoder.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="samples at a time, halved when memory runs out (default: 32 images, 64 texts)",
    )
    encoder.add_argument("--device", metavar="DEVICE", help="of the encoder: cpu, cuda ... (default: cuda if there)")
    parser.set_defaults(kind=kind)
    parser.late.append(lambda: _add_help(parser))
    return data


class _Once(argparse.Action):
    """Store a value, and refuse a second one; other commands take several."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "this command takes one; evaluate and report compare several")
        setattr(namespace, self.dest, values)


def _add_help(parser: Parser) -> None:
    """Put what there is to know of samples, groups and encoders before the examples of a command."""
    from egtmetrics.encoders._presets import IMAGE_PRESETS, TEXT_PRESETS, preset_help

    encoders = f"  images\n{preset_help(IMAGE_PRESETS)}\n  texts\n{preset_help(TEXT_PRESETS)}"
    parser.epilog = f"{_HELP.format(encoders=encoders)}\n{parser.epilog}"


def check_sample_options(args: argparse.Namespace) -> None:
    """Refuse, before anything is read, a cache that cannot be written."""
    if args.cache is not None:
        check_folder(Path(args.cache))


class Side(abc.ABC):
    """The samples of a path, which belong to REAL, FAKE or held-out ones."""

    kind: ClassVar[str]
    groups: pd.DataFrame | None
    """One column of labels per sensitive feature; None until an oracle has found them."""
    others: Mapping[str, pd.DataFrame]
    """Clusters and control features, if they were asked for, in the form of ``groups``."""
    source: dict[str, Any]
    """Where samples and groups came from, ready for JSON."""
    contents: Any = None
    """Images or texts, by row, a sequence; None where only features are known."""
    names: Sequence[str] | None = None
    """Of the rows, such as those of files."""
    features: Any = None
    """Shape ``(n, d)``, once encoded."""
    called_by: str | None = None
    """How a network is to call the groups, as the user wrote it; see ``cli/_oracles.py``."""
    _seen: dict[str, Any]
    """Features by the settings of the encoders that have seen the samples; copies of this side share them."""

    @staticmethod
    def make_encoder(args: argparse.Namespace, model: str | None, options: Mapping[str, Any]) -> Any:
        """Return the encoder of this kind of samples; None if they are features already."""
        return None

    @property
    def identity(self) -> Mapping[str, Any] | None:
        """What is known of the encoder before anything is encoded."""
        return None

    def encode(self, encoder: Any) -> None:
        """Find the features."""
        self.features = self.features_by(encoder)

    def features_by(self, encoder: Any) -> Any:
        """Return what an encoder makes of the samples; it sees them once."""
        key = json.dumps(_settings(encoder.identity), sort_keys=True)
        if key not in self._seen:
            self._seen[key] = encoder(self.contents)
        return self._seen[key]

    def copy(self) -> Self:
        """Return this side for another encoder: of the same samples, with features and a source of its own."""
        other = copy.copy(self)
        other.source = dict(self.source)
        return other

    def count_groups(self) -> str:
        """Say how many samples are in which group."""
        if self.groups is None:
            return f"{self.source['file']}: {self.source[self.kind]} {self.kind}, whose groups are not known yet"
        groups = Counter(name for name in joined_labels(self.groups) if name is not None)
        counts = listed(f"{n} {name if name.isidentifier() else repr(name)}" for name, n in sorted(groups.items()))
        n, missing = self.source[self.kind], self.source["in_no_group"]
        return f"{self.source['file']}: of {n} {self.kind} {counts}, {missing} in no group"


def joined_labels(labels: pd.DataFrame) -> list[str | None]:
    """Return one label of several columns, None where one is missing."""
    rows = labels.itertuples(index=False, name=None)
    return [None if None in row else ", ".join(row) for row in rows]


class Images(Side):
    kind = "images"

    def __init__(self, args: argparse.Namespace, role: str, source: ImageSource, spec: str | None) -> None:
        self.contents, self.names = source, source.names
        self._seen = {}
        self.called_by = spec if spec is not None and spec.startswith(f"{ORACLE}:") else None
        if self.called_by is not None and self.called_by.split(":")[1] in _TEXT_ORACLES:
            raise ValueError(f"{source.path}: groups {spec!r} are of texts, and these are images; name a model")
        by = source.default_groups if spec is None else spec
        loose = any("/" not in name for name in source.names or ())
        if role == "training" or (spec is None and role == "samples" and by == "folder" and loose):
            by = None
        _check_named(by, role, source)
        later = by in (None, ORACLE) or self.called_by is not None
        self.groups = None if later else _labels(source, str(by), args)
        self.others = {name: _labels(source, where, args) for name, where in _other_labels(args, role).items()}
        left_out = len(source.left_out)
        self.source = {"file": str(source.path), "groups": by, "images": len(source), "left_out": left_out}

    @staticmethod
    def make_encoder(args: argparse.Namespace, model: str | None, options: Mapping[str, Any]) -> Any:
        from egtmetrics.encoders import ImageEncoder

        if args.prompt is not None:
            raise ValueError("--prompt is for texts, and these are images; leave it out")
        return ImageEncoder(model, size=args.size, **options)


class Texts(Side):
    kind = "texts"

    def __init__(self, args: argparse.Namespace, role: str, source: TextSource, spec: str | None) -> None:
        _check_named(spec, role, source)
        self.contents, self.names = source.texts, source.names
        self._seen = {}
        self.called_by = spec if spec is not None and _is_model(spec) else None
        later = spec in (None, ORACLE) or self.called_by is not None
        self.groups = None if later else _text_groups(source, str(spec), args)
        self.others = {name: _labels(source, where, args) for name, where in _other_labels(args, role).items()}
        self.source = {"file": source.path, "groups": spec, "texts": len(source)}

    @staticmethod
    def make_encoder(args: argparse.Namespace, model: str | None, options: Mapping[str, Any]) -> Any:
        from egtmetrics.encoders import TextEncoder

        if args.size is not None:
            raise ValueError("--size is for images, and these are texts; leave it out")
        return TextEncoder(model, prompt=args.prompt, **options)

    def encode(self, encoder: Any) -> None:
        super().encode(encoder)
        self.source["truncated"] = encoder.truncated


class Features(Side):
    kind = "features"

    def __init__(self, args: argparse.Namespace, role: str, path: str, spec: str | None) -> None:
        from egtmetrics._validation import check_features, keep_checked
        from egtmetrics.data import read_labelled_features

        if spec is not None and spec.startswith(f"{ORACLE}:"):
            raise ValueError(f"{path}: groups {spec!r} are of images or texts, and these are features; name a key")
        later = spec == ORACLE or role == "training"
        others = _other_labels(args, role)
        read = read_labelled_features(path, groups="" if later else spec, key=_key(args, role), others=others)
        self.features = keep_checked(check_features(read.features, str(path)))  # here, so that an error names the file
        self.groups, self.others = None if later else read.groups, read.others
        self._identity: Mapping[str, Any] | None = read.source.pop("encoder", None)
        self.source = read.source

    @property
    def identity(self) -> Mapping[str, Any] | None:
        return self._identity

    def encode(self, encoder: Any) -> None:
        """Do nothing: these are features."""


def open_side(args: argparse.Namespace, role: str, path: str) -> Side:
    """Open the samples of one side.

    ``role`` is ``"real"``, ``"fake"``, ``"held_out"``, ``"training"``, whose groups are not read, or ``"samples"`` of
    none of these.

    Raises
    ------
    ValueError
        They are of no kind that is known, or not of the one that the command takes; groups cannot be found.
    OSError
        There is no such file.
    """
    spec = groups_spec(args, role)
    if spec == ORACLE and role != "fake":
        option = "--groups" if args.groups == ORACLE else _option(role)
        if role == "samples":  # of encode, which has one side
            raise ValueError(
                f"{option} oracle: would call FAKE by a classifier that is fitted on REAL, and here is one set; choose "
                "a finished one (oracle:MODEL), or say where its labels are"
            )
        raise ValueError(f"{option} oracle: the oracle is fitted on the groups of REAL; give them in another way")
    side = _open(args, role, path, spec)
    if side.groups is not None:
        count_missing(side, path, spec)
    return side


def _open(args: argparse.Namespace, role: str, path: str, spec: str | None) -> Side:
    from egtmetrics.data import TextSource, open_source
    from egtmetrics.data.files import SUFFIXES, TEXT_SUFFIXES
    from egtmetrics.data.sources import check_place, holds_samples

    check_place(path)
    keys = {"text_key": args.text_key, "image_key": args.image_key}
    if args.kind is None:
        suffix = Path(path).suffix.lower()
        has_samples = holds_samples(path, **keys)
        if suffix in SUFFIXES and (not has_samples or _key(args, role) is not None):
            if role == "samples":  # which are to be encoded
                raise ValueError(
                    f"{path}: holds features already, expected images or texts; evaluate it as it is, or name the "
                    "column that holds them (--image-key, --text-key)"
                )
            return Features(args, role, path, spec)
        if not has_samples:
            expected = _BAD_SAMPLES.format(" ".join(TEXT_SUFFIXES), " ".join(SUFFIXES))
            raise ValueError(f"{path}: unknown kind of file {suffix!r}; expected {expected}")
    source = open_source(path, kind=args.kind, **keys)
    return Texts(args, role, source, spec) if isinstance(source, TextSource) else Images(args, role, source, spec)


class Encoding(NamedTuple):
    """What makes features of all sides, and what identifies it, if that is known."""

    encoder: Any
    provenance: dict[str, Any]

    def encode(self, sides: Mapping[str, Side]) -> None:
        for side in sides.values():
            side.encode(self.encoder)


def load_encoding(
    args: argparse.Namespace, sides: Mapping[str, Side], model: str | None, *, progress: bool
) -> Encoding:
    """Load an encoder for all sides.

    Raises
    ------
    ValueError
        The sides hold different kinds of samples, or were encoded by different encoders; the encoder cannot be used.
    """
    encoder = shared(args, _encoder(args, sides, model, progress=progress))
    known = {name: side.identity for name, side in sides.items() if side.identity is not None}
    known |= {name: encoder.identity for name, side in sides.items() if side.contents is not None}
    _check_same(known, sides)
    return Encoding(encoder, {"encoder": dict(next(iter(known.values())))} if known else {})


def label_by_oracle(args: argparse.Namespace, real: Side, fakes: Sequence[Side], others: Sequence[Side]) -> list[str]:
    """Find the groups of generated samples by an oracle fitted on the real ones; return what to tell of it.

    Unless ``--true-labels`` was given it calls the real ones and ``others`` (held out), too: where only one side is
    called, wrong labels make gaps of their own.
    """
    if not fakes or real.groups is None:
        return []
    import warnings

    import pandas as pd

    from egtmetrics.oracles import ClassifierOracle, OracleErrorWarning

    columns = real.groups.columns
    rows = list(real.groups.itertuples(index=False, name=None))
    name_of = {row: ", ".join(row) for row in sorted({row for row in rows if None not in row})}
    oracle = ClassifierOracle(
        real.features,
        [name_of.get(row) for row in rows],
        group_names=list(name_of.values()),
        min_confidence=args.min_confidence,
        random_state=args.random_state,
    )
    errors = oracle.error_by_group
    facts = {
        "error_by_group": {name: None if math.isnan(error) else error for name, error in errors.items()},
        "abstention_by_group": oracle.abstention_by_group,
        "min_confidence": oracle.min_confidence,
        "true_labels_of_real": args.true_labels,
    }
    row_of = {name: row for row, name in name_of.items()}

    def set_groups(side: Side, called: Any) -> None:
        found = [row_of.get(name, (None,) * len(columns)) for name in called]
        side.groups = pd.DataFrame(found, columns=columns, dtype=object)
        side.source["in_no_group"] = int(side.groups.isna().any(axis=1).sum())

    for fake in fakes:
        called = oracle(fake.features)
        set_groups(fake, called)
        if fake.source["in_no_group"] == len(called):
            raise ValueError(
                f"{fake.source['file']}: the oracle is sure of the group of none of {len(called)} samples; lower "
                f"--min-confidence {args.min_confidence:g}, or take features that tell the groups apart"
            )
        fake.source["oracle"] = facts
        if oracle.warning is None and (message := oracle.warning_of(called)) is not None:
            warnings.warn(message, OracleErrorWarning, stacklevel=2)
    told = []
    if oracle.warning is None:  # which says the same
        shown = listed(f"{error:.1%} in {name}" for name, error in errors.items())
        told.append(f"the oracle's cross-validated error is {shown}")
    if args.true_labels:
        return [*told, "REAL keeps its labels, so the oracle's errors on FAKE make gaps by themselves (docs/labels.md)"]
    set_groups(real, oracle.held_out_labels)
    for side in others:
        set_groups(side, oracle(side.features))
    return [
        *told,
        "the oracle calls REAL, too, since errors on one side alone make gaps; on both they make gaps smaller "
        "(docs/labels.md)",
    ]


def _encoder(args: argparse.Namespace, sides: Mapping[str, Side], model: str | None, *, progress: bool) -> Any:
    encoded = {name: side for name, side in sides.items() if side.contents is not None}
    kinds = sorted({side.kind for side in encoded.values()})
    if len(kinds) > 1:
        held = listed(f"{side.source['file']} holds {side.kind}" for side in encoded.values())
        raise ValueError(f"{held}; pass images or texts alone, or encode them first (egtmetrics encode)")
    if not encoded:
        options = {"--encoder": model, "--size": args.size, "--prompt": args.prompt}
        given = [option for option, value in options.items() if value is not None]
        if given:
            raise ValueError(f"{given[0]} is for images and texts, and all samples are features already; leave it out")
        return None
    return next(iter(encoded.values())).make_encoder(args, model, encoder_options(args, progress=progress))


def encoder_options(args: argparse.Namespace, *, progress: bool) -> dict[str, Any]:
    """Return what every encoder of a command gets."""
    batch_size = {} if args.batch_size is None else {"batch_size": args.batch_size}
    return {"cache": args.cache, "device": own_device(args), "progress": progress, **batch_size}


def check_encodings(encodings: Mapping[str | None, Encoding]) -> None:
    """Refuse one encoder under two names: its features would count twice."""
    for (name, one), (other_name, other) in itertools.combinations(encodings.items(), 2):
        if _settings(one.provenance.get("encoder", {})) == _settings(other.provenance.get("encoder", {})):
            raise ValueError(f"--encoder {name} and --encoder {other_name} are one encoder; leave one of them out")


def _settings(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells an encoder from others, whatever its name."""
    return {key: value for key, value in identity.items() if key != "model"}


def _check_same(known: Mapping[str, Mapping[str, Any]], sides: Mapping[str, Side]) -> None:
    """Refuse features of different encoders; the same one may have been found under another name."""
    settings = {name: _settings(identity) for name, identity in known.items()}
    first = next(iter(known), None)
    other = next((name for name in known if first is not None and settings[name] != settings[first]), None)
    if first is not None and other is not None:
        models = [f"{sides[name].source['file']} by {known[name].get('model')}" for name in (first, other)]
        raise ValueError(
            f"the samples are encoded by different encoders or settings: {' and '.join(models)}; features of one "
            "encoder mean nothing beside those of another, so encode all samples by the same"
        )


def groups_spec(args: argparse.Namespace, role: str) -> str | None:
    """Return how the groups of one side are found; held-out samples have them as REAL where nothing else is said."""
    if role == "training":
        return None
    roles = [role, "real"] if role == "held_out" else [role]
    given = (getattr(args, f"{name}_sensitive_features", None) for name in roles)
    found: str | None = next((spec for spec in given if spec is not None), args.groups)
    return found


def _option(role: str) -> str:
    """Return the option that says how the groups of one side are found."""
    return f"--{'baseline' if role == 'held_out' else role}-groups"


def _other_labels(args: argparse.Namespace, role: str) -> dict[str, str]:
    """Return where clusters and control features of one side are; held-out samples have no control features."""
    clusters = getattr(args, f"{'real' if role == 'held_out' else role}_clusters", None)
    control = getattr(args, "control", None) if role in ("real", "fake") else None
    return {name: where for name, where in (("clusters", clusters), ("control_features", control)) if where is not None}


def _key(args: argparse.Namespace, role: str) -> str | None:
    roles = [role, "real"] if role in ("held_out", "training") else [role]
    return next((key for name in roles if (key := getattr(args, f"{name}_key", None)) is not None), None)


def count_missing(side: Side, path: str, spec: str | None) -> None:
    """Note how many images or texts are in no group; refuse if all are."""
    if side.contents is None or side.groups is None:
        return
    missing = int(side.groups.isna().any(axis=1).sum())
    if missing == len(side.groups):
        one = side.kind.removesuffix("s")
        raise ValueError(f"{path}: no {one} of {missing} is in a group by {spec}; use another oracle, or a column")
    side.source["in_no_group"] = missing


def _check_named(spec: str | None, role: str, source: Source) -> None:
    """Refuse samples whose groups nothing says, unless they are only to be encoded."""
    if spec is None and role in ("real", "fake", "held_out"):
        raise ValueError(f"no groups are given for {source.path}; pass --groups, or {_option(role)}")


def _labels(source: Source, spec: str, args: argparse.Namespace) -> pd.DataFrame:
    """Return one column of labels per key: of the source itself, or of a file beside it."""
    place, _, keys = spec.rpartition(":")
    if source.names is None or not place or not keys:
        return source.labels(spec.split(","))
    from egtmetrics.data import read_labels_beside

    return read_labels_beside(place, source.names, keys.split(","), name_key=args.image_key)


def _is_model(spec: str) -> bool:
    """Return whether the groups of texts are spelled as those of a model: a path, or a name of the hub."""
    oracle, colon, model = spec.partition(":")
    return oracle == ORACLE and bool(colon) and model.partition(":")[0] not in _TEXT_ORACLES and "/" in model


def _text_groups(source: TextSource, spec: str, args: argparse.Namespace) -> pd.DataFrame:
    """Return one column of labels per sensitive feature; an oracle of texts finds one."""
    import pandas as pd

    from egtmetrics.oracles import NameOracle, PronounOracle

    if not spec.startswith(f"{ORACLE}:"):
        return _labels(source, spec, args)
    oracle, _, rest = spec.removeprefix(f"{ORACLE}:").partition(":")
    if oracle == "pronouns":
        found = PronounOracle(rest or None)(source.texts)
    elif oracle == "names":
        found = NameOracle()(source.texts, names=source.labels([rest])[rest].tolist() if rest else None)
    else:
        raise ValueError(
            f"groups {spec!r} are unknown; choose oracle:pronouns, oracle:pronouns:FILE, oracle:names, "
            "oracle:names:KEY, oracle:MODEL (a path with a slash, or OWNER/NAME) or a KEY"
        )
    return pd.DataFrame({"gender": found}, dtype=object)
