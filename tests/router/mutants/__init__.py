# SPDX-License-Identifier: GPL-2.0-or-later
"""Each mechanism of K1 to K14, taken out once, and the tests that must notice.

`make test-mutations` (mutations.py) does it. The tests named are those that look from outside, at
packets and answers; that others, which look at texts, fail as well says less. Without an egress
hook in the kernel its mutants survive.
"""

from __future__ import annotations

from .blocking import BLOCKING
from .deception import DECEPTION
from .lasting import LASTING
from .mutant import Mutant
from .people import PEOPLE

__all__ = ["MUTANTS", "Mutant"]

MUTANTS = (*BLOCKING, *LASTING, *DECEPTION, *PEOPLE)
