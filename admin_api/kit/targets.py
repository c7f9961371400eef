"""Where a browser may be sent at the end of a visit elsewhere: to this gateway, or to a site that the operator lists.

Anything else would lend this gateway's name to whoever wants to lead people astray (CWE-601).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

LONGEST = 2_048
# No blanks, controls, backslashes or other characters that browsers repair in ways of their own.
PLAIN = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+", re.ASCII)


def allowed_target(text: str, public_url: str, origins: Sequence[str]) -> str | None:
    """Return an absolute URL for a target: a path of ours, or a URL of an allowed origin. None for any other."""
    if len(text) > LONGEST or PLAIN.fullmatch(text) is None:
        return None
    ours = urlsplit(public_url)
    home = f"{ours.scheme}://{ours.netloc}".lower()
    if text.startswith("/"):
        return None if text.startswith("//") else home + text
    try:
        parts = urlsplit(text)
        named = f"{parts.scheme}://{parts.netloc}".lower()
    except ValueError:
        return None
    return text if "@" not in parts.netloc and named in (home, *origins) else None


def with_query(url: str, **facts: str) -> str:
    """Return a URL with more in its query. `facts` are words that need no quoting."""
    added = "&".join(f"{name}={value}" for name, value in facts.items())
    mark = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    return url + mark + added
