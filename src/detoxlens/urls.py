"""What of a URL may be shown."""

from __future__ import annotations

import re

USER_INFO = re.compile(r"(?<=://)[^/?#]*@")
SECRET = re.compile(r"([?&](?:password|passwd|pwd|token|user)=)[^&#]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """The URL without user name and password, wherever they stand: `user:password@host`, or `?password=`."""
    return SECRET.sub(r"\1***", USER_INFO.sub("", url))
