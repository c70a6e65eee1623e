"""Where models' folders lie: a local folder, or whatever fsspec reaches (S3, GCS, Azure, SFTP)."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from leadml_pipelines.learning.registry.fsspec_store import FsspecStore, require_known
from leadml_pipelines.learning.registry.local_store import LocalStore
from leadml_pipelines.learning.registry.store_contract import ArtifactStore, ArtifactStoreError
from leadml_pipelines.learning.registry.time_limits import TimedStore

_CREDENTIALS = re.compile(r"://[^/]*@")


def open_store(url: str | Path, answer_seconds: float | None = None) -> ArtifactStore:
    """The store at a path, a `file://` address, or any address that fsspec knows.

    Nothing is asked of it yet.

    Args:
        url: The address.
        answer_seconds: How long each answer may take; `time_limits.ANSWER_SECONDS` if not given.

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
    if isinstance(url, Path) or "://" not in text or parts.scheme == "file":
        path = Path(unquote(parts.path) if parts.scheme == "file" else url).absolute()
        return TimedStore(path.as_uri(), lambda: LocalStore(path), answer_seconds)
    require_known(text)
    return TimedStore(text, lambda: FsspecStore(text), answer_seconds)
