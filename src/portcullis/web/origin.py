# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is asking: this page in the owner's browser, or another one behind his back.

- A name that anybody can register may be made to point at the router (DNS rebinding), so Host
  is an address, or the router's own name under a suffix that nobody can register.
- A change comes with this page's Origin, as JSON, and with a token that only this page can
  read (CSRF). The token follows from the session, so it outlives a restart of this process.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
from ipaddress import ip_address

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")
# RFC 6761, 6762, 8375 and dnsmasq's own default: not to be had in the public DNS.
_SUFFIXES = ("", ".lan", ".local", ".home.arpa", ".localhost", ".internal")


def known_host(host: str, names: tuple[str, ...] = ()) -> bool:
    """Whether a Host header names this router."""
    found = _HOST.fullmatch(host.lower())
    if not found:
        return False
    name = found[1].removesuffix(".")
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        own = (socket.gethostname().lower().partition(".")[0], "localhost")
        return name in names or any(name == known + end for known in own for end in _SUFFIXES)
    return True


def same_origin(origin: str, fetch_site: str, scheme: str, host: str, changes: bool) -> bool:
    """Whether a request comes from this page, by the browser's own word.

    A change needs an Origin. Looking needs none, as browsers send none with it; there a word
    that says otherwise is enough to refuse.
    """
    if fetch_site not in ("", "same-origin", "none"):
        return False
    if not origin:
        return not changes
    return origin.lower() == f"{scheme}://{host.lower()}"


def csrf_token(session: str) -> str:
    return hmac.new(session.encode(), b"portcullis csrf", hashlib.sha256).hexdigest()


def csrf_valid(session: str, token: str) -> bool:
    return hmac.compare_digest(csrf_token(session).encode(), token.encode())
