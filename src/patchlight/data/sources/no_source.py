"""Files that are given as a source and are none: what is to be done with each kind."""

from __future__ import annotations

from pathlib import Path

from patchlight.data.sources.idx import NAME
from patchlight.data.sources.tree import SUFFIXES

LIST = "a CSV file with the columns image and label"
STORE = "store its images and labels as arrays (np.savez), or as files in class folders"

# By the suffixes of files: what to do. Pickles, which may run code, are never opened.
FIXES = {
    ".json": 'write it as JSON Lines (.jsonl), a line for each image as {"image": "a.png", "label": "cat"}; boxes, as '
    "COCO has them, are no classes of images",
    ".txt .lst .data": f"write it as {LIST}",
    ".xlsx .xls .ods": f"save it as {LIST}",
    ".pkl .pickle .joblib": f"pickles may run code and are not opened: {STORE}",
    ".pt .pth .ckpt .safetensors": f"it may hold tensors or a model, and is not opened: {STORE}",
    ".h5 .hdf5 .hdf": f"HDF5 is not read: {STORE}",
    ".tfrecord .tfrecords .lmdb .mdb .rec": "it is not read: store its images as files in class folders, as shards of "
    "WebDataset or as Parquet",
    ".arrow .feather": "give the folder that `datasets` saved, or store the table as Parquet",
    ".xml .yaml .yml": f"give the folder of the images, or {LIST}",
}


def what_to_do(path: Path) -> str:
    """The sentence for a file that is no data source."""
    found = NAME.match(path.name)
    suffix = path.suffix.lower()
    if found and found["what"].lower() == "labels":
        return f"{path} holds labels alone; give the file of the images beside it, or their folder, as the source"
    if suffix in SUFFIXES:
        return f"{path} is one image; give the folder that holds the class folders as the source"
    fix = next((fix for suffixes, fix in FIXES.items() if suffix and suffix in suffixes.split()), None)
    return f"{path} is a file that is no data source; " + (
        fix
        or "a source is a folder of class folders, a list (.csv, .jsonl), Parquet, an archive, arrays (.npz) or one of "
        "the others that docs/data.md lists"
    )
