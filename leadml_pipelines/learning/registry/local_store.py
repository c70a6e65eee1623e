"""Models' folders in a local folder: made under another name and renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from leadml_pipelines.learning.registry.store_contract import (
    LAST_FILE,
    ArtifactStoreError,
    StoredFolder,
    already_there,
)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        final = self._root / folder
        if final.exists():
            raise already_there(self.uri(folder))
        with self._written(folder):
            self._root.mkdir(parents=True, exist_ok=True)
            staging = self._hidden(folder)
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
        with self._written(folder):
            # Beside the folder, not in it: a loader that looks meanwhile sees no file too many.
            staging = self._hidden(folder)
            try:
                _write_file(staging / name, content)
                os.replace(staging / name, self._root / folder / name)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def sizes(self, folder: str) -> dict[str, int]:
        """As in `ArtifactStore`."""
        try:
            found = list(os.scandir(self._root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {entry.name: _size(entry) for entry in found}

    def read(self, folder: str, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """As in `ArtifactStore`."""
        content = {}
        for name, size in sizes.items():
            path = self._root / folder / name
            # What is no file may have no end, or nobody who ever writes it.
            if not path.is_file():
                raise FileNotFoundError(name)
            with open(path, "rb") as file:
                content[name] = file.read(size)
        return content

    def folders(self) -> list[StoredFolder]:
        """As in `ArtifactStore`."""
        try:
            found = sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())
        except FileNotFoundError:
            return []
        return [self._described(name) for name in found]

    def delete(self, folder: str) -> None:
        """As in `ArtifactStore`."""
        # At once for all who look, and without taking room: this is the way out of a full disk.
        # What is left when this ends here is found by its name.
        gone = self._root / f".{folder.lstrip('.')}.{secrets.token_hex(4)}"
        try:
            os.rename(self._root / folder, gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone)

    def _hidden(self, folder: str) -> Path:
        """A new folder whose name tells for which one it is."""
        return Path(tempfile.mkdtemp(prefix=f".{folder}.", dir=self._root))

    def _described(self, name: str) -> StoredFolder:
        sizes = self.sizes(name)
        whole = LAST_FILE in sizes and not name.startswith(".")
        return StoredFolder(name, sum(sizes.values()), whole, self._changed_at(name))

    def _changed_at(self, name: str) -> datetime | None:
        """When a file was last added, exchanged or removed."""
        try:
            seconds = (self._root / name).stat().st_mtime
        except FileNotFoundError:
            return None
        return datetime.fromtimestamp(seconds, UTC)

    @contextmanager
    def _written(self, folder: str) -> Iterator[None]:
        """Say of which store an error is, and what helps."""
        try:
            yield
        except ArtifactStoreError:
            raise
        except OSError as error:
            what = f"the artifact store {self._root}"
            if error.errno in _NO_ROOM:
                raise ArtifactStoreError(
                    f"{what} has no room for the files of {folder} ({error.strerror}), and none "
                    "of them stayed; delete those of old models with `leadml models prune`, or "
                    "free room another way, and try again"
                ) from error
            raise ArtifactStoreError(
                f"the files of {folder} can't be written to {what} ({error.strerror}); mend that, "
                "or set LEADML_ARTIFACTS_URL to a place that can be written"
            ) from error


def _size(entry: os.DirEntry[str]) -> int:
    """Bytes of a file; none of one that is gone, or of a link to nowhere."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


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
