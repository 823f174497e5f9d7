# SPDX-License-Identifier: GPL-2.0-or-later
"""A port of this machine's loopback that leads to the page on the virtual router.

The listening socket is made before the program goes into its private namespaces and is handed
through (a socket stays where it was made); what it accepts is carried to the router from a host
on its LAN.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

from . import addresses as at
from .appliance import WEB_PORT
from .namespace import Namespace

_VARIABLE = "PORTCULLIS_DOORWAY"


def prepare(port: int) -> None:
    """Before `isolate()`: listen on loopback, on another port where this one is taken."""
    if _VARIABLE in os.environ:
        return
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    listener.listen(32)
    os.environ[_VARIABLE] = str(os.dup(listener.fileno()))
    os.set_inheritable(int(os.environ[_VARIABLE]), True)


def open_up(host: Namespace) -> str:
    """Lead what comes to the router, by way of `host`; the address to give a browser."""
    listener = socket.socket(fileno=int(os.environ[_VARIABLE]))
    threading.Thread(target=_accept, args=(listener, host), daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def _accept(listener: socket.socket, host: Namespace) -> None:
    while True:
        visitor, _ = listener.accept()
        try:
            inside = host.socket(socket.AF_INET, socket.SOCK_STREAM)
            inside.connect((at.ROUTER_LAN.v4, WEB_PORT))
        except OSError:
            visitor.close()
            continue
        for pair in ((visitor, inside), (inside, visitor)):
            threading.Thread(target=_carry, args=pair, daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while octets := source.recv(65536):
            target.sendall(octets)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
