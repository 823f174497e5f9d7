# SPDX-License-Identifier: GPL-2.0-or-later
"""ubusd's access lists: root may everything, others what files in the ACL directory grant them."""

import grp
import json
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Peer(NamedTuple):
    uid: int
    gid: int
    user: str
    group: str


class Grant(NamedTuple):
    key: bytes
    partial: bool
    uid: int
    gid: int
    right: str
    methods: tuple[str, ...] = ()


def prefix_length(one: bytes, other: bytes) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length


def split_pattern(pattern: bytes) -> tuple[bytes, bool]:
    """The pattern without its trailing star, and whether it had one."""
    return (pattern[:-1], True) if pattern.endswith(b"*") else (pattern, False)


def identify(uid: int, gid: int) -> Peer | None:
    """Names of a peer; ubusd turns away users and groups it cannot name."""
    try:
        return Peer(uid, gid, pwd.getpwuid(uid).pw_name, grp.getgrgid(gid).gr_name)
    except KeyError:
        return None


class AccessList:
    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._grants: list[Grant] = []
        self.load()

    def load(self) -> None:
        self._grants = []
        for path in sorted(self._directory.glob("*.json")) if self._directory else []:
            state = path.stat()
            # ubusd ignores files that others than root own or may write to.
            if state.st_uid or state.st_gid or state.st_mode & 0o023:
                continue
            try:
                content = json.loads(path.read_text())
            except ValueError:
                continue
            if isinstance(content, dict):
                self._add(content)
        self._grants.sort(key=lambda grant: grant.key)

    def _add(self, content: Mapping[str, Any]) -> None:
        uid = gid = -1
        try:
            if isinstance(user := content.get("user"), str):
                uid = pwd.getpwnam(user).pw_uid
            elif isinstance(group := content.get("group"), str):
                gid = grp.getgrnam(group).gr_gid
            else:
                return
        except KeyError:
            # ubusd falls back to 0 for unknown names, which grants to nobody but root.
            return
        access = content.get("access")
        for pattern, rule in (access if isinstance(access, dict) else {}).items():
            methods = rule.get("methods") if isinstance(rule, dict) else None
            if isinstance(methods, list):
                names = tuple(name for name in methods if isinstance(name, str))
                self._grants.append(Grant(*_key(pattern), uid, gid, "access", names))
        for right in ("subscribe", "publish", "listen", "send"):
            patterns = content.get(right)
            for pattern in patterns if isinstance(patterns, list) else []:
                if isinstance(pattern, str) and pattern:
                    self._grants.append(Grant(*_key(pattern), uid, gid, right))

    def allows(self, peer: Peer | None, name: bytes | None, right: str, method: str = "") -> bool:
        if peer is None or peer.uid == 0 or name is None:
            return True
        best = 0
        for grant in self._grants:
            length = prefix_length(name, grant.key)
            if length < best:
                break
            best = length
            if name != grant.key and not (grant.partial and length == len(grant.key)):
                continue
            if peer.uid != grant.uid and peer.gid != grant.gid:
                continue
            if grant.right != right:
                continue
            if right != "access" or method in grant.methods or "*" in grant.methods:
                return True
        return False


def _key(pattern: str) -> tuple[bytes, bool]:
    return split_pattern(pattern.encode())
