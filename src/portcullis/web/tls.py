# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS with the certificate uhttpd has, in the forms its init script makes (PEM or DER).

`ssl` wants files; the key is given to it in memory (memfd) and touches no file system.
"""

from __future__ import annotations

import base64
import os
import ssl

_DASHES = b"-----BEGIN "


def context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """Raises ssl.SSLError or ValueError where the two are no certificate and its key."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    descriptor = os.memfd_create("portcullis-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, _pem(certificate, "CERTIFICATE") + _pem(key, _kind(key)))
        found.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return found


def _pem(content: bytes, label: str) -> bytes:
    if _DASHES in content:
        return content.rstrip(b"\n") + b"\n"
    lines = base64.encodebytes(content).decode()
    return f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n".encode()


def _kind(key: bytes) -> str:
    """The label of a key in DER, by what follows its version: PKCS #8 (an algorithm, a SEQUENCE),
    PKCS #1 (a number: RSA) or SEC 1 (octets: EC)."""
    if _DASHES in key:
        return ""
    if len(key) < 8 or key[0] != 0x30:
        raise ValueError("the key is neither PEM nor DER")
    start = 2 + (key[1] & 0x7F if key[1] & 0x80 else 0)
    after = key[start + 3 : start + 4]
    return {b"\x30": "PRIVATE KEY", b"\x02": "RSA PRIVATE KEY", b"\x04": "EC PRIVATE KEY"}.get(
        after, "PRIVATE KEY"
    )
