"""Finished training sets on disk: rows, and what they follow from, under their own hash.

`<root>/<name>/<first 16 of the hash>/` holds `rows.parquet` and `manifest.json`, and never changes:
another content is another folder. `<root>/<name>/latest` names the one that was saved last. The
hash is the SHA-256 of the definition and of the rows as Parquet, so that whoever builds the set
again from the same data, with the same versions of pandas and pyarrow, gets the same hash.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadml_pipelines.errors import UserError
from leadml_pipelines.times import from_micros, to_micros, utc_now

if TYPE_CHECKING:
    import pandas as pd

_ROWS, _MANIFEST, _LATEST = "rows.parquet", "manifest.json", "latest"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_OWN = ("hash", "name", "definition", "rows", "rows_sha256", "saved_at")
"""Members of a manifest that are no facts."""


class SavedSetError(UserError, ValueError):
    """A saved set that can't be written or read; the sentence names it."""


class NoSavedSetError(UserError, FileNotFoundError):
    """There is no saved set of a name."""


@dataclass(frozen=True)
class SavedSet:
    """A training set on disk.

    Attributes:
        name: What it was saved as.
        hash: SHA-256 of definition and rows; the same content saved twice is one set.
        path: Its folder.
        rows: Number of rows.
        definition: What the rows follow from.
        facts: What else is known of it, such as the extract it was built from; not in the hash.
        saved_at: When it was first saved.
    """

    name: str
    hash: str
    path: Path
    rows: int
    definition: Mapping[str, Any]
    facts: Mapping[str, Any]
    saved_at: datetime


def save_set(
    root: Path,
    name: str,
    frame: pd.DataFrame,
    definition: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
) -> SavedSet:
    """Write a set below `root`, once, and mark it as the newest of its name.

    Nothing is ever written over: a set of the same definition and rows is there already and stays
    as it is, facts included, and any other gets a folder of its own.

    Args:
        root: Folder of the sets.
        name: Letters, digits, `_`, `-` and `.`.
        frame: The rows; its index is kept unless it is 0, 1, 2, ...
        definition: What the rows follow from, as JSON; part of the hash.
        facts: What else to keep, as JSON.

    Raises:
        SavedSetError: the name can't be a folder's, or a column can't be written as Parquet.
    """
    if not _NAME.fullmatch(name):
        raise SavedSetError(
            f"a training set can't be named {name!r}; use up to 63 letters, digits, _, - and ."
        )
    content = parquet(frame)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    hash_ = _hash(content, definition)
    manifest = {
        "hash": hash_,
        "name": name,
        "definition": dict(definition),
        "rows": len(frame),
        "rows_sha256": hashlib.sha256(content).hexdigest(),
        "saved_at": to_micros(utc_now()),
        **{fact: value for fact, value in (facts or {}).items() if fact not in _OWN},
    }
    final = folder / hash_[:16]
    staging = Path(tempfile.mkdtemp(prefix=".saving.", dir=folder))
    try:
        (staging / _ROWS).write_bytes(content)
        (staging / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        staging.chmod(0o755)
        if not final.exists():
            staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    mark = folder / f".{_LATEST}.{os.getpid()}"
    mark.write_text(final.name, encoding="utf-8")
    mark.replace(folder / _LATEST)
    return describe_set(final)


def list_sets(root: Path, name: str | None = None) -> list[SavedSet]:
    """The sets below `root`, of one name or of all, oldest first."""
    found = root.glob(f"{'[!.]*' if name is None else name}/[!.]*/{_MANIFEST}")
    return sorted((describe_set(path.parent) for path in found), key=lambda s: (s.saved_at, s.hash))


def find_set(root: Path, name: str, hash_: str | None = None) -> SavedSet:
    """The set of a name that was saved last, or the one whose hash begins so.

    Raises:
        NoSavedSetError: there is none.
        SavedSetError: several hashes begin so.
    """
    if hash_ is None:
        mark = root / name / _LATEST
        if not mark.exists():
            raise NoSavedSetError(f"there is no training set of {name} under {root}")
        return describe_set(mark.parent / mark.read_text(encoding="utf-8"))
    found = [saved for saved in list_sets(root, name) if saved.hash.startswith(hash_)]
    if not found:
        raise NoSavedSetError(f"there is no training set of {name} with hash {hash_} under {root}")
    if len(found) > 1:
        raise SavedSetError(f"{len(found)} training sets of {name} begin with {hash_}; give more")
    return found[0]


def describe_set(path: Path) -> SavedSet:
    """What the manifest in a folder tells."""
    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    counts = manifest.get("counts", {})
    return SavedSet(
        # Sets that were saved before names and rows had members of their own.
        name=manifest.get("name", path.parent.name),
        hash=manifest["hash"],
        path=path,
        rows=manifest.get("rows", counts.get("rows", 0)),
        definition=manifest["definition"],
        facts={fact: value for fact, value in manifest.items() if fact not in _OWN},
        saved_at=from_micros(manifest["saved_at"]),
    )


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of the set in a folder, with the types and the index they were saved with.

    Raises:
        SavedSetError: they are not the ones that were saved.
    """
    import pandas as pd

    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    content = (path / _ROWS).read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest["rows_sha256"]:
        raise SavedSetError(
            f"{path / _ROWS} was changed after it was saved; build the training set again"
        )
    return pd.read_parquet(io.BytesIO(content))


def set_hash(frame: pd.DataFrame, definition: Mapping[str, Any]) -> str:
    """The hash under which a set would be saved."""
    return _hash(parquet(frame), definition)


def _hash(content: bytes, definition: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode())
    digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def parquet(frame: pd.DataFrame) -> bytes:
    """A frame as Parquet, the same bytes for the same content.

    Raises:
        SavedSetError: a column holds what Parquet has no type for; the sentence names it.
    """
    import pandas as pd
    import pyarrow as pa

    plain = pd.RangeIndex(len(frame))
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=not (frame.index.equals(plain) and not frame.index.name))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
        raise SavedSetError(f"these rows can't be saved as Parquet: {error}") from error
    return buffer.getvalue()
