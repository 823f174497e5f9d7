# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's kernel and its initramfs: busybox, modules in the order of their needs, a command."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
STORE = TOP / ".vm"

# What OpenWrt's packages load at boot, and what tests make the network's weather with. Loaded by
# name: the kernel's own loading on demand would need kmod, and comes too late for some (nft_*).
_MODULES = """
overlay crc32c_generic
tun veth bridge br_netfilter dummy vrf 8021q wireguard
sit ip6_tunnel ipip pppoe ppp_async
sch_netem sch_tbf sch_ingress cls_u32
nf_tables nf_conntrack nf_conntrack_netlink nf_conntrack_bridge nf_nat nf_log_syslog
nft_chain_nat nft_ct nft_fib_inet nft_fib_netdev nft_hash nft_limit nft_log nft_masq nft_nat
nft_numgen nft_queue nft_quota nft_redir nft_reject_inet nft_socket nft_tproxy
nft_dup_netdev nft_fwd_netdev nft_meta_bridge nft_reject_bridge
nf_flow_table nf_flow_table_inet nft_flow_offload
virtio_net
"""


class Missing(Exception):
    """Something the virtual machine needs is not there; says what, and what to do."""


def kernel() -> Path:
    """The unpacked kernel's image."""
    found = sorted((STORE / "boot").glob("vmlinuz-*")) if (STORE / "ready").exists() else []
    if not found:
        raise Missing(f"there is no kernel in {STORE}: run {HERE / 'setup.sh'}")
    return found[-1]


def initramfs(command: str) -> bytes:
    """A cpio archive; `command` is the shell script to run once the host's files are there."""
    files = {
        "bin/busybox": (STORE / "bin/busybox").read_bytes(),
        "init": (HERE / "init.sh").read_bytes(),
        "inside.sh": (HERE / "inside.sh").read_bytes(),
        "command.sh": command.encode(),
    }
    modules = Modules(kernel().name.removeprefix("vmlinuz-"))
    order = list(
        dict.fromkeys(name for wanted in _MODULES.split() for name in modules.needed(wanted))
    )
    files["modules"] = " ".join(order).encode()
    # what modprobe goes by; needs are met by the order
    folder = f"lib/modules/{modules.version}"
    files[f"{folder}/modules.dep"] = "".join(f"{name}.ko:\n" for name in order).encode()
    files |= {f"{folder}/{name}.ko": modules.read(name) for name in order}
    return b"".join(_cpio(files))


class Modules:
    """A kernel's loadable modules by name; names are written with underscores."""

    def __init__(self, version: str) -> None:
        self.version = version
        folder = STORE / "lib/modules" / version
        self._paths = {_name(path.name): path for path in folder.rglob("*.ko*")}
        built_in = (folder / "modules.builtin").read_text().split()
        self._built_in = {_name(path.rpartition("/")[2]) for path in built_in}

    def needed(self, name: str) -> Iterator[str]:
        """What has to be loaded for a module, itself last; nothing where it is built in."""
        if name in self._built_in:
            return
        # modpost writes "depends=" into .modinfo; insmod leaves it to us
        if depends := re.search(rb"\0depends=([^\0]+)\0", self.read(name)):
            for other in depends[1].decode().split(","):
                yield from self.needed(_name(other))
        yield name

    @cache  # noqa: B019  (one object in a short life)
    def read(self, name: str) -> bytes:
        path = self._paths.get(name)
        if path is None:
            raise Missing(f"kernel {self.version} has no module {name}")
        return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _name(file: str) -> str:
    return file.partition(".")[0].replace("-", "_")


def _cpio(files: dict[str, bytes]) -> Iterator[bytes]:
    """The format "newc" (the kernel's Documentation/driver-api/early-userspace)."""
    folders = sorted({str(p) for name in files for p in Path(name).parents if p.name})
    entries = [*((name, 0o040755, b"") for name in folders)]
    entries += [*((name, 0o100755, data) for name, data in files.items()), ("TRAILER!!!", 0, b"")]
    for number, (name, mode, data) in enumerate(entries, 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
        yield head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
