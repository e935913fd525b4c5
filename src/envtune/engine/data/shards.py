"""A split on disk, as datasets.Dataset.save_to_disk writes it and load_from_disk reads it."""

import json
import os
from pathlib import Path
from typing import Any

from envtune.artifacts import checkpoints
from envtune.engine.data.spill import Rows
from envtune.engine.data.types.made import ids_of

# Bytes of a shard, as datasets has it.
_SHARD = 500 << 20
_MASKED = -100
# What datasets loads a folder by.
DESCRIPTIONS = ("dataset_info.json", "state.json")
# Axolotl's, but for labels, which it keeps in twice the bytes: a third of what is written.
_TYPES = {
    "input_ids": "int32",
    "attention_mask": "int8",
    "labels": "int32",
    "position_ids": "int64",
}
_BYTES = {"int8": 1, "int32": 4, "int64": 8}


def write(folder: Path, rows: Rows, order: Any, mark: str, *, packed: bool) -> list[dict[str, Any]]:
    """Writes the rows of `order`. `mark`: 16 hexadecimal digits that tell one content from another.

    Returns each shard's file, rows, size and digest.
    """
    import numpy as np

    folder.mkdir(parents=True)
    columns = [c for c in _TYPES if packed or c != "position_ids"]
    tokens = int(rows.table["kept"][order].sum(dtype="i8"))
    size = tokens * sum(_BYTES[_TYPES[c]] for c in columns)
    pieces = np.array_split(order, max(1, -(-size // _SHARD)))
    names = [f"data-{i:05d}-of-{len(pieces):05d}.arrow" for i in range(len(pieces))]
    try:
        shards = [
            {"file": f"{folder.name}/{name}", **_write(folder / name, rows, piece, columns)}
            for name, piece in zip(names, pieces, strict=True)
        ]
    except OSError as error:
        error.add_note(f"{folder.name} needs {size:,}")
        raise
    _describe(folder, columns, names, mark)
    checkpoints.sync_folder(folder)
    return shards


def _write(path: Path, rows: Rows, order: Any, columns: list[str]) -> dict[str, Any]:
    import pyarrow as pa

    fields = [pa.field(c, _list(c)) for c in columns]
    if "position_ids" in columns:
        fields.append(pa.field("length", pa.int64()))
    schema = pa.schema(fields)
    with _Hashed(path) as stream:
        with pa.ipc.new_stream(pa.PythonFile(stream, "w"), schema) as writer:
            for flat, lengths in rows.read(order):
                arrays = _arrays(flat, lengths, columns)
                writer.write_batch(pa.record_batch(arrays, schema=schema))
        return {"rows": len(order), **stream.told()}


def _arrays(flat: Any, lengths: Any, columns: list[str]) -> list[Any]:
    """The columns of some rows."""
    import numpy as np
    import pyarrow as pa

    ends = np.cumsum(lengths)
    offsets = pa.py_buffer(np.concatenate([[0], ends]).astype(np.int32))
    made = {
        "input_ids": ids_of(flat),
        "attention_mask": np.ones(len(flat), np.int8),
        "labels": np.where(flat < 0, np.int32(_MASKED), flat),
    }
    if "position_ids" in columns:
        made["position_ids"] = np.arange(len(flat)) - np.repeat(ends - lengths, lengths)
    lists = [
        pa.Array.from_buffers(_list(c), len(lengths), [None, offsets], children=[_plain(made[c])])
        for c in columns
    ]
    return [*lists, *([_plain(lengths)] if "position_ids" in columns else [])]


def _list(column: str) -> Any:
    import pyarrow as pa

    return pa.list_(pa.type_for_alias(_TYPES[column]))


def _plain(numbers: Any) -> Any:
    """Numbers of numpy as Arrow's; pyarrow.array does it too, and imports pandas for it."""
    import pyarrow as pa

    kind = pa.type_for_alias(str(numbers.dtype))
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def _describe(folder: Path, columns: list[str], names: list[str], mark: str) -> None:
    features: dict[str, Any] = {
        c: {"feature": {"dtype": _TYPES[c], "_type": "Value"}, "_type": "List"} for c in columns
    }
    if "position_ids" in columns:
        features["length"] = {"dtype": "int64", "_type": "Value"}
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": mark,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train" if folder.name == "train" else "test",
    }
    for name, said in zip(DESCRIPTIONS, (info, state), strict=True):
        with (folder / name).open("w") as stream:
            json.dump(said, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())


class _Hashed:
    """A file that counts and digests what is written to it, and is on the disk when it closes."""

    closed = False

    def __init__(self, path: Path) -> None:
        import xxhash

        self.stream = path.open("wb")
        self.digest, self.size = xxhash.xxh3_128(), 0

    def __enter__(self) -> "_Hashed":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        count = self.stream.write(data)
        self.size += count
        return count

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        if not self.stream.closed:
            self.stream.flush()
            os.fsync(self.stream.fileno())
            self.stream.close()

    def told(self) -> dict[str, Any]:
        return {"bytes": self.size, "xxh3": self.digest.hexdigest()}


def is_whole(path: Path, shard: dict[str, Any]) -> bool:
    """Whether a shard is what was written."""
    import xxhash

    if not path.is_file() or path.stat().st_size != shard["bytes"]:
        return False
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 22):
            digest.update(piece)
    return bool(digest.hexdigest() == shard["xxh3"])
