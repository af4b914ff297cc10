"""Write small files of every form that the commands read, for docs/data.md: ``python examples/sources.py``."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image

GENDERS = ("f", "m", "f", "m")


def write(folder: Path) -> None:
    """Write four pictures and two texts, in every form, into a folder."""
    rng = np.random.default_rng(0)
    pictures = [PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in GENDERS]
    files = [_png(picture) for picture in pictures]
    rows = [
        {"file_name": f"faces/{gender}/{i}.png", "gender": gender, "age": 20 + 10 * (i // 2)}
        for i, gender in enumerate(GENDERS)
    ]
    for row, file in zip(rows, files, strict=True):
        _put(folder / str(row["file_name"]), file)
    shutil.make_archive(str(folder / "faces"), "zip", folder / "faces")
    _write_tables(folder, rows)
    for shard in range(2):
        with tarfile.open(folder / f"faces-{shard}.tar", "w") as archive:
            for i in (2 * shard, 2 * shard + 1):
                described = json.dumps({"gender": GENDERS[i]}).encode()
                for suffix, data in (("png", files[i]), ("json", described), ("cls", b"01"[i % 2 : i % 2 + 1])):
                    member = tarfile.TarInfo(f"{i:05}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    _write_faces(folder, files)
    _write_data_sets(folder, files)


def _png(picture: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_tables(folder: Path, rows: list[dict[str, object]]) -> None:
    with (folder / "faces.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    renamed = [{"path" if key == "file_name" else key: value for key, value in row.items()} for row in rows]
    texts = [{"text": "She was a chemist.", "gender": "f"}, {"text": "He was a chemist.", "gender": "m"}]
    for name, lines in (("faces.jsonl", renamed), ("bios.jsonl", texts)):
        (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _write_faces(folder: Path, files: list[bytes]) -> None:
    """Write pictures under the names of CelebA and FFHQ, with files of labels in their forms."""
    for i, data in enumerate(files):
        _put(folder / "img_align_celeba" / f"{i:06}.jpg", data)
        _put(folder / "images1024x1024" / "00000" / f"{i:05}.png", data)
        face = [{"faceAttributes": {"gender": "female" if GENDERS[i] == "f" else "male"}}]
        _put(folder / "json" / f"{i:05}.json", json.dumps(face).encode())
    lines = [str(len(files)), "Male Young", *(f"{i:06}.jpg {(-1, 1)[i % 2]:2}  1" for i in range(len(files)))]
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines))
    known = {str(i): {"category": ("training", "validation")[i % 2], "metadata": {"country": ""}} for i in range(4)}
    (folder / "ffhq-dataset-v2.json").write_text(json.dumps(known))


def _write_data_sets(folder: Path, files: list[bytes]) -> None:
    """Write data sets of ``datasets``, if it is installed."""
    try:
        import datasets
    except ImportError:
        return
    features = datasets.Features({"image": datasets.Image(), "gender": datasets.ClassLabel(names=["f", "m"])})
    rows = {"image": [{"bytes": data, "path": None} for data in files], "gender": [0, 1, 0, 1]}
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(str(folder / "faces_saved"))
    (folder / "faces_repo").mkdir(exist_ok=True)
    data.to_parquet(str(folder / "faces_repo" / "train.parquet"))


if __name__ == "__main__":
    write(Path.cwd())
