# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine with Debian's kernel, for tests of what the kernel at hand may lack.

The guest has the host's files, read-only, under an overlay in memory; it leaves nothing behind.
"""
