"""The files of a model: written whole or not at all, and never read unless they are the same bytes.

A folder per model. `manifest.json` holds every fact and the SHA-256 of every other file;
`manifest.sig` is the HMAC-SHA256 of the manifest's bytes. Nothing is parsed before the signature is
right, and nothing but the manifest before every file has its hash. Serving imports this.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.registry.artifact_stores import open_store
from leadml_pipelines.learning.registry.signing import is_signed, sign
from leadml_pipelines.learning.registry.store_contract import (
    LAST_FILE,
    ArtifactStore,
    is_file_name,
)

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = LAST_FILE

MOST_BYTES = 2**29
"""Of a model's files together (512 MiB): they are read into the memory of the app, which serves the
last good model from it meanwhile. 600 trees of depth 8 over 48 features take 7 MiB."""
MOST_MANIFEST_BYTES = 2**24
"""Of the manifest (16 MiB), which is read before anybody knows who wrote it."""


class IntegrityError(UserError):
    """A model's file is missing or is not what was registered; the message names it."""


class OversizedError(UserError):
    """A model whose files are too large to be loaded."""


class Written(NamedTuple):
    """What `write_artifact` wrote.

    Attributes:
        uri: Address of the folder.
        sha256: SHA-256 (hex) by file name, the manifest's too.
    """

    uri: str
    sha256: dict[str, str]

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 (hex) of the manifest."""
        return self.sha256[MANIFEST_FILE]


class Artifact(NamedTuple):
    """A model's folder, verified.

    Attributes:
        manifest: All facts, without the hashes.
        files: Content by file name, without manifest and signature.
    """

    manifest: dict[str, Any]
    files: dict[str, bytes]


def write_artifact(
    store: ArtifactStore,
    model_id: str,
    files: Mapping[str, bytes],
    manifest: Mapping[str, Any],
    key: bytes,
) -> Written:
    """Write a model's folder, whole or not at all.

    Args:
        store: Where to.
        model_id: Name of the new folder.
        files: Content by file name.
        manifest: All facts, JSON-ready.
        key: Signs the manifest.

    Raises:
        FileExistsError: there is a folder of that name already; it is left as it is.
        OversizedError: nobody could load it.
        ArtifactStoreError: the store can't be reached, has no room, or does not let us.
        ValueError: a file name is none, or is the manifest's; or the manifest has no JSON.
    """
    for name in files:
        if not is_file_name(name) or name in (MANIFEST_FILE, SIGNATURE_FILE):
            raise ValueError(f"{name!r} can't be the name of a model's file")
    sha256 = {name: _digest(content) for name, content in files.items()}
    document = json.dumps(
        {**manifest, "files": sha256}, sort_keys=True, ensure_ascii=False, allow_nan=False
    ).encode()
    size = sum(map(len, files.values()))
    if size > MOST_BYTES or len(document) > MOST_MANIFEST_BYTES:
        raise OversizedError(
            f"the files of {model_id} take {_mib(size)} and its manifest {_mib(len(document))}, "
            f"but no more than {_mib(MOST_BYTES)} and {_mib(MOST_MANIFEST_BYTES)} are loaded; "
            "train with fewer or smaller trees, or fewer features"
        )
    signed = {MANIFEST_FILE: document, SIGNATURE_FILE: sign(key, document).encode()}
    store.write(model_id, {**files, **signed})
    return Written(store.uri(model_id), {**sha256, MANIFEST_FILE: _digest(document)})


def load_artifact(uri: str, key: bytes | None, manifest_sha256: str | None = None) -> Artifact:
    """Read a model's folder and make sure that it is what was registered, to the last byte.

    Args:
        uri: Address of the folder.
        key: The key that it was signed with.
        manifest_sha256: SHA-256 (hex) of the manifest, from the registry or from the pointer in
            Redis: without it, any signed model would do.

    Raises:
        IntegrityError: no key; or a file is missing, was changed, is not listed, is too large to
            be read, or leaves the folder; or the signature is not of this key.
        OSError: the store can't be reached.
    """
    _, artifact = _verified(uri, key, manifest_sha256)
    return artifact


def resign_artifact(uri: str, old: bytes, new: bytes, manifest_sha256: str | None = None) -> bool:
    """Sign a model's folder with another key, after verifying it with the one so far.

    Only the signature changes, so that the manifest's SHA-256 stays what it is.

    Returns:
        Whether it was signed; not if the other key had signed it before.

    Raises:
        IntegrityError: the folder is not what either key signed.
        OSError: the store can't be reached.
    """
    try:
        document, _ = _verified(uri, old, manifest_sha256)
    except IntegrityError:
        try:
            _verified(uri, new, manifest_sha256)
        except IntegrityError:
            pass  # what the old key says tells more
        else:
            return False
        raise
    store, model_id = folder_of(uri)
    store.replace(model_id, SIGNATURE_FILE, sign(new, document).encode())
    return True


def folder_of(uri: str) -> tuple[ArtifactStore, str]:
    """The store of a model's folder, and its name there.

    Raises:
        IntegrityError: it is no address of one.
        ArtifactStoreError: nobody here can open it.
    """
    parent, _, model_id = uri.rstrip("/").rpartition("/")
    if not parent or not is_file_name(model_id):
        raise IntegrityError(f"{uri} is no address of a model's folder")
    return open_store(parent), model_id


def _verified(uri: str, key: bytes | None, manifest_sha256: str | None) -> tuple[bytes, Artifact]:
    """The manifest's bytes, and the folder, verified."""
    store, model_id = folder_of(uri)
    if not key:
        raise IntegrityError(
            f"without a signing key {uri} can't be verified and is not loaded; set "
            "LEADML_SIGNING_KEY to the key that signed it"
        )
    sizes = store.sizes(model_id)
    signed = _read(store, model_id, [MANIFEST_FILE, SIGNATURE_FILE], sizes, MOST_MANIFEST_BYTES)
    document = signed[MANIFEST_FILE]
    where = f"{uri}/{MANIFEST_FILE}"
    if not is_signed(key, document, signed[SIGNATURE_FILE].strip().decode("ascii", "replace")):
        raise IntegrityError(
            f"{where} is not signed with this signing key: it was changed, or signed with another "
            "key; restore it, or set the LEADML_SIGNING_KEY that signed it, or after a change of "
            "keys run `leadml models resign`"
        )
    if manifest_sha256 is not None:
        _compare(where, document, manifest_sha256)
    manifest: dict[str, Any] = json.loads(document)
    wanted: dict[str, str] = manifest.pop("files", {})
    leaving = [name for name in wanted if not is_file_name(name)]
    if leaving:
        raise IntegrityError(f"{where} lists {leaving[0]!r}, which is no file of its folder")
    unlisted = set(sizes) - set(wanted) - set(signed)
    if unlisted:
        raise IntegrityError(
            f"{uri}/{min(unlisted)} is not listed in the manifest, so nobody registered it; "
            "remove it, or train the model again"
        )
    files = _read(store, model_id, list(wanted), sizes, MOST_BYTES)
    for name, content in files.items():
        _compare(f"{uri}/{name}", content, wanted[name])
    return document, Artifact(manifest, files)


def _read(
    store: ArtifactStore, model_id: str, names: list[str], sizes: Mapping[str, int], most: int
) -> dict[str, bytes]:
    """Files of a folder, if together they are not larger than they may be.

    Args:
        store: Where the folder is.
        model_id: The folder.
        names: The files.
        sizes: Bytes of every file that is there; no more than these are read.
        most: Bytes that are read.
    """
    missing = [name for name in names if name not in sizes]
    size = sum(sizes[name] for name in names if name in sizes)
    if not missing and size > most:
        raise IntegrityError(
            f"{', '.join(names)} of {store.uri(model_id)} take {_mib(size)}, but no more than "
            f"{_mib(most)} are read, so no such model was registered: the files were changed; "
            "restore them, or train the model again"
        )
    try:
        if missing:
            raise FileNotFoundError(missing[0])
        return store.read(model_id, {name: sizes[name] for name in names})
    except FileNotFoundError as error:
        raise IntegrityError(
            f"{store.uri(model_id)}/{error.args[0]} is missing; the model can't "
            "be loaded without it: restore it, or train the model again"
        ) from None


def _compare(where: str, content: bytes, wanted: str) -> None:
    found = _digest(content)
    if not hmac.compare_digest(found.encode(), str(wanted).encode()):
        raise IntegrityError(
            f"{where} has SHA-256 {found[:12]}..., but {str(wanted)[:12]}... was registered: the "
            "file was changed or damaged; restore it, or train the model again"
        )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
