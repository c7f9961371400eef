"""Secrets have no place in logs: masks them in any text.

Lives here: the patterns. It masks too much rather than too little: after a header's name everything up to the end of
its value goes, and where the end cannot be told, up to the end of the line. What it cannot know is a bare secret
without a recognisable shape or name; whoever logs one has to name it.
"""

from __future__ import annotations

import re

_PATTERNS = (
    # Our API keys, whole: a truncated or mistyped one is still most of a secret.
    (re.compile(r"seren_[\w-]+"), "seren_***"),
    # A header that carries a credential or a signed payment, in any notation: raw, repr of a dict or of byte pairs,
    # JSON (also inside a JSON string). A quoted value ends at a quote escaped as deep as the one that opened it, an
    # unquoted one at the end of the line.
    (
        re.compile(
            r"""(?ix) (?<![\w-]) ( (?:proxy-)?authorization | payment-signature | x-payment | cookie | set-cookie )
                ( \\*["']? \s* [:=] \s* | \\*["'] \s* , \s* )
                (?: (b?(?P<quote>\\*["'])) (?: (?! (?<!\\)(?P=quote) ) . )* | [^\r\n]+ )"""
        ),
        r"\1\2\3***",
    ),
    # The same header taken apart: the value alone.
    (re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]+"), r"\1 ***"),
    # user:password@ of any URL. The password may hold "/", ":" and "@" unescaped, so it ends at the last "@" of the
    # word. Both lengths are bounded: this runs on text that strangers choose.
    (re.compile(r"(://[^\s:/@]{0,256}):\S{1,1024}@"), r"\1:***@"),
)
# A text without any of these has no secret of a known shape: most lines end here.
_HINTS = re.compile(r"(?i)seren_|authorization|payment|cookie|bearer|://")


def redact(text: str) -> str:
    """Return the text with every recognised secret masked."""
    if not _HINTS.search(text):
        return text
    for pattern, mask in _PATTERNS:
        text = pattern.sub(mask, text)
    return text
