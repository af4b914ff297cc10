"""Features of images, by a network."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egtmetrics._errors import first_line, is_out_of_memory
from egtmetrics._extras import extra
from egtmetrics._progress import tqdm
from egtmetrics._validation import check_positive_int
from egtmetrics.encoders._batches import Batches, Forecast, check_device, check_finite
from egtmetrics.encoders._cache import FeatureCache, content_hash
from egtmetrics.encoders._networks import find_network

_RANGE_TOLERANCE = 1e-4


class ImageEncoder:
    """Features of images, by a network trained on other images.

    Called with ``k`` images it returns a float32 array ``(k, d)``.

    Parameters
    ----------
    model
        Which network, with its own preprocessing; nothing is fetched:

        - a name: ``"efficientnet"`` (the default, EfficientNet-Lite0, whose weights a package carries), ``"dinov2"``,
          ``"clip"``, ``"siglip"``; docs/encoders.md has their sizes, licences and uses;
        - the folder of a vision model of transformers, or its name on the Hugging Face hub if it is in the local cache
          (``hf download NAME`` puts it there). Features are the image embedding of models of images and texts (CLIP,
          SigLIP), not normalised; the class token of ViT and DeiT; ``pooler_output`` of all others (of DINOv2 the
          class token behind the last normalisation). Images are rounded to 256 levels, and its image processor for
          Pillow prepares them;
        - ``"inception:PATH"``: the Inception-v3 of the FID papers with the weights in a file, images resized as the
          code of Heusel et al. 2017 does (TTUR); ``"inception-clean:PATH"`` resizes as clean-fid does;
        - ``"logits:MODEL"``: an image classifier of transformers, whose logits are the features;
        - the path of a file with a network that takes float32 ``(k, 3, h, w)`` in [0, 1], does all normalisation itself
          and returns ``(k, d)``: a ``.pt2`` file of ``torch.export.save`` with ``k`` dynamic, or TorchScript. Only load
          files that you trust.
    size
        Height and width that images are resized to (bicubic, antialiased, not cropped), for EfficientNet-Lite0 (by
        default 224) and for a network from a file (by default not resized). Smaller images are faster to encode and
        give other features. The other networks have a size of their own.
    batch_size
        Images at a time. Halved when memory runs out.
    cache
        Folder that stores features by the images' content, so that no image is encoded twice. Several encoders and
        processes may share it. A killed run loses one batch at most; damaged files are computed again.
    device
        Of the network: "cpu", "cuda", ...; by default cuda where there is one.
    progress
        Show a progress bar, which counts images, and say once how long all of them take if that is more than a minute.

    Raises
    ------
    ImportError
        torch, transformers or the packages of the default network are missing; the message names the extra.
    OSError
        There is no such file or folder.
    ValueError
        A model that is not in the local cache (the message has the command that fetches it), a file or folder that
        holds no such network; options out of range; from a call: images of other shapes or ranges, images that the
        network cannot take, features that are not finite.
    MemoryError
        From a call: one image alone does not fit.

    Notes
    -----
    Rows from the cache come back bit for bit. Others may differ in the last bits, depending on the images that share
    their batch, as matrix products do.

    Cost of EfficientNet-Lite0, measured on one core of a shared server: 20 images a second at 224, 80 at 128, 700 at
    64.

    References
    ----------
    Tan and Le 2019 (EfficientNet); the weights are those of the Lite variant, which takes levels as (level - 127) /
    128. Oquab et al. 2024 (DINOv2), Radford et al. 2021 (CLIP), Zhai et al. 2023 (SigLIP), Szegedy et al. 2016
    (Inception-v3), Parmar et al. 2022 (clean-fid). The paper uses a DINOv2 that it fine-tuned on FFHQ (appendix
    B.3.3); :func:`egtmetrics.training.encoder.fine_tune_encoder` makes one.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> from egtmetrics.encoders import ImageEncoder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dynamic = ({0: torch.export.Dim("k")},)
    ...     network = torch.export.export(torch.nn.Flatten(), (torch.ones(2, 3, 2, 2),), dynamic_shapes=dynamic)
    ...     torch.export.save(network, Path(folder, "flatten.pt2"))
    ...     features = ImageEncoder(Path(folder, "flatten.pt2"), size=2)(torch.ones(5, 1, 8, 8))
    >>> features.shape, features.dtype
    ((5, 12), dtype('float32'))
    """

    identity: dict[str, Any]
    """Which network with which settings: model, hash of its weights, preprocessing, pooling; ready for JSON."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        size: int | None = None,
        batch_size: int = 32,
        cache: str | Path | None = None,
        device: Any = None,
        progress: bool = False,
    ) -> None:
        with extra("images", "encoding images needs torch"):
            import torch
        if size is not None:
            check_positive_int(size, "size")
        self.progress = progress
        check_device(device)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._batches = Batches[NDArray[np.float32]](check_positive_int(batch_size, "batch_size"))
        self._network = find_network("efficientnet" if model is None else model, size)
        self._network.module.to(self.device)
        self.identity = self._network.identity
        by_content = {key: value for key, value in self.identity.items() if key != "model"}
        self._cache = None if cache is None else FeatureCache(cache, {"features": "images", **by_content})

    def __call__(self, images: Any, /) -> NDArray[np.float32]:
        """Encode images.

        Parameters
        ----------
        images
            ``(k, c, h, w)`` with one or three channels, floats in [0, 1] or uint8 levels, an array or a tensor; or a
            sequence of ``(c, h, w)``, such as :class:`egtmetrics.data.ImageFiles`, which is read batch by batch.
        """
        if hasattr(images, "shape") and len(images.shape) != 4:
            raise ValueError(
                f"images has shape {tuple(images.shape)}, expected (k, c, h, w) with one or three channels; add the "
                "missing axes"
            )
        n = len(images)
        if not n:
            raise ValueError("images is empty; pass one image or more")
        if self._cache is not None:
            self._cache.refresh()
        rows: list[NDArray[np.float32]] = []
        forecast = Forecast(self._batches, "image", cached=self._cache is not None, silent=not self.progress)
        with tqdm(total=n, desc="images", unit="image", disable=not self.progress) as bar:
            while len(rows) < n:
                indices = range(len(rows), min(len(rows) + self._batches.size, n))
                rows += self._encode([to_floats(images[i], i) for i in indices], indices)
                bar.update(len(indices))
                forecast.tell(n - len(rows), n - len(rows))
        return np.stack(rows)

    def _encode(self, images: list[NDArray[np.float32]], indices: Sequence[int]) -> list[NDArray[np.float32]]:
        """Features of one batch, from the cache where it has them."""
        if self._cache is None:
            features = self._batches.run(self._forward, images)
            check_finite(features, [f"image {i}" for i in indices])
            return list(features)
        keys = [content_hash(repr(image.shape).encode(), image.tobytes()) for image in images]
        new = {key: i for i, key in enumerate(keys) if self._cache.get(key) is None}
        if new:
            features = self._batches.run(self._forward, [images[i] for i in new.values()])
            check_finite(features, [f"image {indices[i]}" for i in new.values()])
            self._cache.put(list(new), features)
        return [row for row in map(self._cache.get, keys) if row is not None]

    def _forward(self, images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            batch = self._network.prepare(images)
            tensors = batch if isinstance(batch, dict) else {"images": batch}
            tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
            try:
                features = self._network.forward(tensors if isinstance(batch, dict) else tensors["images"])
            except (RuntimeError, AssertionError) as error:
                if is_out_of_memory(error):
                    raise
                shape = tuple(next(iter(tensors.values())).shape)
                raise ValueError(
                    f"model={self.identity['model']} cannot take images {shape} ({first_line(error)}); "
                    "pass the size that it was made for, and export it with a dynamic first axis"
                ) from error
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(images):
            came = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise ValueError(
                f"model={self.identity['model']} returned {came} for {len(images)} images, expected features (k, d); "
                "export one that pools or flattens its maps"
            )
        return features.float().cpu().numpy()


def to_floats(image: Any, index: int) -> NDArray[np.float32]:
    """Convert an image to float32 ``(3, h, w)`` in [0, 1]."""
    is_tensor = hasattr(image, "detach")
    if is_tensor:
        image = image.detach().cpu()
        image = image.float().numpy() if image.is_floating_point() else image.numpy()
    if isinstance(image, str | os.PathLike):
        raise TypeError(f"image {index} is a path, expected an array (c, h, w); egtmetrics.data.ImageFiles reads files")
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[0] not in (1, 3) or 0 in array.shape:
        remedy = _remedy_of_shape(array.shape, "permute" if is_tensor else "transpose")
        raise ValueError(f"image {index} has shape {array.shape}, expected (1, h, w) or (3, h, w); {remedy}")
    if array.dtype == np.uint8:
        floats = array.astype(np.float32) / 255.0
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"image {index} holds NaN or infinity, expected floats in [0, 1]; leave it out")
        if not (low >= -_RANGE_TOLERANCE and high <= 1.0 + _RANGE_TOLERANCE):
            remedy = "of images in [-1, 1] pass (images + 1) / 2, of clipped ones images.clip(0, 1)"
            if low >= 0.0 and high > 2.0:
                remedy = f"of levels pass images / {255 if high <= 255.0 else 65535}"
            raise ValueError(
                f"image {index} has values from {low:.4g} to {high:.4g}, expected floats in [0, 1] or uint8 levels; "
                f"{remedy}"
            )
        floats = array.astype(np.float32).clip(0.0, 1.0)
    else:
        remedy = "convert it"
        if array.dtype.kind in "iu" and array.min() >= 0:
            remedy = f"of levels pass images / {255 if array.max() <= 255 else 65535}"
        raise ValueError(f"image {index} has dtype {array.dtype}, expected floats in [0, 1] or uint8 levels; {remedy}")
    return np.ascontiguousarray(floats if len(floats) == 3 else np.repeat(floats, 3, axis=0))


def _remedy_of_shape(shape: tuple[int, ...], reorder: str) -> str:
    if len(shape) == 2:
        return "add the axis of the channel, for example with image[None]"
    if len(shape) == 3 and shape[0] in (2, 4):
        return f"leave out the opacity, for example with images[:, :{shape[0] - 1}]"
    if len(shape) == 3 and shape[2] in (1, 2, 3, 4):
        colours = "" if shape[2] in (1, 3) else f"[:{shape[2] - 1}]"
        return f"put the channels first, for example with image.{reorder}(2, 0, 1){colours}"
    return "pass such an array of each image"
