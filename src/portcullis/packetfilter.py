# SPDX-License-Identifier: GPL-2.0-or-later
"""A table in the kernel: made to be what a policy says, and read back (K5).

Start-up, a change of state, tampering and recovery all go through `reconcile`: it reads the
table, changes what differs in one transaction, and reads it again. What the structure has to
look like is learnt from the kernel right after a load that was checked against the template.
"""

from __future__ import annotations

import re
from typing import Any, Generic, NamedTuple

from portcullis.nft import Nftables, NftError
from portcullis.table import Elements, T, Table

Listing = list[dict[str, Any]]

MISSING, RULES = "table missing", "rules differ"


def elements_of(name: str) -> str:
    return f"elements of {name} differ"


def later(former: tuple[str, ...], differences: tuple[str, ...]) -> tuple[str, ...]:
    """What differs after both: with a table goes all that was changed in it before."""
    found = (*former, *differences)
    if MISSING in found:
        found = found[len(found) - 1 - found[::-1].index(MISSING) :]
    return tuple(dict.fromkeys(found))


class FilterError(Exception):
    """The packet filter is not what the policy says, and could not be made so."""


class Chain(NamedTuple):
    """A chain as the template promises it: its hook, if any, and its rules' comments."""

    hook: tuple[str, str, int, str] | None
    comments: tuple[str, ...]


_PROTOCOLS = {6: "tcp", 17: "udp"}
_PRIORITIES = {
    "inet": {"raw": -300, "filter": 0, "srcnat": 100},
    "bridge": {"filter": -200},
    "netdev": {"filter": 0},
}


def template_chains(table: Table[Any]) -> dict[str, Chain]:
    """The chains of a table's text."""
    priorities = _PRIORITIES[table.family]
    chains = {}
    for name, body in re.findall(r"\tchain (\w+) \{\n(.*?)\n\t\}", table.structure, re.DOTALL):
        hook = None
        base = re.search(
            r"type (\w+) hook (\w+)(?: devices = .+?)? priority (.+?); policy (\w+);", body
        )
        if base:
            kind, where, priority, policy = base.groups()
            word, _, offset = priority.partition(" ")
            number = priorities[word] + int(offset.replace(" ", "")) if offset else int(word)
            hook = (kind, where, number, policy)
        chains[name] = Chain(hook, tuple(re.findall(r'comment "([^"]*)"$', body, re.MULTILINE)))
    return chains


def listed_chains(listing: Listing) -> dict[str, Chain]:
    """The same of what the kernel holds."""
    hooks: dict[str, tuple[str, str, int, str] | None] = {}
    comments: dict[str, list[str]] = {}
    for entry in listing:
        if chain := entry.get("chain"):
            base = tuple(chain.get(key) for key in ("type", "hook", "prio", "policy"))
            hooks[chain["name"]] = base if "hook" in chain else None
            comments.setdefault(chain["name"], [])
        elif rule := entry.get("rule"):
            comments.setdefault(rule["chain"], []).append(rule.get("comment", ""))
    return {name: Chain(hooks.get(name), tuple(found)) for name, found in comments.items()}


def listed_elements(listing: Listing) -> Elements:
    """The elements of every set and map, in `ruleset.elements`' own notation."""
    found = {}
    for entry in listing:
        for kind in ("set", "map"):
            if kind in entry:
                types = entry[kind]["type"]
                types = types if isinstance(types, list) else [types]
                values = entry[kind].get("elem", [])
                found[entry[kind]["name"]] = frozenset(_element(v, types) for v in values)
    return found


def _element(value: Any, types: list[str]) -> str:
    if isinstance(value, list):
        key, target = value
        return f"{_element(key, types)} : {_target(target)}"
    if isinstance(value, dict):
        if "elem" in value:  # an element with options of its own: not one of ours
            return f"{_element(value['elem']['val'], types)} with options"
        parts = zip(value["concat"], types, strict=True)
        return " . ".join(_element(part, [kind]) for part, kind in parts)
    if types == ["inet_proto"]:
        return _PROTOCOLS.get(value, str(value))
    return f'"{value}"' if types == ["ifname"] else str(value)


def _target(target: Any) -> str:
    if isinstance(target, dict):
        ((verdict, detail),) = target.items()
        return f"{verdict} {detail['target']}" if detail else verdict
    return str(target)


def fixed(listing: Listing) -> list[object]:
    """What never changes between two refills: flags, chains and whole rules, without handles."""
    kept: list[object] = []
    for entry in listing:
        for kind in ("table", "chain", "rule", "set", "map"):
            if kind in entry:
                # nft 1.1.7 counts the elements of a set that has any
                ignored = {"handle", "elem", "count"} | ({"flags"} if kind == "table" else set())
                kept.append((kind, {k: v for k, v in entry[kind].items() if k not in ignored}))
    return kept


def table_flags(listing: Listing) -> bool:
    """Whether the table carries any flag: nft 1.0.6 garbles their names."""
    return any("flags" in entry["table"] for entry in listing if "table" in entry)


class PacketFilter(Generic[T]):
    """One of our tables, in the kernel.

    Where library and kernel take it the table is owned by this process and persists beyond it:
    then nobody else can change it, and it stays when we die (platform.md). Probed, never
    guessed from versions.
    """

    def __init__(self, nft: Nftables, table: Table[T]) -> None:
        self._nft, self._table = nft, table
        self._reference: list[object] | None = None
        self._told: tuple[str, ...] = ()
        scratch = f"table {table.family} {table.name}_probe"
        self.flags = ""
        if nft.accepts(f"add {scratch} {{ flags owner, persist; }}\ndelete {scratch}\n"):
            self.flags = "owner, persist"

    def become(self, table: Table[T]) -> None:
        """From the next reconcile on it is this table, of the same name."""
        self._table, self._reference = table, None

    def tell(self, differences: tuple[str, ...]) -> None:
        """The kernel says that somebody has changed this. The next `reconcile` puts it right
        before it looks: to look takes longer than to close."""
        self._told = later(self._told, differences)

    def reconcile(self, policy: T) -> tuple[str, ...]:
        """Make the table what `policy` says; what had to be changed, nothing if nothing.

        Raises FilterError where it could not be made so and read back.
        """
        found, self._told = self._told, ()
        try:
            if not found:
                found = self._differences(self._list(), policy)
            if not found:
                return ()
            if self._reference is not None and all(d.startswith("elements") for d in found):
                self._nft.run(self._table.refill(self._table.elements(policy)))
            else:
                self._load(policy, standing=found != (MISSING,))
            left = self._differences(self._list(), policy)
        except NftError as error:
            raise FilterError(f"nft: {error}") from None
        if left:
            self._reference = None
            raise FilterError(f"read back after a change: {', '.join(left)}")
        return found

    def stands(self) -> bool:
        """Whether there is a table at all, ours or an earlier process's. Raises NftError."""
        return self._list() is not None

    def close(self) -> None:
        """Give the library back; the table stays, unless it is owned and cannot persist."""
        self._nft.close()

    def standing(self, policy: T) -> tuple[str, ...]:
        """What differs from `policy` at this moment; nothing is changed."""
        try:
            return self._differences(self._list(), policy)
        except NftError as error:
            return (f"nft: {error}",)

    def counters(self) -> dict[str, int]:
        """Packets blocked, by reason, since the table was loaded."""
        try:
            listing = self._list() or []
        except NftError:
            return {}
        named = [entry["counter"] for entry in listing if "counter" in entry]
        return {c["name"]: c["packets"] for c in named if c["name"] in self._table.counters}

    def metered(self) -> dict[str, tuple[int, int]]:
        """Packets and bytes blocked, by the device's MAC address; for a day after the last."""
        try:
            listing = self._list() or []
        except NftError:
            return {}
        sets = [entry["set"] for entry in listing if "set" in entry]
        return {
            element["elem"]["val"]: (
                element["elem"]["counter"]["packets"],
                element["elem"]["counter"]["bytes"],
            )
            for found in sets
            if found["name"] in self._table.meters
            for element in found.get("elem", [])
            if "counter" in element.get("elem", {})
        }

    def flowtables(self) -> str:
        """Everybody's flow tables, as nft prints them."""
        try:
            return self._nft.list_flowtables()
        except NftError:
            return ""

    def remove(self) -> bool:
        """Take the table away; whether there was one. Raises FilterError."""
        self._reference = None
        try:
            self._nft.run(self._table.clear(self._table.fence))  # of a load that was cut short
            if self._list() is None:
                return False
            # Without `add` before it, which an owned table does not take.
            self._nft.run(f"delete table {self._table.family} {self._table.name}\n")
        except NftError as error:
            raise FilterError(f"nft: {error}") from None
        return True

    def _list(self) -> Listing | None:
        return self._nft.list_table(self._table.family, self._table.name)

    def _load(self, policy: T, standing: bool) -> None:
        """Put the whole table in the place of whatever stands there.

        Even in one transaction that is not safe by itself: a packet that has passed the new
        chain before it had rules, and is held up until the old chain is unhooked, meets neither.
        So a copy is there first, and goes last; what a crash left of one goes with it.
        """
        self._reference = None
        table, wanted = self._table, self._table.elements(policy)
        if standing:
            self._nft.run(table.render(wanted, name=table.fence))
        self._nft.run(table.render(wanted, self.flags))
        self._nft.run(table.clear(table.fence))
        listing = self._list() or []
        expected, actual = template_chains(table), listed_chains(listing)
        wrong = [name for name in expected | actual if expected.get(name) != actual.get(name)]
        if wrong:
            raise NftError(f"chain {wrong[0]} was not loaded as written")
        self._reference = fixed(listing)

    def _differences(self, listing: Listing | None, policy: T) -> tuple[str, ...]:
        if listing is None:
            return (MISSING,)
        found = []
        if self._reference is None:
            found.append("table not ours yet")
        elif fixed(listing) != self._reference:
            found.append(RULES)
        if table_flags(listing) != bool(self.flags):
            found.append("table flags differ")
        wanted, actual = self._table.elements(policy), listed_elements(listing)
        found += [elements_of(name) for name in wanted if wanted[name] != actual.get(name)]
        return tuple(found)
