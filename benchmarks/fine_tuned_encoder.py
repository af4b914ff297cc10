"""Fine-tune a small vision transformer on handwritten digits, as the paper fine-tunes DINOv2 on faces (appendix B.3.3).

    python -m benchmarks.fine_tuned_encoder FOLDER

It writes scikit-learn's digits as images to FOLDER/digits, by group (0-4 and 5-9), the configuration of a model to
FOLDER/vit.json, and runs ``egtmetrics fine-tune-encoder`` on them, which prints the held-out error and writes
FOLDER/encoder. Half a minute on one core. Killed and started again, it goes on where it was.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import transformers

from egtmetrics.cli import main
from egtmetrics.paper.datasets import load_image_data

OPTIONS = ["--epochs", "30", "--batch-size", "64", "--learning-rate", "1e-3", "--device", "cpu"]


def write_digits(folder: Path, n: int | None = None) -> None:
    """Write the first ``n`` digits as PNG files, in a subfolder for each group."""
    data = load_image_data("digits")
    for i, (image, group) in enumerate(zip(data.images[:n], data.groups[:n], strict=True)):
        subfolder = folder / data.group_names[group]
        subfolder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.rint(image[0] * 255.0).astype(np.uint8)).save(subfolder / f"{i:04}.png")


def write_configuration(path: Path, *, hidden_size: int = 64, n_layers: int = 3) -> None:
    """Write the configuration of a vision transformer for images of 8 x 8, with a token for every 2 x 2 pixels."""
    config = transformers.ViTConfig(
        hidden_size=hidden_size, num_hidden_layers=n_layers, num_attention_heads=4, intermediate_size=2 * hidden_size,
        image_size=8, patch_size=2,
    )  # fmt: skip
    config.to_json_file(path)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    write_digits(place / "digits")
    write_configuration(place / "vit.json")
    words = ["fine-tune-encoder", f"{place / 'digits'}", "--model", f"{place / 'vit.json'}", *OPTIONS]
    words += ["--out", f"{place / 'encoder'}"]
    print(f"egtmetrics {shlex.join(words)}", file=sys.stderr)
    sys.exit(main(words))
