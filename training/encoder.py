"""Fine-tuning a vision model on labelled real images: one folder that is both encoder and oracle.

The labels are the groups that the oracle is to tell apart. The images are divided once, so that every part has all
groups and no cluster is in two parts: most train, some choose the epoch and the temperature, and the rest, held out,
say how often the oracle is wrong.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from egtmetrics._atomic import write_folder
from egtmetrics._errors import first_line, listed
from egtmetrics._extras import extra
from egtmetrics._hub import find_folder, is_path, loading, loading_quietly
from egtmetrics._validation import check_number, check_positive_int
from egtmetrics.confusion import Confusion
from egtmetrics.encoders import ImageEncoder
from egtmetrics.encoders._batches import check_device
from egtmetrics.encoders._networks import to_pixels
from egtmetrics.encoders._presets import IMAGE_PRESETS
from egtmetrics.encoders.images import to_floats
from egtmetrics.oracles import group_indices
from egtmetrics.oracles.classifier import divide
from egtmetrics.oracles.labels import check_group_names, names_of
from egtmetrics.oracles.models import write_held_out

from .losses import MeanLoss
from .resumable import ResumableTraining, RunCounts, describe_weights, fingerprint, seeded

if TYPE_CHECKING:
    import pandas as pd

_ORDER, _DROPOUT = 0, 1
"""Names of streams of random numbers."""
_KIND = "vision model of transformers"
_COMPARED = 64
"""Images whose content a checkpoint is compared by; comparing all would read each once more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTunedEncoder(RunCounts):
    """What :func:`fine_tune_encoder` returns."""

    model: Any
    """Of transformers, with the weights of the best epoch; adapters are merged, and the head is calibrated."""
    processor: Any
    """Its image processor."""
    group_names: tuple[str, ...]
    """In the order of the model's outputs."""
    held_out: NDArray[np.int64]
    """``(m,)`` positions of the held-out images among ``images``."""
    held_out_groups: NDArray[np.object_]
    """``(m,)`` their true groups."""
    probabilities: NDArray[np.float64]
    """``(m, G)`` their calibrated probabilities of the groups."""
    temperature: float
    """What the head's outputs were divided by; above 1, the model was too sure."""
    best_epoch: int
    """The epoch with the lowest validation loss, from 1."""
    log: pd.DataFrame
    """One row per epoch: ``epoch``, ``training_loss`` and ``validation_loss``, nats per image before calibration."""

    @property
    def confusion(self) -> Confusion:
        """What held-out images of each group are called."""
        called = names_of(self.probabilities.argmax(axis=1), self.group_names)
        return Confusion.of_labels(self.held_out_groups, called, group_names=self.group_names)

    @property
    def expected_error(self) -> float:
        """Mean over held-out images of 1 less the probability of the group they are called.

        That is the share of wrong calls if the probabilities are right.
        """
        return float(1.0 - self.probabilities.max(axis=1).mean())

    def save(self, folder: str | Path) -> None:
        """Write a folder for ``ImageEncoder(folder)``, ``--encoder folder`` and ``ModelOracle(folder)``, or nothing.

        It has the layout of transformers, and ``held_out.csv`` with the held-out images: true group, called group,
        and probabilities. ``ModelOracle`` makes its confusion of them, and ``read_confusion`` reads it.

        Raises
        ------
        ValueError
            There is something under this name already.
        OSError
            The folder cannot be written.
        """
        check_new(folder)

        def fill(to: Path) -> None:
            _write_model(self.model, self.processor, to)
            write_held_out(to, self.group_names, self.held_out_groups.tolist(), self.probabilities)

        write_folder(Path(folder).resolve(), fill)


def check_new(folder: str | Path) -> None:
    """Refuse a name for a folder that is taken; call it before a long training."""
    if Path(folder).exists():
        raise ValueError(f"folder={folder} exists already; name another one, or remove it")


def fine_tune_encoder(
    model: Any,
    images: Any,
    labels: Any,
    *,
    processor: Any = None,
    last_blocks: int | None = None,
    lora_rank: int | None = None,
    clusters: Any = None,
    n_folds: int = 5,
    n_epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    device: Any = None,
    random_state: int = 0,
    progress: bool = False,
) -> FineTunedEncoder:
    r"""Fine-tune a vision model to tell groups of images apart, for use as encoder and as oracle.

    AdamW minimises the mean cross-entropy :math:`-\log p(a_i \mid x_i)` over the training images. The epoch with the
    lowest one on the validation images is kept. A temperature T then calibrates it: with z the head's outputs,

    .. math:: p_T(a \mid x) = \operatorname{softmax}_a(z(x) / T),

    where T minimises the cross-entropy on the validation images against targets that are not quite sure (those of
    Platt), so that T stays finite where no image is called wrongly. The head's weights are divided by T, so that all
    programs that read the folder have calibrated probabilities. The error is that on the held-out images, which took
    part in none of this.

    Parameters
    ----------
    model
        A vision model that transformers can give a head for image classification, and that the encoder reads back
        (ViT, DeiT, DINOv2, BEiT, Swin, ConvNeXt, ResNet; not CLIP and SigLIP): ``"dinov2"``, a folder or a name on the
        hub, looked up as by :class:`egtmetrics.encoders.ImageEncoder`; the ``.json`` file of a configuration, whose
        weights are drawn at random; or a model object with a head for these groups, which is trained in place.
    images
        ``n`` images as :class:`egtmetrics.encoders.ImageEncoder` takes them: an array ``(n, c, h, w)``, or a sequence
        that is read batch by batch, such as :class:`egtmetrics.data.ImageFiles`.
    labels
        ``(n,)`` the group of each; images whose group is None are left out.
    processor
        Image processor of a model object. By default ViT's: resized to the configuration's ``image_size``, levels
        scaled to [-1, 1]. A folder has its own.
    last_blocks
        Train the last so many blocks, what comes after them, and the head; by default all weights.
    lora_rank
        Train adapters (LoRA) of this rank on all linear layers, and the head, instead; scaled by 2.
    clusters
        ``(n,)`` labels that near-duplicates share, for example all photos of one person. Each cluster falls into one
        part as a whole; otherwise the held-out error would be too low.
    n_folds
        Parts of equal size: one is held out, one is for validation, the others train.
    n_epochs
        Passes over the training images.
    batch_size
        Images of a step; the last batch of an epoch may be smaller.
    learning_rate
        Constant; weight decay is torch's default of 0.01.
    checkpoint
        File to write to, and to resume from if it exists. It holds the trained weights, those of the best epoch, and
        the optimizer's state. It is replaced as a whole, so that a kill leaves the one before.
    checkpoint_every
        Steps between checkpoints; one is always written at the end.
    device
        Where to train: "cpu", "cuda", ...; by default cuda where there is one.
    random_state
        Seed of the division, of a new head, of adapters, of the order of images and of dropout. The global generators
        are left as they were.
    progress
        Show a progress bar, which counts steps.

    Returns
    -------
    FineTunedEncoder
        The model, its held-out error, and ``save``.

    Raises
    ------
    ImportError
        transformers is missing, or peft for ``lora_rank``.
    OSError, ValueError
        A model that is not there, has no such head, or has no features that the encoder reads back; images or labels
        that do not fit; a group with too few images for the parts; options out of range; a checkpoint that is cut off
        or comes from another training. All but damaged images are found before the first step.
    FloatingPointError
        The loss is NaN or infinite in more than 10 batches in a row.

    Notes
    -----
    The features of the saved folder are the encoder's for the family (docs/encoders.md): for DINOv2 the class token
    behind the last normalisation, for ViT and DeiT the same. The paper takes the embeddings of a DINOv2 that was
    fine-tuned on FFHQ, and its classifier as the oracle. It does not say of which layer they are, how it was
    fine-tuned, or how often the oracle is wrong.

    Features that were trained to tell the groups apart see what separates the groups, and may see less of what varies
    within them. They know the labels of the images that they were trained on: another classifier that is fitted on such
    features of these images, such as a ``ClassifierOracle``, finds too few errors by cross-validation.

    A resumed run equals an uninterrupted one bit for bit on one machine with one number of threads. Cost: every image
    is prepared and passes through the model once per epoch; validation images without gradients.

    References
    ----------
    The paper, appendix B.3.3. Guo et al.: On Calibration of Modern Neural Networks, ICML 2017, section 4.2; Platt:
    Probabilistic Outputs for Support Vector Machines, 1999, section 2.2 (the targets); Hu et al.: LoRA, ICLR 2022.

    Examples
    --------
    Dark and bright images, by a tiny model with random weights:

    >>> import numpy as np, torch, transformers
    >>> from egtmetrics.training.encoder import fine_tune_encoder
    >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    >>> with torch.random.fork_rng():
    ...     _ = torch.manual_seed(0)
    ...     config = transformers.ViTConfig(**sizes, image_size=4, patch_size=2, num_labels=2)
    ...     model = transformers.ViTForImageClassification(config)
    >>> rng, labels = np.random.default_rng(0), np.repeat(["dark", "bright"], 40)
    >>> images = 0.4 * rng.random((80, 1, 4, 4)) + 0.6 * (labels == "bright")[:, None, None, None]
    >>> tuned = fine_tune_encoder(model, images, labels, n_epochs=8, learning_rate=1e-2, device="cpu")
    >>> tuned.confusion.error_by_group
    {'bright': 0.0, 'dark': 0.0}
    """
    batch_size = check_positive_int(batch_size, "batch_size")
    n_epochs = check_positive_int(n_epochs, "n_epochs")
    checkpoint_every = check_positive_int(checkpoint_every, "checkpoint_every")
    n_folds = check_positive_int(n_folds, "n_folds", minimum=3)
    seed = check_positive_int(random_state, "random_state", minimum=0)
    learning_rate = check_number(learning_rate, "learning_rate", above=0.0)
    if last_blocks is not None and lora_rank is not None:
        raise ValueError(f"last_blocks={last_blocks} and lora_rank={lora_rank} exclude each other; pass one of them")
    check_device(device)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    groups, names = _groups(labels, len(images))
    parts = _divide(groups, names, clusters, n_folds, seed)
    with extra("vision", "fine-tuning a vision model needs transformers and Pillow"):
        import PIL.Image  # noqa: F401
        import transformers  # noqa: F401
    network, used = _load(model, processor, names, seed)
    head = _head(network, len(names), model)
    _check_read_back(network, used, to_floats(images[0], 0), model)
    adapters = _choose_weights(network, head, last_blocks, lora_rank, seed)
    network.to(target)
    compared = np.unique(np.linspace(0, len(images) - 1, _COMPARED).astype(int)).tolist()
    training = _EncoderTraining(
        network, used, images, torch.from_numpy(groups), parts, n_groups=len(names), batch_size=batch_size,
        learning_rate=learning_rate, seed=seed, device=target,
    )  # fmt: skip
    settings = {
        "n_folds": n_folds,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "random_state": seed,
        "device": target.type,
        "lora_rank": lora_rank,
        **describe_weights(training.trained),
        "processor": used.to_json_string(),
        "groups": f"{', '.join(names)}: {fingerprint([training.groups])}",
        "division": fingerprint(torch.from_numpy(rows) for rows in parts),
        "images": fingerprint(torch.from_numpy(to_floats(images[row], row)) for row in compared),
        "first weights": fingerprint(network.state_dict().values()),
    }
    resumed_at = training.run(
        settings,
        n_steps=n_epochs * training.steps_per_epoch,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    training.take_best()
    if adapters is not None:
        adapters.merge_and_unload()
    network.eval()
    _, validation, held_out = parts
    temperature = _temperature(training.logits(validation), groups[validation])
    with torch.no_grad():
        for weight in head.parameters():
            weight.div_(temperature)
    network.config.calibration_temperature = temperature  # for the reader; the head is divided by it already
    return FineTunedEncoder(
        model=network,
        processor=used,
        group_names=names,
        held_out=held_out,
        held_out_groups=names_of(groups[held_out], names),
        probabilities=torch.softmax(training.logits(held_out), dim=1).numpy(),
        temperature=temperature,
        best_epoch=training.best_epoch,
        log=training.log,
        n_steps=training.step,
        n_samples_seen=training.step // training.steps_per_epoch * len(parts[0]),
        n_skipped=training.n_skipped,
        resumed_at=resumed_at,
    )


class _EncoderTraining(ResumableTraining):
    """AdamW on the weights that require a gradient, the losses by epoch, and the weights of the best one."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        images: Any,
        groups: Tensor,
        parts: Sequence[NDArray[np.int64]],
        *,
        n_groups: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        optimizer = torch.optim.AdamW(self.trained.values(), lr=learning_rate)
        super().__init__(MeanLoss(n_groups).to(device), optimizer, device)
        self.model, self.processor, self.images, self.groups = model, processor, images, groups
        self.training_rows, self.validation_rows, _ = parts
        self.batch_size, self.seed = batch_size, seed
        self.steps_per_epoch = math.ceil(len(self.training_rows) / batch_size)
        self._sum = 0.0
        self._losses: list[list[float]] = []
        self._best = self._weights()

    def take_step(self) -> None:
        epoch, place = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(self.training_rows)
        rows = order[place * self.batch_size : (place + 1) * self.batch_size]
        groups = self.groups[rows].to(self.device)
        self.model.train()
        self.optimizer.zero_grad()
        # A seed for every step, so that dropout is the same after an interruption.
        seed = int(np.random.SeedSequence([self.seed, _DROPOUT, self.step]).generate_state(1)[0])
        with seeded(seed, self.device):
            losses = functional.cross_entropy(self._forward(rows), groups, reduction="none")
            self.loss(losses, groups).backward()
        self.descend()
        self._sum += float(losses.detach().cpu().double().sum())
        if place + 1 == self.steps_per_epoch:
            self._end_epoch()

    def _end_epoch(self) -> None:
        logits = self.logits(self.validation_rows)
        loss = float(functional.cross_entropy(logits, self.groups[self.validation_rows]))
        loss = loss if math.isfinite(loss) else math.inf
        if all(loss < earlier for _, earlier in self._losses):
            self._best = self._weights()
        self._losses.append([self._sum / len(self.training_rows), loss])
        self._sum = 0.0

    @torch.no_grad()
    def logits(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the head's outputs in eval mode, ``(k, G)`` float64 on the CPU."""
        self.model.eval()
        starts = range(0, len(rows), self.batch_size)
        return torch.cat([self._forward(rows[start : start + self.batch_size]).cpu().double() for start in starts])

    def _forward(self, rows: NDArray[np.int64]) -> Tensor:
        pixels = to_pixels(self.processor, [to_floats(self.images[int(row)], int(row)) for row in rows])
        logits: Tensor = self.model(**{name: values.to(self.device) for name, values in pixels.items()}).logits
        return logits.float()

    @property
    def best_epoch(self) -> int:
        return 1 + int(np.argmin([loss for _, loss in self._losses]))

    @property
    def log(self) -> pd.DataFrame:
        import pandas as pd

        frame = pd.DataFrame(self._losses, columns=["training_loss", "validation_loss"])
        frame.insert(0, "epoch", np.arange(1, 1 + len(frame)))
        return frame

    def take_best(self) -> None:
        self._load_weights(self._best)

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "weights": self._weights(),
            "best": self._best,
            "losses": self._losses,
            "sum": self._sum,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._load_weights(state["weights"])
        self._best, self._sum = dict(state["best"]), state["sum"]
        self._losses = [list(row) for row in state["losses"]]

    def _changing(self) -> dict[str, Tensor]:
        """Return what training changes: the trained weights, and averages such as those of batch normalisation."""
        return {**self.trained, **dict(self.model.named_buffers())}

    def _weights(self) -> dict[str, Tensor]:
        return {name: values.detach().cpu().clone() for name, values in self._changing().items()}

    @torch.no_grad()
    def _load_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, values in self._changing().items():
            values.copy_(weights[name])


def _groups(labels: Any, n: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the index of every image's group, -1 for none, and the sorted names."""
    from egtmetrics.labels import group_text, label_columns

    _, columns = label_columns(labels, "labels")
    if len(columns) > 1:
        raise ValueError(f"labels has {len(columns)} columns, expected one label per image, ({n},); join them to one")
    texts = [None if label is None else group_text(label) for label in columns[0].tolist()]
    names = check_group_names(sorted({text for text in texts if text is not None}))
    return group_indices(texts, names, n=n, name="labels"), names


def _divide(
    groups: NDArray[np.int64], names: Sequence[str], clusters: Any, n_folds: int, seed: int
) -> list[NDArray[np.int64]]:
    """Return the rows to train on, to validate on, and to hold out; every group is in each."""
    from egtmetrics.labels import number_clusters

    (numbers,), _ = number_clusters({"clusters": (clusters, len(groups))})
    known = np.flatnonzero(groups >= 0)
    counts = np.bincount(groups[known], minlength=len(names))
    if len(names) < 2 or counts.min() < n_folds:
        found = listed(f"{count} of {name!r}" for name, count in zip(names, counts, strict=True))
        raise ValueError(
            f"labels has {found or 'no group'}, expected two groups or more with at least n_folds={n_folds} images "
            "each; add images, or lower n_folds"
        )
    folds = divide(groups[known], None if numbers is None else numbers[known], n_folds, seed)
    held_out, validation = (known[test] for _, test in folds[:2])
    training = np.setdiff1d(known, np.concatenate([held_out, validation]))
    parts = [training, validation, held_out]
    lacking = [name for i, name in enumerate(names) if not all((groups[part] == i).any() for part in parts)]
    if lacking:
        raise ValueError(
            f"clusters are too few or too large: {listed(map(repr, lacking))} cannot be in all of the parts for "
            f"training, validation and holding out with n_folds={n_folds}; lower n_folds, or add images"
        )
    return parts


def _load(model: Any, processor: Any, names: Sequence[str], seed: int) -> tuple[Any, Any]:
    """Return a classifier of the groups in float32 on the CPU, and its image processor."""
    if not isinstance(model, str | Path):
        return _take(model, names), processor or _default_processor(model.config)
    if processor is not None:
        raise ValueError("processor is for a model object, and a folder or a configuration has its own; leave it out")
    import transformers

    labels: dict[str, Any] = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    name = IMAGE_PRESETS[model].model if isinstance(model, str) and model in IMAGE_PRESETS else str(model)
    path = Path(name).expanduser()
    if path.suffix == ".json" and path.is_file():
        with loading(model, _KIND), seeded(seed, torch.device("cpu")):
            config = transformers.AutoConfig.from_pretrained(str(path), **labels)
            network = transformers.AutoModelForImageClassification.from_config(config, dtype=torch.float32)
        return network, _default_processor(config)
    if not path.is_dir() and (is_path(name) or "/" not in name):
        raise FileNotFoundError(
            f"model={model} is not a folder here; pass 'dinov2', the folder of a {_KIND}, its name on the Hugging Face "
            "hub as in facebook/dinov2-large, or the .json file of a configuration"
        )
    source = find_folder(name, _KIND)
    with loading(model, _KIND), seeded(seed, torch.device("cpu")):  # which a new head is drawn with
        network, report = transformers.AutoModelForImageClassification.from_pretrained(
            source, **labels, ignore_mismatched_sizes=True, dtype=torch.float32, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
        base = f"{network.base_model_prefix}."
        drawn = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
        missing = sorted(key for key in drawn if key.startswith(base))
        if missing:
            raise ValueError(f"its weights lack {len(missing)} of the model's, such as {missing[0]}")
        found = transformers.AutoImageProcessor.from_pretrained(source, trust_remote_code=False, backend="pil")
    return network, found


def _take(model: Any, names: Sequence[str]) -> Any:
    """Return a model object with the names of the groups as its labels."""
    import transformers

    if not isinstance(model, transformers.PreTrainedModel):
        raise TypeError(
            f"model is {type(model).__name__}, expected a model of transformers, its folder, its name, or the .json "
            "file of a configuration; pass one"
        )
    if model.config.num_labels != len(names):
        raise ValueError(
            f"model has num_labels={model.config.num_labels} for the {len(names)} groups {listed(map(repr, names))}; "
            f"build it with num_labels={len(names)}"
        )
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: place for place, name in enumerate(names)}
    return model.float()


def _default_processor(config: Any) -> Any:
    import transformers

    size = getattr(config, "image_size", None)
    if not isinstance(size, int):
        raise ValueError(
            f"model has image_size={size!r} in its configuration, which says no size to resize images to; pass a "
            "model object and its image processor (processor)"
        )
    return transformers.ViTImageProcessorPil(size={"height": size, "width": size})


def _head(network: Any, n_groups: int, model: Any) -> nn.Linear:
    """Return the linear layer behind the features."""
    base = f"{network.base_model_prefix}."
    found = [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == n_groups and not name.startswith(base)
    ]
    if len(found) != 1:
        raise ValueError(
            f"model={_shown(model)} has {len(found)} linear layers with {n_groups} outputs behind its features, "
            f"expected one; pass a {_KIND} for image classification"
        )
    return found[0]


def _check_read_back(network: Any, processor: Any, image: NDArray[np.float32], model: Any) -> None:
    """Refuse, before training, a model that would be saved as a folder that the encoder does not read."""
    with tempfile.TemporaryDirectory() as folder:
        _write_model(network, processor, Path(folder))
        try:
            ImageEncoder(folder, device="cpu")([image])
        except ValueError as error:
            raise ValueError(
                f"model={_shown(model)} has no features that the encoder reads back from a folder "
                f"({first_line(error.__cause__ or error)}); take another family, such as DINOv2 or ViT"
            ) from error


def _write_model(network: Any, processor: Any, to: Path) -> None:
    with loading_quietly():
        network.save_pretrained(to)
        processor.save_pretrained(to)


def _choose_weights(
    network: Any, head: nn.Linear, last_blocks: int | None, lora_rank: int | None, seed: int
) -> Any | None:
    """Let the chosen weights require a gradient; return the adapters, to be merged after training."""
    if lora_rank is not None:
        rank = check_positive_int(lora_rank, "lora_rank")
        with extra("language", "lora_rank needs peft"):
            import peft
        layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear) and layer is not head]
        if not layers:
            raise ValueError(f"lora_rank={rank}: the model has no linear layer but its head; pass last_blocks instead")
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers)
        with seeded(seed, torch.device("cpu")):
            adapters = peft.LoraModel(network, config, "default")
        head.requires_grad_(True)
        return adapters
    network.requires_grad_(True)
    if last_blocks is not None:
        count = check_positive_int(last_blocks, "last_blocks")
        # The outermost list of modules; a block may have lists of its own.
        found = next(((name, len(m)) for name, m in network.named_modules() if isinstance(m, nn.ModuleList)), ("", 0))
        blocks, n_blocks = found
        if count > n_blocks:
            raise ValueError(f"last_blocks={count}, but the model has {n_blocks} blocks; pass at most that")
        start = f"{blocks}.{n_blocks - count}."
        for name, weight in network.named_parameters():
            if name.startswith(start):
                break
            weight.requires_grad_(False)
    return None


def _temperature(logits: Tensor, groups: NDArray[np.int64]) -> float:
    """Return the temperature with the lowest cross-entropy against Platt's targets, within a factor of 100 of 1."""
    from scipy.optimize import minimize_scalar

    n_groups = logits.shape[1]
    n_of_own = torch.from_numpy(np.bincount(groups, minlength=n_groups)[groups]).double()
    targets = (1.0 / ((n_of_own + 2.0) * (n_groups - 1)))[:, None].repeat(1, n_groups)
    targets[torch.arange(len(groups)), torch.from_numpy(groups)] = (n_of_own + 1.0) / (n_of_own + 2.0)

    def loss(log_temperature: float) -> float:
        return float(functional.cross_entropy(logits / math.exp(log_temperature), targets))

    found = minimize_scalar(loss, bounds=(-math.log(100.0), math.log(100.0)), method="bounded")
    return math.exp(float(found.x))


def _shown(model: Any) -> str:
    return str(model) if isinstance(model, str | Path) else type(model).__name__
