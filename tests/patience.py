"""How long a test waits for a process that it has started."""

from __future__ import annotations

# Seconds after which a process hangs for sure. Not how long anything may take: on a slow machine with an empty cache a
# command compiles every kernel first, and that has taken 150.
HANGS_S = 600
