"""A store that does not answer is not waited for longer than a limit.

Libraries of stores have limits of their own, and each tries again several times: together they take
minutes, and a network disk that is away blocks its callers for ever. So each question is asked in a
thread of its own, and left to it when the time is over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import TypeVar

from leadml_pipelines.learning.registry.store_contract import (
    ArtifactStore,
    ArtifactStoreError,
    StoredFolder,
)

ANSWER_SECONDS = 30.0
"""How long an answer may take. By itself botocore waits a minute, and tries again four times."""
SLOWEST_BYTES_PER_SECOND = 2**20
"""What is read or written may take that much longer: a slow line, but no broken one."""
MOST_UNANSWERED = 4
"""Questions to one store that may wait for their answer in threads that nobody waits for."""

_CLEANING_SECONDS = 5.0
"""How long who is interrupted waits for the writer to remove what it wrote."""

T = TypeVar("T")

_unanswered: Counter[str] = Counter()
_lock = threading.Lock()


class TimedStore:
    """A store whose every answer has a limit.

    Args:
        url: Address of the store.
        opened: Opens it; it may take time too.
        answer_seconds: The limit, without what the bytes take that are read or written.
    """

    def __init__(
        self,
        url: str,
        opened: Callable[[], ArtifactStore],
        answer_seconds: float | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._opened = opened
        self._seconds = ANSWER_SECONDS if answer_seconds is None else answer_seconds
        self._known: ArtifactStore | None = None

    def uri(self, folder: str) -> str:
        """As in `ArtifactStore`."""
        return f"{self._url}/{folder}"

    def exists(self, folder: str) -> bool:
        """As in `ArtifactStore`."""
        return self._ask(lambda: self._store().exists(folder))

    def write(self, folder: str, files: Mapping[str, bytes]) -> None:
        """As in `ArtifactStore`; a writer that was given up writes no further file."""
        given_up = threading.Event()
        wanted = _WhileWanted(files, given_up)
        size = sum(map(len, files.values()))
        self._ask(lambda: self._store().write(folder, wanted), size, given_up)

    def replace(self, folder: str, name: str, content: bytes) -> None:
        """As in `ArtifactStore`."""
        self._ask(lambda: self._store().replace(folder, name, content), len(content))

    def sizes(self, folder: str) -> dict[str, int]:
        """As in `ArtifactStore`."""
        return self._ask(lambda: self._store().sizes(folder))

    def read(self, folder: str, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """As in `ArtifactStore`."""
        return self._ask(lambda: self._store().read(folder, sizes), sum(sizes.values()))

    def folders(self) -> list[StoredFolder]:
        """As in `ArtifactStore`."""
        return self._ask(lambda: self._store().folders())

    def delete(self, folder: str) -> None:
        """As in `ArtifactStore`."""
        self._ask(lambda: self._store().delete(folder))

    def _store(self) -> ArtifactStore:
        if self._known is None:
            self._known = self._opened()
        return self._known

    def _ask(
        self, question: Callable[[], T], size: int = 0, given_up: threading.Event | None = None
    ) -> T:
        seconds = self._seconds + size / SLOWEST_BYTES_PER_SECOND
        return _answer(self._url, question, seconds, given_up or threading.Event())


class _WhileWanted(Mapping[str, bytes]):
    """Files that end in an error once nobody waits any more for their being written."""

    def __init__(self, files: Mapping[str, bytes], given_up: threading.Event) -> None:
        self._files = files
        self._given_up = given_up

    def __getitem__(self, name: str) -> bytes:
        return self._files[name]

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[str]:
        for name in self._files:
            self._require_wanted()
            yield name
        self._require_wanted()

    def _require_wanted(self) -> None:
        if self._given_up.is_set():
            raise ArtifactStoreError("nobody waits any more for these files")


def _answer(url: str, question: Callable[[], T], seconds: float, given_up: threading.Event) -> T:
    """The answer of a store, or its error.

    Raises:
        ArtifactStoreError: it did not come in time, or too many before it did not.
    """
    with _lock:
        if _unanswered[url] >= MOST_UNANSWERED:
            raise ArtifactStoreError(
                f"{url} was not asked: {MOST_UNANSWERED} earlier questions wait for an answer "
                "still; check that the store is up and that the network reaches it"
            )
    future: Future[T] = Future()

    def ask() -> None:
        try:
            answer = question()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(answer)

    try:
        threading.Thread(target=ask, name="artifact-store", daemon=True).start()
        wait([future], seconds)
    except BaseException:  # a person or Dagster ends this; the writer removes what it wrote
        given_up.set()
        wait([future], _CLEANING_SECONDS)
        raise
    if future.done():
        return future.result()
    given_up.set()
    with _lock:
        _unanswered[url] += 1
    future.add_done_callback(lambda _: _came(url))
    raise ArtifactStoreError(
        f"{url} did not answer in {seconds:.0f} s; check that the store is up and that the network "
        "reaches it, then try again"
    )


def _came(url: str) -> None:
    with _lock:
        _unanswered[url] -= 1
