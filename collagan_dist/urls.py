"""Credentials in URLs: found in what people give, and taken out of everything that is said or written.

Run folders, logs and pages are shared, and arguments are seen by every user of a machine. So a URL with a user name, a
password, a query or a token is refused where it comes in, and no message repeats what was in it.
"""

from __future__ import annotations

import re

HINT = (
    "give the URL alone, without password, ? or #, user name or token: run folders keep it; credentials belong in the environment "
    "(or in ~/.netrc)"
)
_SCHEME = r"\b([A-Za-z][A-Za-z0-9+.-]{0,30}:/+)"  # pathlib makes one slash of two
# In a sentence a URL ends at a blank or a quote; as a value of its own it does not.
_IN_TEXT = re.compile(_SCHEME + r"([^\s'\"<>`]*)")
_AS_VALUE = re.compile(_SCHEME + r"(.*)", re.DOTALL)
# user:password@host, as ssh and proxies write it.
_WITHOUT_SCHEME = re.compile(r"(?:^|=)[\w.+%-]{1,256}+:[^\s/@=]{1,256}@[\w.-]+(?::\d+)?(?:/.*)?$", re.DOTALL)
_TOKEN = re.compile(
    r"(?:token|secret|passw|pwd|signature|\bsig|credential|api.?key|access.?key|\bauth(?!ors?\b))[^/=:&]{0,40}?(?:=|:|%3[ad])",
    re.IGNORECASE,
)
_QUERY = re.compile("[?#]|;(?=.)", re.DOTALL)  # a semicolon at the end is the sentence's
# URLs with an @ that is no credential's: scheme://container@account/path, hf://datasets/owner/name@revision/path.
_CONTAINERS = re.compile(r"(?:az|abfss?|wasbs?):/+", re.IGNORECASE)
_REVISIONS = re.compile(r"hf:/+", re.IGNORECASE)


def redact(text: str) -> str:
    """Return a text in which every URL has lost its user name, password, query and tokens."""
    # Without one of these there is no URL, which is nearly always.
    return _IN_TEXT.sub(_without_secrets, text) if ":/" in text else text


def has_secret(value: str) -> bool:
    """Return whether an argument or a value of a file is, or has in it, a URL with credentials."""
    if "@" in value and _WITHOUT_SCHEME.search(value):
        return True
    return any(_without_secrets(found) != found[0] for found in _AS_VALUE.finditer(value)) or redact(value) != value


def redact_value(value: str) -> str:
    """Return a value as it may be shown: as `redact`, but to its end, whatever is in it."""
    return _WITHOUT_SCHEME.sub("…", _AS_VALUE.sub(_without_secrets, redact(value)))


def _without_secrets(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    user, at, place = rest.rpartition("@")
    container = _CONTAINERS.fullmatch(scheme) and re.fullmatch(r"[\w$-]+", user)
    revision = _REVISIONS.fullmatch(scheme) and re.fullmatch(r"(?:[a-z]+/)?[\w.-]+/[\w.-]+", user)
    if at and not (container or revision):
        rest = f"…@{place}"
    for pattern in (_QUERY, _TOKEN):
        if (cut := pattern.search(rest)) is not None:
            rest = f"{rest[: cut.start()]}…"
    return scheme + rest
