"""Groups by models of transformers: classifiers of images or texts, and prompts that CLIP or SigLIP compares."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._atomic import write_whole
from egtmetrics._errors import first_line, listed
from egtmetrics._extras import extra
from egtmetrics._hub import find_folder, loading
from egtmetrics._validation import check_positive_int
from egtmetrics.confusion import Confusion
from egtmetrics.oracles.labels import ProbabilityOracle, names_of

_HELD_OUT = "held_out.csv"
_KIND = "model of transformers"


class FeatureOracle(ProbabilityOracle):
    """The last step of an oracle by a network, for what the network makes of samples: see ``head`` of the others.

    So samples that an encoder has seen need not go through the network again.

    Parameters
    ----------
    logits
        Function from features ``(n, d)`` to logits ``(n, L)``.
    of_label
        ``(L, G)``: 1 where a logit is that of a label of the group.
    group_names, min_confidence, max_contamination
        As for :class:`~egtmetrics.oracles.ProbabilityOracle`.
    """

    def __init__(
        self,
        group_names: Sequence[str],
        logits: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        of_label: NDArray[np.float64],
        *,
        min_confidence: float = 0.0,
        max_contamination: float = 0.05,
    ) -> None:
        super().__init__(group_names, min_confidence=min_confidence, max_contamination=max_contamination)
        self._logits, self._of_label = logits, of_label

    def probabilities(self, samples: Any, /) -> NDArray[np.float64]:
        """Return the probability of every group by the features ``(n, d)`` of samples, ``(n, G)``."""
        from scipy.special import softmax

        found: NDArray[np.float64] = softmax(self._logits(np.asarray(samples, np.float64)), axis=1) @ self._of_label
        return found


class PromptOracle(ProbabilityOracle):
    r"""The group of an image by the prompt that it is nearest to, under CLIP, SigLIP or another such model.

    With v the feature of the image and t_g the mean of the features of group g's prompts, all of length 1, and s the
    model's own scale, the probabilities are :math:`\text{softmax}_g(s\, v \cdot t_g)`.

    Parameters
    ----------
    model
        Folder of a model of transformers with image and text features, or its name on the hub if it was fetched before.
        Nothing is fetched here; ``hf download NAME`` does that.
    prompts
        For every group a prompt, or several: ``{"female": "a photo of a woman", "male": "a photo of a man"}``. A group
        named None takes images that are in none of the others: ``{..., None: "a photo without people"}``.
    min_confidence
        Abstain where the largest probability is below this. For two groups that is a margin of ``2 * min_confidence -
        1`` between them.
    max_contamination
        See :class:`~egtmetrics.oracles.Oracle`.
    batch_size, device
        Images at a time, and where the model runs.

    Raises
    ------
    ImportError
        transformers or torch is missing.
    OSError, ValueError
        The model is not there or compares no prompts, or there are not two prompts.

    Notes
    -----
    A call takes images as Pillow has them, or arrays ``(h, w, 3)`` of bytes. The probabilities are not calibrated, and
    such models err more on some groups than on others: measure the error (``measure_error``).

    ``head`` is a :class:`FeatureOracle` for image features that are known already.

    References
    ----------
    Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, section 3.1 (with
    the mean over prompts); Zhai et al.: Sigmoid Loss for Language Image Pre-Training, ICCV 2023.
    """

    def __init__(
        self,
        model: str | Path,
        prompts: Mapping[str | None, str | Sequence[str]],
        *,
        min_confidence: float = 0.0,
        max_contamination: float = 0.05,
        batch_size: int = 32,
        device: Any = None,
    ) -> None:
        super().__init__(
            [name for name in prompts if name is not None],
            min_confidence=min_confidence,
            max_contamination=max_contamination,
        )
        lists = {name: [own] if isinstance(own, str) else list(own) for name, own in prompts.items()}
        if len(lists) < 2 or not all(
            own and all(isinstance(text, str) and text for text in own) for own in lists.values()
        ):
            raise ValueError(
                f"prompts={prompts!r}, expected a prompt or more for two groups or more, such as "
                "{'female': 'a photo of a woman', 'male': 'a photo of a man'}"
            )
        self._batch_size = check_positive_int(batch_size, "batch_size")
        with extra("language", "an oracle of prompts needs transformers"):
            import torch
            from transformers import AutoModel, AutoProcessor
        self._model, self._processor = _loaded(model, AutoModel, AutoProcessor, device)
        if not hasattr(self._model, "get_image_features") or not hasattr(self._model, "get_text_features"):
            raise ValueError(
                f"model={model} is {type(self._model).__name__}, which has no features of images and texts to compare; "
                "pass a CLIP, SigLIP or similar model"
            )
        scale = float(self._model.logit_scale.detach().exp())
        order = [*self.group_names, *([None] if None in lists else [])]
        with torch.inference_mode():
            rows = []
            for name in order:
                tokens = self._processor(text=lists[name], padding="max_length", truncation=True, return_tensors="pt")
                found = _unit(self._model.get_text_features(**tokens.to(self._model.device)))
                rows.append(_unit(found.mean(dim=0, keepdim=True)))
        texts = torch.cat(rows).double().cpu().numpy()
        self.head = FeatureOracle(
            self.group_names,
            lambda images: scale * (images / np.linalg.norm(images, axis=1, keepdims=True)) @ texts.T,
            np.eye(len(order), len(self.group_names)),
            min_confidence=min_confidence,
            max_contamination=max_contamination,
        )

    def probabilities(self, samples: Sequence[Any], /) -> NDArray[np.float64]:
        """Return the probability of every group, ``(n, G)``; rows sum to less than 1 where there is a None prompt."""
        import torch

        rows = [np.empty((0, len(self.group_names)))]
        with torch.inference_mode():
            for start in range(0, len(samples), self._batch_size):
                batch = list(samples[start : start + self._batch_size])
                pixels = self._processor(images=batch, return_tensors="pt").to(self._model.device)
                images = _pooled(self._model.get_image_features(**pixels))
                rows.append(self.head.probabilities(images.double().cpu()))
        return np.concatenate(rows)


class ModelOracle(ProbabilityOracle):
    """The group of an image or a text by a classifier of transformers; ``kind`` is ``"images"`` or ``"texts"``.

    Parameters
    ----------
    model
        Folder of a model for image or sequence classification, or its name on the hub if it was fetched before. Nothing
        is fetched here; ``hf download NAME`` does that.
    groups
        The group of each of the model's labels; None for labels of no group. By default the labels are the groups.
    min_confidence, max_contamination
        As for :class:`PromptOracle`.
    batch_size, device
        Samples at a time, and where the model runs.

    Raises
    ------
    ImportError
        transformers or torch is missing.
    OSError, ValueError
        The model is not there, or is no classifier with these labels; held-out images beside it cannot be read.

    Notes
    -----
    In a folder of :class:`egtmetrics.training.encoder.FineTunedEncoder` lie the probabilities of held-out images:
    ``confusion`` is made of them, for these ``groups`` and ``min_confidence``. Of other models it is None until
    ``measure_error``.

    A call takes images as Pillow has them or arrays ``(h, w, 3)`` of bytes, or texts, whichever the model classifies.
    Texts are cut at the model's length. The probability of a group is the sum of those of its labels. ``head`` is a
    :class:`FeatureOracle` for logits that are known already.
    """

    def __init__(
        self,
        model: str | Path,
        groups: Mapping[str, str | None] | None = None,
        *,
        min_confidence: float = 0.0,
        max_contamination: float = 0.05,
        batch_size: int = 32,
        device: Any = None,
    ) -> None:
        self._batch_size = check_positive_int(batch_size, "batch_size")
        with extra("language", "an oracle by a model needs transformers"):
            from transformers import (
                AutoConfig,
                AutoImageProcessor,
                AutoModelForImageClassification,
                AutoModelForSequenceClassification,
                AutoTokenizer,
            )
        kinds = getattr(_read(model, AutoConfig), "architectures", None) or [""]
        of_texts = kinds[0].endswith("ForSequenceClassification")
        self.kind = "texts" if of_texts else "images"
        if not of_texts and not kinds[0].endswith("ForImageClassification"):
            raise ValueError(
                f"model={model} is {kinds[0] or 'of no kind'}, expected a classifier of images or sequences"
            )
        classes = (
            (AutoModelForSequenceClassification, AutoTokenizer)
            if of_texts
            else (AutoModelForImageClassification, AutoImageProcessor)
        )
        self._model, self._processor = _loaded(model, *classes, device)
        labels = [self._model.config.id2label[place] for place in range(self._model.config.num_labels)]
        given = dict(zip(labels, labels, strict=True)) if groups is None else dict(groups)
        unknown = [label for label in given if label not in labels]
        if unknown:
            raise ValueError(
                f"groups has {listed(map(repr, unknown))}, but the labels of model={model} are "
                f"{listed(map(repr, labels))}; name the group of each of these, or None"
            )
        names = list(dict.fromkeys(group for group in given.values() if group is not None))
        super().__init__(names, min_confidence=min_confidence, max_contamination=max_contamination)
        of_label = np.array([[float(given.get(label) == name) for name in names] for label in labels])
        self.head = FeatureOracle(
            names,
            lambda logits: logits,
            of_label,
            min_confidence=min_confidence,
            max_contamination=max_contamination,
        )
        held_out = _read_held_out(find_folder(model, _KIND), labels)
        if held_out is not None and len(names) > 1:
            true, probabilities = held_out
            called = names_of(self._decide(probabilities @ of_label), self.group_names)
            self.confusion = Confusion.of_labels([given.get(label) for label in true], called, group_names=names)
            self.head.confusion = self.confusion

    def probabilities(self, samples: Sequence[Any], /) -> NDArray[np.float64]:
        """Return the probability of every group, ``(n, G)``; rows sum to less than 1 if some labels have no group."""
        import torch

        rows = [np.empty((0, len(self.group_names)))]
        with torch.inference_mode():
            for start in range(0, len(samples), self._batch_size):
                batch = list(samples[start : start + self._batch_size])
                if self.kind == "texts":
                    inputs = self._processor(batch, padding=True, truncation=True, return_tensors="pt")
                else:
                    inputs = self._processor(images=batch, return_tensors="pt")
                logits = self._model(**inputs.to(self._model.device)).logits
                rows.append(self.head.probabilities(logits.double().cpu()))
        return np.concatenate(rows)


def _pooled(rows: Any) -> Any:
    """Return the features, which a model may wrap."""
    return getattr(rows, "pooler_output", rows)


def _unit(rows: Any) -> Any:
    rows = _pooled(rows)
    return rows / rows.norm(dim=-1, keepdim=True)


def _loaded(model: str | Path, of_model: Any, of_processor: Any, device: Any) -> tuple[Any, Any]:
    return _read(model, of_model).to(device).eval(), _read(model, of_processor)


def _read(model: str | Path, kind: Any) -> Any:
    # From a folder: given a name, transformers looks for adapters on the network, also with local_files_only.
    folder = find_folder(model, _KIND)
    with loading(model, _KIND):
        return kind.from_pretrained(str(folder), local_files_only=True)


def write_held_out(
    folder: Path, labels: Sequence[str], true: Sequence[str], probabilities: NDArray[np.float64]
) -> None:
    """Write true label, called label and probabilities ``(n, L)`` of held-out samples beside a model.

    :class:`ModelOracle` reads them, and ``egtmetrics.data.read_confusion`` the first two columns.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_held_out_columns(labels))
    for own, row in zip(true, probabilities, strict=True):
        table.writerow([own, labels[int(row.argmax())], *map(repr, row.tolist())])
    write_whole(folder / _HELD_OUT, text.getvalue())


def _read_held_out(folder: Path, labels: Sequence[str]) -> tuple[list[str], NDArray[np.float64]] | None:
    """Return true labels and probabilities of held-out samples; None if there are none beside the model."""
    path = folder / _HELD_OUT
    if not path.is_file():
        return None
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        if header != _held_out_columns(labels):
            raise ValueError(f"it has the columns {listed(header)}")
        true = [row[0] for row in rows]
        probabilities = np.array([row[2:] for row in rows], dtype=np.float64).reshape(len(rows), len(labels))
        if not {*true} <= {*labels}:
            raise ValueError(f"it has the labels {listed({*true} - {*labels})}")
        if not np.allclose(probabilities.sum(axis=1), 1.0):
            raise ValueError("it has probabilities that do not sum to 1")
    except (ValueError, IndexError, csv.Error) as error:  # of UTF-8, of numbers, of a row with too few of them
        raise ValueError(
            f"{path} cannot be read ({first_line(error)}), expected the columns {listed(_held_out_columns(labels))} "
            "of held-out samples; save the model again, or remove the file"
        ) from error
    return true, probabilities


def _held_out_columns(labels: Sequence[str]) -> list[str]:
    return ["true", "called", *(f"P({label})" for label in labels)]
