"""Models' folders wherever fsspec reaches: S3, GCS, Azure, SFTP.

An object store has no rename: there the files are written in order, and `manifest.sig`, the last,
makes the folder whole. Every file is made only where there is none of its name, so that of two who
write one folder at most one comes to the end, and neither spoils what the other wrote.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from leadml_pipelines.learning.registry.store_contract import (
    LAST_FILE,
    ArtifactStoreError,
    StoredFolder,
    already_there,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci"})
"""They have no folders to be made; asked for one, some make a bucket, be its name mistyped."""


def require_known(url: str) -> None:
    """Make sure that an address can be opened here; nothing is asked of the store.

    Raises:
        ArtifactStoreError: fsspec does not know the address, or lacks a package for it.
    """
    from fsspec import get_filesystem_class

    try:
        get_filesystem_class(urlsplit(url).scheme)
    except (ImportError, ValueError) as error:
        raise ArtifactStoreError(
            f"{url} can't be opened: {error}; install the package of that store "
            '(`pip install "leadml[s3]"` for s3://, gcsfs for gs://, adlfs for az://), or mend '
            "LEADML_ARTIFACTS_URL"
        ) from error


class FsspecStore:
    """Folders below an address of fsspec.

    Args:
        url: Such as `s3://bucket/models`; credentials come from the environment.

    Raises:
        ArtifactStoreError: fsspec does not know the address, or the store does not answer as it
            should.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        require_known(url)
        self._url = url.rstrip("/")
        self._is_object_store = urlsplit(url).scheme in _OBJECT_STORES
        with self._reached():  # some connect at once
            filesystem, path = url_to_fs(self._url)
        self._files: AbstractFileSystem = filesystem
        self._path = path.rstrip("/")

    def uri(self, folder: str) -> str:
        """As in `ArtifactStore`."""
        return f"{self._url}/{folder}"

    def exists(self, folder: str) -> bool:
        """As in `ArtifactStore`."""
        return bool(self.sizes(folder))

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        """As in `ArtifactStore`."""
        if self.exists(folder):
            raise already_there(self.uri(folder))
        made: list[str] = []
        with self._reached():
            if not self._is_object_store:
                self._files.makedirs(self._place(folder), exist_ok=True)
            try:
                for name, content in files.items():
                    self._files.pipe_file(self._place(folder, name), content, mode="create")
                    made.append(self._place(folder, name))
            except BaseException as error:
                if made:
                    self._files.rm(made)
                if isinstance(error, FileExistsError):
                    raise already_there(self.uri(folder)) from error
                raise

    def replace(self, folder: str, name: str, content: bytes) -> None:
        """As in `ArtifactStore`."""
        with self._reached():
            self._files.pipe_file(self._place(folder, name), content)

    def sizes(self, folder: str) -> dict[str, int]:
        """As in `ArtifactStore`."""
        found = self._found(self._place(folder))
        return {name: int(info["size"]) for name, info in found.items()}

    def read(self, folder: str, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """As in `ArtifactStore`."""
        # Nothing can be asked for no bytes; the others all at once: a round trip to an object
        # store takes tens of milliseconds.
        asked = {name: size for name, size in sizes.items() if size > 0}
        with self._reached():
            found = self._files.cat_ranges(
                [self._place(folder, name) for name in asked],
                [0] * len(asked),
                list(asked.values()),
                on_error="return",
            )
        content = dict.fromkeys(sizes, b"")
        for name, value in zip(asked, found, strict=True):
            if isinstance(value, FileNotFoundError):
                raise FileNotFoundError(name)
            if not isinstance(value, bytes):
                with self._reached():
                    raise value
            content[name] = value
        return content

    def folders(self) -> list[StoredFolder]:
        """As in `ArtifactStore`."""
        found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        for path, info in self._found(self._path).items():
            folder, _, name = path.partition("/")
            if name:
                found[folder][name] = info
        return [
            StoredFolder(
                folder,
                sum(int(info["size"]) for info in infos.values()),
                LAST_FILE in infos,
                max(filter(None, map(_changed_at, infos.values())), default=None),
            )
            for folder, infos in sorted(found.items())
        ]

    def delete(self, folder: str) -> None:
        """As in `ArtifactStore`."""
        if not self.exists(folder):
            return
        with self._reached():
            self._files.rm(self._place(folder), recursive=True)

    def _found(self, place: str) -> dict[str, dict[str, Any]]:
        """What the store tells of all files below a place, by their path from there."""
        with self._reached():
            self._files.invalidate_cache()
            try:
                found = self._files.find(place, detail=True)
            except FileNotFoundError:
                if self._is_object_store:  # it has no folders: the bucket is not there
                    raise
                return {}
        start = len(place) + 1
        # A store that pretends to have folders may list an empty object for one.
        return {path[start:]: info for path, info in found.items() if path[start:]}

    def _place(self, *parts: str) -> str:
        return "/".join((self._path, *parts))

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Every store has errors of its own; they become one that says what helps.

        Of theirs only the kind is told: messages of stores may hold keys.
        """
        try:
            yield
        except (ArtifactStoreError, FileExistsError):
            raise
        except PermissionError as error:
            raise ArtifactStoreError(
                f"{self._url} refused the credentials of this process, or they may not do this "
                "there; mend them where the store's own tools take them, as in AWS_ACCESS_KEY_ID "
                "and AWS_SECRET_ACCESS_KEY, and see that they may list, read, write and delete"
            ) from error
        except Exception as error:
            if isinstance(error, FileNotFoundError) and self._is_object_store:
                bucket = self._url.split("://", 1)[1].partition("/")[0]
                raise ArtifactStoreError(
                    f"there is no bucket {bucket} for {self._url}; make it, or mend "
                    "LEADML_ARTIFACTS_URL"
                ) from error
            raise ArtifactStoreError(
                f"{self._url} did not answer as it should ({type(error).__name__}); check that "
                "the store is up and that this process has credentials for it"
            ) from error


def _changed_at(info: Mapping[str, Any]) -> datetime | None:
    """When a file was written; every store has a word of its own for it."""
    for word in ("LastModified", "last_modified", "mtime", "created"):
        told = info.get(word)
        if isinstance(told, datetime) and told.tzinfo is not None:
            return told
    return None
