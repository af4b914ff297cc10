"""Compare the Inception-v3 of the encoders with torch-fidelity's, on random images of several sizes.

Run it with the file of the published weights, or without for random ones, where torch-fidelity is installed:

    python -m benchmarks.inception [WEIGHTS]

It prints the largest difference of a feature and, with clean-fid installed, of a resized pixel; for the tests, some
features of one image.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.run import without_torchvision
from egtmetrics.encoders import ImageEncoder
from egtmetrics.encoders._inception import resize_like_clean_fid
from tests.encoders._models import random_inception
from tests.encoders.test_networks import image_of_waves

SIZES = ((32, 32), (64, 100), (299, 299), (512, 400))


def main(weights: Path) -> None:
    without_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    peer = FeatureExtractorInceptionV3("peer", ["2048"], feature_extractor_weights_path=str(weights))
    encoder = ImageEncoder(f"inception:{weights}", device="cpu")
    rng = np.random.default_rng(0)
    for size in SIZES:
        images = rng.integers(0, 256, (4, 3, *size)).astype(np.uint8)
        with torch.inference_mode():
            expected = peer(torch.from_numpy(images))[0].numpy()
        difference = np.abs(encoder(images) - expected).max()
        print(f"{size}: features differ by {difference:.3g} at most, of up to {np.abs(expected).max():.3g}")
    try:
        from cleanfid.resize import build_resizer
    except ImportError:
        print("clean-fid is not installed; its resizing is not compared")
    else:
        for size in SIZES:
            image = rng.integers(0, 256, (3, *size)).astype(np.uint8)
            expected = build_resizer("clean")(image.transpose(1, 2, 0)).transpose(2, 0, 1)
            resized = resize_like_clean_fid(torch.from_numpy(image).float()[None])[0].numpy()
            print(f"{size}: resized pixels differ by {np.abs(resized - expected).max():.3g} at most")
    with torch.inference_mode():
        features = peer(torch.from_numpy(image_of_waves()[None]))[0][0].numpy()
    print("of one image:", [round(float(value), 6) for value in features[::400]])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else random_inception(Path(folder, "weights.pth")))
