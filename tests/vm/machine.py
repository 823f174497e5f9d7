# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU around the guest: boots it, passes its output on, ends with the command's exit code."""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from .image import Missing, initramfs, kernel

MEMORY = "1536M"
# The kernel rewrites its own code as netfilter's hooks come and go. Where QEMU 7.2 emulates two
# processors one of them may still run what the other has replaced: a panic, one octet into a no-op.
_PROCESSORS = {"kvm": 2, "tcg": 1}
TIMED_OUT, NO_RESULT = 124, 125
_VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
_KVM_WITHIN = 5.0
_POWER_OFF_WITHIN = 20.0
# Whatever the guest does, the host's files stay as they are: it mounts them read-only, and so
# are they for the program that serves them.
_READ_ONLY = 'mount --rbind / "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@"'


class Nic(NamedTuple):
    """A network card of the guest: the descriptor of a tap device, and the MAC address."""

    tap: int
    mac: str


class Machine:
    """A guest that runs a shell script, with network cards eth0, eth1 … in their order. Use inside
    `with`; starting it raises Missing. `output` is what the script says."""

    def __init__(self, command: str, nics: Sequence[Nic] = ()) -> None:
        self._command, self._nics = command, nics

    def __enter__(self) -> Machine:
        with ExitStack() as undo:
            state = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="vm-")))
            (state / "initramfs").write_bytes(initramfs(self._command))
            (state / "root").mkdir()
            for name in ("console", "result"):
                (state / name).touch()
            _serve_files(state, undo)
            taps = [nic.tap for nic in self._nics]
            accelerator = _accelerator()
            command = [*_qemu(accelerator), *_devices(state), *_cards(self._nics)]
            command += ["-smp", str(_PROCESSORS[accelerator])]
            self._qemu = _start(command, undo, stdout=subprocess.PIPE, pass_fds=taps)
            self._state, self._undo = state, undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def output(self) -> IO[bytes]:
        assert self._qemu.stdout
        return self._qemu.stdout

    def result(self) -> int:
        """The script's exit code, once the output has ended; NO_RESULT where there is none."""
        self._qemu.wait(_POWER_OFF_WITHIN)
        result = (self._state / "result").read_text().strip()
        if not result:
            print("vm: the guest ended without a result", file=sys.stderr)
            for log in ("files.log", "console"):
                print((self._state / log).read_text(errors="replace")[-8000:], file=sys.stderr)
            return NO_RESULT
        return int(result)


def run(command: str, seconds: float) -> int:
    """Run a shell script in the guest; its output is passed on to ours. Gives its exit code,
    TIMED_OUT, or NO_RESULT where the guest ended without one. Raises Missing."""
    with Machine(command) as machine:
        if not _pass_on(machine.output, time.monotonic() + seconds):
            print(f"vm: stopped, it took more than {seconds:.0f} s", file=sys.stderr)
            return TIMED_OUT
        return machine.result()


def _serve_files(state: Path, undo: ExitStack) -> None:
    """Give the guest the host's files at a socket."""
    if os.geteuid():  # overlayfs opens files with O_NOATIME, which is for their owner or root
        raise Missing("root is missing: the guest could open none but your own files")
    root = str(state / "root")
    private = [
        _program("unshare"),
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        _READ_ONLY,
        "sh",
        root,
    ]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state / "files"))
        listener.listen(1)
        serve = [_program(_VIRTIOFSD), f"--fd={listener.fileno()}", "-f"]
        serve += ["-o", f"source={root}", "-o", "cache=always", "-o", "log_level=err"]
        with (state / "files.log").open("wb") as log:
            _start([*private, *serve], undo, stderr=log, pass_fds=(listener.fileno(),))


@cache
def _accelerator() -> str:
    """KVM where it runs this kernel up to its panic for want of files; else QEMU's emulation."""
    boot = [*_bound(), *_qemu("kvm"), "-m", "256M", "-serial", "stdio", "-kernel", str(kernel())]
    boot += ["-append", "console=ttyS0 panic=-1"]
    try:
        tried = subprocess.run(
            boot, capture_output=True, stdin=subprocess.DEVNULL, timeout=_KVM_WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        return "tcg"
    return "kvm" if b"Kernel panic" in tried.stdout else "tcg"


def _qemu(accelerator: str) -> list[str]:
    # 5-level page tables only make the emulation slower
    processor = "host" if accelerator == "kvm" else "max,la57=off"
    return [
        *(_program("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none", "-accel", accelerator, "-cpu", processor),
    ]


def _devices(state: Path) -> list[str]:
    def port(name: str) -> list[str]:
        return ["-device", f"virtserialport,chardev={name},name={name}"]

    return [
        *("-machine", "q35,memory-backend=memory", "-m", MEMORY),
        *("-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on"),
        *("-kernel", str(kernel()), "-initrd", str(state / "initramfs")),
        *("-append", "console=ttyS0 quiet panic=-1"),
        *("-chardev", f"file,id=console,path={state / 'console'}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=files,path={state / 'files'}"),
        *("-device", "vhost-user-fs-pci,chardev=files,tag=host"),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        *("-chardev", "file,id=output,path=/dev/stdout", *port("output")),
        *("-chardev", f"file,id=result,path={state / 'result'}", *port("result")),
    ]


def _cards(nics: Sequence[Nic]) -> list[str]:
    return [
        option
        for number, nic in enumerate(nics)
        for option in (
            *("-netdev", f"tap,id=net{number},fd={nic.tap}"),
            *("-device", f"virtio-net-pci,netdev=net{number},mac={nic.mac}"),
        )
    ]


def _start(argv: Sequence[str], undo: ExitStack, **options: Any) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*_bound(), *argv], stdin=subprocess.DEVNULL, start_new_session=True, **options
    )
    undo.callback(process.wait)
    undo.callback(process.kill)
    return process


def _bound() -> list[str]:
    """Begins the command line of a process that ends when this one does, however that ends."""
    return [_program("setpriv"), "--pdeathsig", "KILL"]


def _pass_on(output: IO[bytes], deadline: float) -> bool:
    """Copy to our standard output up to the end; whether that came before the deadline."""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            data = os.read(output.fileno(), 65536)
            if not data:
                return True
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    return False


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is missing: run {Path(__file__).with_name('setup.sh')}")
    return found
