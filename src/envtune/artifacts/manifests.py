"""The manifest of a checkpoint: what it says of each file, and whether that is still so.

It comes last, so that one with files in it tells of a whole checkpoint; one without tells of a
half. Sizes alone pass over what a disk does to bytes, so that a resume compares digests too.
What is not there or not as it was is damage; what cannot be read at the moment is an OSError.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import weights

MANIFEST = "envtune.json"
_STATE = "trainer_state.json"
_PART = 1 << 20
# An error that tells of what lies there, and not of a volume or a permission.
_DAMAGE = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO,
    errno.EFBIG, errno.ENAMETOOLONG,
)  # fmt: skip
# Names that a loader looks for, and takes before others: one more of them is another checkpoint.
_LOADED = re.compile(
    r"(adapter_|pytorch_|fsdp_)?(model|config)[\w.-]*\.(safetensors|bin|pt)(\.index\.json)?\Z"
    r"|adapter_config\.json\Z|(optimizer|scheduler|scaler|rng_state)\S*\.(pt|pth|bin)\Z"
)
_LOADED_FOLDERS = re.compile(r"pytorch_model_fsdp|optimizer")


def tells_of_damage(error: OSError) -> bool:
    """Whether a file is not what it was, where it is not the volume that fails."""
    return error.errno in _DAMAGE


def write(folder: Path, step: int, run: str) -> None:
    """Syncs every file of a checkpoint and writes its manifest last. `run` is the run's key."""
    told = {}
    for name, path in sorted(_listed(folder).items()):
        if name != MANIFEST:
            size, digest = _digest(path, sync=True)
            told[name] = {"bytes": size, "xxh3": digest, **_tensors(path)}
    files.write_json(folder / MANIFEST, {"step": step, "run": run, "files": told})


def _tensors(path: Path) -> dict[str, Any]:
    """Of a file of weights the dtype and shape of each tensor, as its header says."""
    if path.suffix != ".safetensors":
        return {}
    try:
        entries = weights.header(path)
    except weights.UNREADABLE:
        return {}  # what a training saves is looked at before
    return {"tensors": {name: [e["dtype"], *e["shape"]] for name, e in sorted(entries.items())}}


def read(folder: Path) -> Any:
    """What a manifest holds; None where it holds no JSON. Raises OSError."""
    if not stat.S_ISREG((folder / MANIFEST).lstat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(folder / MANIFEST))
    try:
        return files.read_json(folder / MANIFEST)
    except ValueError:
        return None


def is_missing(folder: Path) -> bool:
    """Whether a folder has no manifest at all. Raises OSError where that cannot be told."""
    try:
        (folder / MANIFEST).lstat()
    except FileNotFoundError:
        return True
    return False


def sizes(folder: Path) -> Mapping[str, int]:
    """The bytes of each file. Raises OSError, or LookupError or TypeError for no manifest."""
    told = read(folder)["files"]
    return {name: each["bytes"] if isinstance(each, dict) else each for name, each in told.items()}


def is_half(folder: Path) -> bool:
    """Whether a checkpoint was begun and never committed."""
    try:
        told = read(folder)
    except OSError:
        return False
    return isinstance(told, dict) and "files" not in told and isinstance(told.get("step"), int)


def has_digests(folder: Path) -> bool:
    """Whether a whole checkpoint has them: those of earlier versions have sizes alone."""
    return all(isinstance(each, dict) for each in read(folder)["files"].values())


def problem(folder: Path, step: int, run: str) -> str | None:
    """The first thing that is not as it was when it was committed, every byte compared.

    Raises OSError where something cannot be read, which is no damage.
    """
    try:
        return next(_problems(folder, step, run), None)
    except OSError as error:
        if not tells_of_damage(error):
            raise
        name = os.path.relpath(error.filename, folder) if error.filename else folder.name
        return f"{folder.name if name == '.' else name}: {error.strerror}"


def _problems(folder: Path, step: int, run: str) -> Iterator[str]:
    if folder.is_symlink() or not folder.is_dir():
        yield f"{folder.name} is no folder"
        return
    manifest = read(folder)
    if (wrong := _wrong(manifest, step, run)) is not None:
        yield f"{MANIFEST} {wrong}"
        return
    there = _listed(folder)
    for name, told in manifest["files"].items():
        yield from _changed(there.get(name), name, told)
    if _STATE in manifest["files"] and not _is_of(folder / _STATE, step):
        yield f"{_STATE} is not of step {step}"
    for name in sorted(there.keys() - manifest["files"].keys()):
        if _LOADED.match(Path(name).name):
            yield f"{name} was not there"
    kept = {str(parent) for name in manifest["files"] for parent in Path(name).parents}
    for name in _folders(folder):
        if name not in kept and _LOADED_FOLDERS.search(name):
            yield f"{name} was not there"


def _is_of(state: Path, step: int) -> bool:
    """Whether the Trainer's own account, which is read before all else, is one and of a step."""
    try:
        return bool(files.read_json(state)["global_step"] == step)
    except (ValueError, LookupError, TypeError):
        return False


def _wrong(manifest: Any, step: int, run: str) -> str | None:
    """What a manifest is not that it should be."""
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return "is no manifest"
    if not manifest["files"] or not all(map(_tells, manifest["files"].values())):
        return "names no files"
    if manifest.get("step") != step:
        return f"is of step {manifest.get('step')}"
    return "is of another run" if run and manifest.get("run", run) != run else None


def _tells(entry: Any) -> bool:
    """Digest and size, or the size alone as earlier versions wrote it."""
    if isinstance(entry, dict):
        return isinstance(entry.get("bytes"), int) and isinstance(entry.get("xxh3"), str)
    return isinstance(entry, int)


def _changed(path: Path | None, name: str, told: Any) -> Iterator[str]:
    if path is None:
        yield f"{name} is missing"
    elif not stat.S_ISREG((found := path.lstat()).st_mode):
        yield f"{name} is no file any more"
    elif found.st_size != (told["bytes"] if isinstance(told, dict) else told):
        yield f"{name} has another size than it was written with"
    elif isinstance(told, dict):
        if "tensors" in told and (other := _other_tensors(path, told["tensors"])):
            yield f"{name} {other}"
        if _digest(path)[1] != told["xxh3"]:
            yield f"{name} has other bytes than it was written with"


def _other_tensors(path: Path, told: Any) -> str:
    """What tells another model's weights from damaged ones: names, dtypes and shapes."""
    found = _tensors(path).get("tensors", {})
    if not isinstance(told, dict) or found.keys() != told.keys():
        return "has other tensors than it was written with"
    other = next((name for name in found if found[name] != told[name]), None)
    return f"has {other} as {found[other]}, and not as {told[other]}" if other else ""


def _digest(path: Path, *, sync: bool = False) -> tuple[int, str]:
    """Bytes and xxh3-128 of a file, which is on the disk then if `sync`."""
    import xxhash

    size, digest = 0, xxhash.xxh3_128()
    with path.open("rb") as stream:
        if sync:
            os.fsync(stream.fileno())
        while part := stream.read(_PART):
            size += len(part)
            digest.update(part)
    return size, digest.hexdigest()


def _listed(folder: Path) -> dict[str, Path]:
    """Everything below a folder that is no folder, by its name from there. Raises OSError."""
    found = {}
    for root, inner, names in os.walk(folder, onerror=_raise):
        links = [name for name in inner if os.path.islink(os.path.join(root, name))]
        for path in (Path(root) / name for name in (*names, *links)):
            found[str(path.relative_to(folder))] = path
    return found


def _folders(folder: Path) -> list[str]:
    walked = os.walk(folder, onerror=_raise)
    return sorted(
        os.path.relpath(os.path.join(r, name), folder) for r, ns, _ in walked for name in ns
    )


def _raise(error: OSError) -> None:
    raise error
