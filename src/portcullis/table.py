# SPDX-License-Identifier: GPL-2.0-or-later
"""An nft table as a value: one constant structure, state as nothing but elements of its sets.

Pure. What is here is true of each of our tables; what they let through stands in `ruleset`
(the kill switch) and `lanruleset` (devices among themselves).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Elements = dict[str, frozenset[str]]
"""Name of a set or map → its elements as nft writes them (`a . b`, `key : verdict`)."""

Sets = dict[str, tuple[str, str, str]]
"""Name → kind, type, purpose. Beside `set` and `map` there is `learnt`: a set that the kernel
fills by itself, so that its content is nobody's wish; what was learnt ends with a refill."""

T = TypeVar("T")


class Table(NamedTuple, Generic[T]):
    """`meters` are learnt sets, name → purpose: devices by MAC address, each with a counter. A
    refill leaves them alone."""

    family: str
    name: str
    sets: Sets
    meters: dict[str, str]
    counters: dict[str, str]
    structure: str
    elements: Callable[[T], Elements]

    @property
    def fence(self) -> str:
        """Name of the copy that stands while the table itself is replaced (`packetfilter`)."""
        return f"{self.name}_fence"

    def render(self, wanted: Elements, flags: str = "", name: str = "") -> str:
        """The whole table in one transaction, whatever stood there before.

        `flags` are the table's flags as nft writes them (`owner, persist`), or empty.
        """
        name = name or self.name
        # `destroy` (nft 1.1) also turns a plain table into an owned one; older nft has neither.
        before = f"destroy table {self.family} {name}\n" if flags else self.clear(name)
        header = f"\tflags {flags};\n\n" if flags else ""
        whole = f"table {self.family} {name} {{\n{header}{self.structure}}}\n"
        return before + whole + self.fill(wanted, name)

    def clear(self, name: str = "") -> str:
        """Take a table away, whether it stands or not."""
        name = name or self.name
        return f"add table {self.family} {name}\ndelete table {self.family} {name}\n"

    def refill(self, wanted: Elements) -> str:
        """The elements alone, in one transaction, for a table whose structure stands."""
        flush = "".join(
            f"flush {'map' if kind == 'map' else 'set'} {self.family} {self.name} {name}\n"
            for name, (kind, *_) in self.sets.items()
        )
        return flush + self.fill(wanted, self.name)

    def fill(self, wanted: Elements, name: str = "") -> str:
        """Add elements to a table whose sets are empty."""
        table = name or self.name
        return "".join(
            f"add element {self.family} {table} {which} {{ {', '.join(sorted(values))} }}\n"
            for which, values in wanted.items()
            if values
        )


def structure(sets: Sets, meters: dict[str, str], counters: dict[str, str], chains: str) -> str:
    """Body of a table."""
    # Bounded, and forgetful: a flood of invented addresses must not fill the memory.
    learnt = "\t\tsize 1024\n\t\tflags dynamic,timeout\n\t\ttimeout 1d\n"
    text = "".join(
        f"\t{'map' if kind == 'map' else 'set'} {name} {{\n\t\t{type_}\n"
        f'{learnt if kind == "learnt" else ""}\t\tcomment "{purpose}"\n\t}}\n\n'
        for name, (kind, type_, purpose) in sets.items()
    )
    text += "".join(
        f'\tset {name} {{\n\t\ttype ether_addr\n{learnt}\t\tcomment "{purpose}"\n\t}}\n\n'
        for name, purpose in meters.items()
    )
    text += "".join(
        f'\tcounter {name} {{\n\t\tcomment "{purpose}"\n\t}}\n\n'
        for name, purpose in counters.items()
    )
    return text + chains.lstrip("\n")
