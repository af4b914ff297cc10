"""``egtmetrics compare``: several models on one reference."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egtmetrics._text import shown
from egtmetrics.cli._common import Commands, add_command
from egtmetrics.cli._cost import note_costs, parts_to_come
from egtmetrics.cli._evaluation import (
    add_control,
    add_options,
    add_sample_verdict_options,
    check_options,
    controlled_of,
    evaluate_samples,
    group_sides,
    held_out_of,
    read_sides,
    show_progress,
    write_outputs,
)
from egtmetrics.cli._labels import add_confusion, correction_of
from egtmetrics.cli._sides import add_sample_options
from egtmetrics.cli._verdicts import exit_status, held_out_file, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from egtmetrics.report.tables import Format
    from egtmetrics.samples import GroupedSamples

_EPILOG = """\
Every model is tested against the first one. A star marks a score, overall or of a group, or a disparity that differs
by more than chance. The test is for equal scores and costs about as much as --interval for every model. --match-sizes
and --match-groups make the samples equally many for all models. --fake-groups and --fake-key hold for the files of all
models. Models whose samples have --fake-clusters in common, such as prompts, are paired by them. With --tolerance every
model gets its verdict, and the exit status is the worst of them: 3 if a gap of any model is beyond the tolerance, else
4 if any is undecided, 0 if all are within it. --confusion holds for the samples of all models: label a random part of
those of every model. --control compares the groups of every model within the same strata; models are not tested there.

examples:
  egtmetrics compare --reference real.npz a.npz b.npz --real-groups gender --fake-groups gender
  egtmetrics compare --reference real.npz a.npz b.npz c.npz --real-groups y --fake-groups y --metrics topp,fid \\
      --match-sizes --permutations 0 --out models.md --figure models.pdf
  egtmetrics compare --reference real.npz a.npz b.npz --real-groups y --fake-groups y --metrics ipr \\
      --baseline split --tolerance 5pp
"""


def add_to(commands: Commands) -> None:
    compare = add_command(
        commands,
        "compare",
        _compare,
        help="compare several models on the same real samples",
        description="Compare several models with one set of real samples, group by group, and with each other.",
        epilog=_EPILOG,
    )
    compare.add_argument("models", metavar="FAKE", nargs="+", help="the samples of a model")
    data = add_sample_options(compare)
    data.add_argument("--reference", metavar="REAL", required=True, help="the real samples")
    add_control(data)
    add_confusion(data)
    add_options(compare, data, metrics="ipr,fid", pages=False)
    add_sample_verdict_options(compare, dose=False)
    tests = compare.add_argument_group("tests")
    tests.add_argument(
        "--permutations",
        dest="n_permutations",
        type=int,
        metavar="N",
        help="test for equal laws instead: whether a model and the first one generate the same distribution, which "
        "two models with equal scores need not do; by N permutations for each test, which take as long as 2 N "
        "evaluations. 0: no tests",
    )


def _compare(args: argparse.Namespace) -> int:
    plan = check_options(args)
    names = _model_names(args.models)
    from egtmetrics.report import plot_precision_recall
    from egtmetrics.report.compare import compare_with_first, render_comparison, undecided

    paths = {"real": ("real", args.reference)}
    if (held_out_path := held_out_file(args)) is not None:
        paths["held_out"] = ("held_out", held_out_path)
    of_model = {name: f"model {name}" for name in names}
    paths |= {of_model[name]: ("fake", path) for name, path in zip(names, args.models, strict=True)}
    sides, encoded = read_sides(args, plan.metrics, paths)
    samples = {name: group_sides(args, sides["real"], sides[of_model[name]]) for name in names}
    frames = {}
    provenance: dict[str, Any] = {"real": sides["real"].source, **encoded}
    held_out = held_out_of(sides)
    if held_out is not None:
        provenance["held_out"] = held_out.source
    at_most = _smallest(samples.values())
    for name, one in samples.items():
        frames[name], provenance[of_model[name]] = evaluate_samples(
            args, plan.metrics, one, {"fake": sides[of_model[name]].source}, at_most=at_most
        )
    as_text = args.format != "json" or any(path.suffix.lower() != ".json" for path in args.out)  # tests every δ
    tested = args.n_permutations != 0
    note_costs(args, parts_to_come(args, [*frames.values()], held_out, always=as_text, tests=tested))
    judged = {
        name: judge(args, frame, plan.tolerances, held_out, progress=show_progress(args))
        for name, frame in frames.items()
    }
    controlled, corrections = {}, {}
    for name, frame in frames.items():
        within_strata, not_controlled = controlled_of(args, frame)
        correction, uncorrected = correction_of(args, frame)
        provenance[of_model[name]] |= {**not_controlled, **uncorrected}
        if within_strata is not None:
            controlled[name] = within_strata
        if correction is not None:
            corrections[name] = correction
    intervals = None
    if args.level is not None:
        intervals = {name: frame.interval(args.level) for name, frame in frames.items()}
    tests, untested = None, ""
    if tested:
        try:
            tests = compare_with_first(
                frames,
                n_permutations=args.n_permutations,
                random_state=args.random_state,
                progress=show_progress(args),
            )
        except ValueError as error:  # a table without tests that says why is better than none
            if args.n_permutations is not None:
                raise
            untested = str(error)

    def text(format: Format, width: int) -> str:
        return render_comparison(
            frames,
            tests=tests,
            untested=untested,
            intervals=intervals,
            baselines={name: one.baseline for name, one in judged.items() if one.baseline is not None},
            verdicts={name: one.verdicts for name, one in judged.items()},
            controlled=controlled,
            corrections=corrections,
            format=format,
            provenance=provenance,
            width=width,
        )

    def figure() -> Axes:
        hollow = [] if tests is None else undecided(tests, str(plan.figure_metric))
        return plot_precision_recall(frames, metric=plan.figure_metric, hollow=hollow)

    write_outputs(args, text, figure)
    return exit_status(judged.values())


def _smallest(of_models: Iterable[GroupedSamples]) -> dict[Hashable, int]:
    """Return the samples that every model has of each group; matched to these, all have the same real samples."""
    smallest: dict[Hashable, int] = {}
    for samples in of_models:
        for label, sizes in samples.cell_sizes().items():
            smallest[label] = min(*sizes, smallest.get(label, sizes[0]))
    return smallest


def _model_names(paths: list[str]) -> list[str]:
    """Return the names of the files without suffix, or the whole paths if those names are not unique."""
    if len(paths) < 2:
        raise ValueError(f"one model, {paths[0]}: pass two or more files to compare, or use egtmetrics evaluate")
    if len(set(paths)) < len(paths):
        raise ValueError(f"{Counter(paths).most_common(1)[0][0]} is given twice; pass every model once")
    stems = [shown(Path(path).stem) for path in paths]
    return stems if len(set(stems)) == len(stems) else list(map(shown, paths))
