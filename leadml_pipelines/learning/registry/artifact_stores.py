"""Where models' folders lie: a local folder, or whatever fsspec reaches (S3, GCS, Azure, SFTP).

Both write a folder whole or not at all. A local one is made under another name and renamed. An
object store has no rename: there the files are written in order and `manifest.sig`, the last, makes
the folder exist; one without it is what is left of a writer that was ended.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from leadml_pipelines.errors import UserError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
_CREDENTIALS = re.compile(r"://[^/]*@")


_LAST = "manifest.sig"
"""The file whose being there makes a folder on an object store whole."""


class ArtifactStoreError(UserError, OSError):
    """A store that can't be used or reached; the message says how to mend it."""


class ArtifactStore(Protocol):
    """Folders of files by name. Thread-safe."""

    def uri(self, folder: str) -> str:
        """Address of a folder, by which it is found again."""

    def exists(self, folder: str) -> bool:
        """Whether a folder is there, whole."""

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write a new folder, whole or not at all; on object stores the last file makes it exist.

        Raises:
            FileExistsError: it is there already, and stays as it is.
        """

    def replace(self, folder: str, name: str, content: bytes) -> None:
        """Replace one file, atomically."""

    def names(self, folder: str) -> list[str]:
        """Names of everything in a folder; of what lies deeper, its path from there."""

    def read(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        """Content of files by name.

        Raises:
            FileNotFoundError: one is not there; its first argument is the name.
            OSError: the store can't be reached.
        """

    def delete(self, folder: str) -> None:
        """Remove a folder, if it is there."""


def open_store(url: str | Path) -> ArtifactStore:
    """The store at a path, a `file://` address, or any address that fsspec knows.

    Raises:
        ArtifactStoreError: the address holds a password, or nobody here can open it.
    """
    text = str(url)
    if _CREDENTIALS.search(text):
        raise ArtifactStoreError(
            "the address of the artifacts holds a user or a password, which would be written into "
            "the registry and Redis; leave them out of LEADML_ARTIFACTS_URL and give them the way "
            "the store's own tools take them, as in AWS_ACCESS_KEY_ID"
        )
    parts = urlsplit(text)
    if isinstance(url, Path) or "://" not in text:
        return LocalStore(Path(url))
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    return FsspecStore(text)


def is_file_name(name: str) -> bool:
    """Whether a name is one of a plain file of a folder: no path, nothing hidden."""
    return _FILE_NAME.fullmatch(name) is not None


class LocalStore:
    """Folders in a local folder.

    Args:
        root: Is made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def uri(self, folder: str) -> str:
        """As in `ArtifactStore`."""
        return (self._root / folder).as_uri()

    def exists(self, folder: str) -> bool:
        """As in `ArtifactStore`."""
        return (self._root / folder).exists()

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        """As in `ArtifactStore`."""
        self._root.mkdir(parents=True, exist_ok=True)
        final = self._root / folder
        if final.exists():
            raise _exists(self.uri(folder))
        staging = Path(tempfile.mkdtemp(prefix=f".{folder}.", dir=self._root))
        try:
            for name, content in files.items():
                _write_file(staging / name, content)
            staging.chmod(0o755)
            # Of two that come this far at once the second fails: a folder with files stays.
            staging.rename(final)
            _sync_folder(self._root)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def replace(self, folder: str, name: str, content: bytes) -> None:
        """As in `ArtifactStore`."""
        # Beside the folder, not in it: a loader that looks meanwhile sees no file too many.
        descriptor, made = tempfile.mkstemp(prefix=f".{folder}.", dir=self._root)
        os.close(descriptor)
        try:
            _write_file(Path(made), content)
            os.chmod(made, 0o644)
            os.replace(made, self._root / folder / name)
        except BaseException:
            Path(made).unlink(missing_ok=True)
            raise

    def names(self, folder: str) -> list[str]:
        """As in `ArtifactStore`."""
        return [entry.name for entry in os.scandir(self._root / folder)]

    def read(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        """As in `ArtifactStore`."""
        content = {}
        for name in names:
            try:
                content[name] = (self._root / folder / name).read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise FileNotFoundError(name) from None
        return content

    def delete(self, folder: str) -> None:
        """As in `ArtifactStore`."""
        shutil.rmtree(self._root / folder, ignore_errors=True)


class FsspecStore:
    """Folders below an address of fsspec.

    Args:
        url: Such as `s3://bucket/models`; credentials come from the environment.

    Raises:
        ArtifactStoreError: fsspec does not know the address, or lacks a package for it; or the
            store does not answer as it should.
        OSError: the store can't be reached.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self._url = url.rstrip("/")
        try:
            filesystem, path = url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise ArtifactStoreError(
                f"{self._url} can't be opened: {error}; install the package of that store beside "
                "LeadML (s3fs for s3://, gcsfs for gs://, adlfs for az://), or mend "
                "LEADML_ARTIFACTS_URL"
            ) from error
        except OSError:
            raise
        except Exception as error:  # some connect at once, and have errors of their own
            raise _unreachable(self._url, error) from error
        self._files: AbstractFileSystem = filesystem
        self._path = path.rstrip("/")

    def uri(self, folder: str) -> str:
        """As in `ArtifactStore`."""
        return f"{self._url}/{folder}"

    def exists(self, folder: str) -> bool:
        """As in `ArtifactStore`."""
        with _reached(self._url):
            self._files.invalidate_cache()
            return bool(self._files.exists(self._place(folder, _LAST)))

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        """As in `ArtifactStore`."""
        if self.exists(folder):
            raise _exists(self.uri(folder))
        with _reached(self._url):
            self.delete(folder)  # what an ended writer left: files that no manifest lists
            self._files.makedirs(self._place(folder), exist_ok=True)
            try:
                for name, content in files.items():
                    self._files.pipe_file(self._place(folder, name), content)
            except BaseException:
                self.delete(folder)
                raise

    def replace(self, folder: str, name: str, content: bytes) -> None:
        """As in `ArtifactStore`."""
        with _reached(self._url):
            self._files.pipe_file(self._place(folder, name), content)

    def names(self, folder: str) -> list[str]:
        """As in `ArtifactStore`."""
        with _reached(self._url):
            self._files.invalidate_cache()
            found = self._files.find(self._place(folder))
        start = len(self._place(folder)) + 1
        # A store that pretends to have folders may list an empty object for one.
        return [path[start:] for path in found if path[start:]]

    def read(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        """As in `ArtifactStore`."""
        if not names:
            return {}
        places = {self._place(folder, name): name for name in names}
        with _reached(self._url):
            # All at once: a round trip to an object store takes tens of milliseconds.
            found = self._files.cat(list(places), on_error="return")
        content = {}
        for place, name in places.items():
            value = found.get(place)
            if isinstance(value, bytes):
                content[name] = value
            elif value is None or isinstance(value, FileNotFoundError):
                raise FileNotFoundError(name)
            else:
                raise _unreachable(self._url, value) from value
        return content

    def delete(self, folder: str) -> None:
        """As in `ArtifactStore`."""
        with _reached(self._url):
            if self._files.exists(self._place(folder)):
                self._files.rm(self._place(folder), recursive=True)

    def _place(self, *parts: str) -> str:
        return "/".join((self._path, *parts))


@contextmanager
def _reached(url: str) -> Iterator[None]:
    """Every store has errors of its own; those that are none of Python's become one."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: BaseException) -> ArtifactStoreError:
    # Only the kind: messages of stores may hold keys.
    return ArtifactStoreError(
        f"{url} did not answer as it should ({type(error).__name__}); check that the store is up "
        "and that this process has credentials for it"
    )


def _exists(uri: str) -> FileExistsError:
    return FileExistsError(f"{uri} is there already, and a model's files never change")


def _write_file(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make a rename last through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
