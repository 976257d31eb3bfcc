"""URLs without their passwords."""

from __future__ import annotations

import re

USER_INFO = re.compile(r"(?<=://)(?:[^/?#\s]*|[^@/?#:\s]*:\S*)@")
"""The second form is of a password with characters that ought to be escaped, which some libraries take."""
SECRET = re.compile(r"([?&](?:password|passwd|pwd|token|user)=)[^&#]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """The URL without user name and password, wherever they stand: `user:password@host`, or `?password=`."""
    return SECRET.sub(r"\1***", USER_INFO.sub("", url))


def without_password_of(url: str, message: str) -> str:
    """A message about the URL, which may quote parts of it, without user name and password."""
    shown = message.replace(url, without_password(url))
    secrets = USER_INFO.search(url)
    for part in re.split(r"[:@/?#]", secrets[0]) if secrets else ():
        if len(part) > 1:
            shown = shown.replace(part, "***")
    return shown
