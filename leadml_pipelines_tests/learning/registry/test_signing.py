from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadml_pipelines.learning.registry.signing import (
    KEY_FILE,
    SigningKey,
    SigningKeyError,
    is_signed,
    sign,
)
from leadml_pipelines.settings import Settings

KEY = "sixteen letters!"


def test_the_setting_wins_over_the_key_file(tmp_path: Path) -> None:
    SigningKey.of(Settings(home=tmp_path)).read_or_make()
    given_key = SigningKey.of(Settings(home=tmp_path, signing_key=KEY))
    assert given_key.read_or_make() == KEY.encode()


def test_the_key_file_is_made_once_and_its_owners_alone(tmp_path: Path) -> None:
    key = SigningKey.of(Settings(home=tmp_path / "home"))
    made = key.read_or_make()
    assert key.read() == key.read_or_make() == made
    assert len(made) >= 32
    assert stat.S_IMODE((tmp_path / "home" / KEY_FILE).stat().st_mode) == 0o600


def test_all_who_make_the_key_file_at_once_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = list(
            pool.map(
                lambda _: SigningKey(path=tmp_path / KEY_FILE).read_or_make(),
                range(64),
            )
        )
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_who_only_reads_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match="there is no signing key"):
        SigningKey.of(Settings(home=tmp_path)).read()
    assert not list(tmp_path.iterdir())


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.write_text(KEY, encoding="utf-8")
    path.chmod(0o640)
    with pytest.raises(SigningKeyError, match="chmod 600"):
        SigningKey(path=path).read()


@pytest.mark.parametrize("short", ["", "   ", "fifteen letters"])
def test_a_short_key_is_refused_and_not_shown(short: str) -> None:
    with pytest.raises(SigningKeyError, match="fewer than 16") as raised:
        SigningKey(short).read()
    assert not short.strip() or short.strip() not in str(raised.value)


def test_the_key_is_never_shown() -> None:
    assert KEY not in repr(SigningKey(KEY))


@given(key=st.binary(min_size=16), content=st.binary(), other=st.binary())
def test_a_signature_is_of_these_bytes_by_this_key(
    key: bytes, content: bytes, other: bytes
) -> None:
    signature = sign(key, content)
    assert is_signed(key, content, signature)
    assert is_signed(key, other, signature) == (other == content)
    assert not is_signed(key + b"x", content, signature)
    assert not is_signed(key, content, signature[:-1])
    assert not is_signed(key, content, "é" * 64)
