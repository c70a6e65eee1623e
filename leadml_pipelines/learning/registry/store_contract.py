"""What a place for models' folders must be able to do, and how it fails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from leadml_pipelines.errors import UserError

LAST_FILE = "manifest.sig"
"""The file that is written last: a folder that lacks it was never finished."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")


class ArtifactStoreError(UserError, OSError):
    """A store that can't be used or reached; the message says how to mend it."""


class StoredFolder(NamedTuple):
    """What lies in a store under one name.

    Attributes:
        name: Of the folder, or of what an ended writer left.
        size: Bytes of all its files.
        whole: Whether its writer came to the end.
        changed_at: When something of it was written last; None where the store does not tell.
    """

    name: str
    size: int
    whole: bool
    changed_at: datetime | None


class ArtifactStore(Protocol):
    """Folders of files by name. Thread-safe.

    Every question may raise an `OSError`: the store can't be reached, refuses, or has no room.
    """

    def uri(self, folder: str) -> str:
        """Address of a folder, by which it is found again."""

    def exists(self, folder: str) -> bool:
        """Whether anything is there, be it what an ended writer left."""

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write a new folder, whole or not at all; on object stores the last file makes it exist.

        Raises:
            FileExistsError: there is something already, and it stays as it is.
        """

    def replace(self, folder: str, name: str, content: bytes) -> None:
        """Replace one file, atomically."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of everything in a folder by name; of what lies deeper, by its path from there.

        Of a folder that is not there: nothing.
        """

    def read(self, folder: str, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """Content of files by name, no more of each than the bytes that are asked for.

        Raises:
            FileNotFoundError: one is not there; its first argument is the name.
        """

    def folders(self) -> list[StoredFolder]:
        """All that lies in the store, by name."""

    def delete(self, folder: str) -> None:
        """Remove a folder, if it is there."""


def is_file_name(name: str) -> bool:
    """Whether a name is one of a plain file of a folder: no path, nothing hidden."""
    return _FILE_NAME.fullmatch(name) is not None


def already_there(uri: str) -> FileExistsError:
    """The error of a writer that finds something in the place of its new folder."""
    return FileExistsError(f"{uri} is there already, and a model's files never change")


def error_words(error: Exception) -> str:
    """What went wrong with a store; of errors of others without their text, which may hold keys."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({type(error).__name__})"
    return type(error).__name__
