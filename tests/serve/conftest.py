"""One server for all tests of a process that only ask it something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serve.running import RunningServer, running, two_models


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    with running(*two_models(), "--threads", "2") as started:
        yield started
