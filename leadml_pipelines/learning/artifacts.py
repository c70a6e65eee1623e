"""The files of a model: written whole or not at all, and never read unless they are the same bytes.

A folder per model under the artifact root. Standard library only: serving imports this.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from leadml_pipelines.errors import UserError


class IntegrityError(UserError):
    """A model's file is missing or is not what was registered; the message names it."""


def write_artifact(root: Path, model_id: str, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write a model's folder, in a temporary place first, then moved to its name at once.

    Args:
        root: Folder of all artifacts; made when it is not there.
        model_id: Name of the new folder.
        files: Content by file name.

    Returns:
        SHA-256 (hex) by file name.

    Raises:
        FileExistsError: there is a folder of that name already; it is left as it is.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = root / model_id
    if final.exists():
        raise FileExistsError(f"{final} is there already, and a model's files never change")
    staging = Path(tempfile.mkdtemp(prefix=f".{model_id}.", dir=root))
    try:
        for name, content in files.items():
            with open(staging / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        staging.chmod(0o755)
        staging.rename(final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def read_artifact(uri: str, sha256: Mapping[str, str]) -> dict[str, bytes]:
    """Read a model's files and make sure that each is the one that was registered.

    Args:
        uri: `file://` address of the folder, or its path.
        sha256: SHA-256 (hex) by file name, from the registry or from the pointer in Redis.

    Raises:
        IntegrityError: a file is missing or has other bytes, or there is nothing to compare with.
    """
    folder = local_path(uri)
    if not sha256:
        raise IntegrityError(f"no SHA-256 was given for the files of {folder}; refusing to load it")
    content: dict[str, bytes] = {}
    for name, wanted in sha256.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise IntegrityError(f"{path} is missing; the model can't be loaded without it")
        content[name] = path.read_bytes()
        found = hashlib.sha256(content[name]).hexdigest()
        if found != wanted:
            raise IntegrityError(
                f"{path} has SHA-256 {found[:12]}..., but {wanted[:12]}... was registered: the "
                "file was changed or damaged; restore it, or train the model again"
            )
    return content


def local_path(uri: str) -> Path:
    """The folder that an artifact's URI points to.

    Raises:
        ValueError: the URI is not of a local folder.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path) if parts.scheme else uri)
    raise ValueError(f"{uri} is not a local folder; artifacts are file:// addresses")
