# SPDX-License-Identifier: GPL-2.0-or-later
"""The module `ubus` for programs that have this directory on their path.

It is imported from outside its package, so it first loads the package under a name of its own; the
path stays as it is.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

_PACKAGE = "ubus_standin"
_HOME = Path(__file__).resolve().parent


def _load() -> Any:
    if _PACKAGE not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            _PACKAGE, _HOME / "__init__.py", submodule_search_locations=[str(_HOME)]
        )
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[_PACKAGE] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{_PACKAGE}.binding")


_binding = _load()

connect = _binding.connect
disconnect = _binding.disconnect
get_connected = _binding.get_connected
get_socket_path = _binding.get_socket_path
send = _binding.send
listen = _binding.listen
loop = _binding.loop
add = _binding.add
objects = _binding.objects
call = _binding.call
__ResponseHandler = _binding.ResponseHandler

BLOBMSG_TYPE_UNSPEC = 0
BLOBMSG_TYPE_ARRAY = 1
BLOBMSG_TYPE_TABLE = 2
BLOBMSG_TYPE_STRING = 3
BLOBMSG_TYPE_INT64 = 4
BLOBMSG_TYPE_INT32 = 5
BLOBMSG_TYPE_INT16 = 6
BLOBMSG_TYPE_INT8 = 7
BLOBMSG_TYPE_BOOL = 7
BLOBMSG_TYPE_DOUBLE = 8
