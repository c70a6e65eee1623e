"""A model card as a page of its own: no script, nothing from elsewhere, no HTML but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
img { max-width: 100% }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: left }
td { font-variant-numeric: tabular-nums }
code { background: #f4f4f4; padding: .1em .3em }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""What a browser is told of the page: it may show its own pictures and style, and do nothing."""


def card_page(title: str, markdown: str, pictures: Mapping[str, bytes]) -> str:
    """Turn a card into HTML.

    HTML in the Markdown is shown as text: words of categories in it come from customers' data.

    Args:
        title: Of the page.
        markdown: The card.
        pictures: Content by file name; a picture that is not among them is shown as its text.
    """
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(markdown)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                child.attrSet("src", _data_uri(str(child.attrGet("src")), pictures))
    body = reader.renderer.render(tokens, reader.options, {})
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{_STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )


def _data_uri(name: str, pictures: Mapping[str, bytes]) -> str:
    content = pictures.get(name)
    kind = _TYPES.get(name[name.rfind(".") :])
    if content is None or kind is None:
        return ""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
