"""Finding features by words: in names, descriptions, and the source columns behind them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leadml_pipelines.features.entries import Entry
    from leadml_pipelines.features.lineage import Lineage

_WORD = re.compile(r"[a-z0-9]+")
NEAR = 5
"""How many near matches are offered at most."""

# What a word is worth, by where it is found: nobody who types a name wants its mentions first.
_WHOLE_NAME, _NAME_WORD, _IN_NAME, _PROSE_WORD, _COLUMN, _IN_PROSE = 100, 20, 10, 5, 4, 2


def search(text: str, entries: Sequence[Entry], lineages: Mapping[str, Lineage]) -> list[Entry]:
    """The entries in which every word of a text is found, best first.

    Args:
        text: Words, in any case; a `table.column` is two of them. A name's words are joined by _.
        entries: Where to look.
        lineages: Feature -> where it comes from.

    Returns:
        Best first; of two that are as good, the one that comes first in `entries`.
    """
    words = _WORD.findall(text.lower())
    phrase = "_".join(words)
    found = []
    for one in entries:
        score = _score(words, phrase, one, lineages[one.name])
        if score:
            found.append((score, one))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]


def near_names(text: str, names: Iterable[str]) -> list[str]:
    """Names that look like a text of which nothing was found, the likest first."""
    known = list(names)
    whole = get_close_matches("_".join(_WORD.findall(text.lower())), known, n=NEAR)
    parts: dict[str, list[str]] = {}
    for name in known:
        for part in name.split("_"):
            parts.setdefault(part, []).append(name)
    alike = [
        name
        for word in _WORD.findall(text.lower())
        for part in get_close_matches(word, parts, n=2, cutoff=0.7)
        for name in parts[part]
    ]
    return list(dict.fromkeys([*whole, *alike]))[:NEAR]


def _score(words: Sequence[str], phrase: str, entry: Entry, lineage: Lineage) -> int:
    """What the words are worth together; 0 when one of them is not found."""
    name_words = entry.name.split("_")
    prose = entry.description.lower()
    prose_words = _WORD.findall(prose)
    columns = {part for column in lineage.sources for part in _WORD.findall(str(column).lower())}
    total = _WHOLE_NAME if phrase == entry.name else 0
    for word in words:
        worth = (
            _NAME_WORD
            if word in name_words
            else _IN_NAME
            if word in entry.name
            else _PROSE_WORD
            if word in prose_words
            else _COLUMN
            if word in columns
            else _IN_PROSE
            if word in prose
            else 0
        )
        if not worth:
            return 0
        total += worth
    return total
