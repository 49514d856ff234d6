"""The long tests of `pythia serve`: `make campaign-serve`, some ten minutes; all traffic stays on this machine.

1,000 requests whose bits must not depend on what else runs; 100,000 mutated raw requests; 20,000 requests over 64
connections, after which memory has grown by less than 100 bytes a request; 700 slow connections; 2,000 clients in waves
of 200 that leave mid-stream; 1,000 examples an operation from Schemathesis.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from serve.running import running, two_models  # noqa: E402
from serve.storms import be_slow, crowd, leave_in_waves, read_nothing, send_mutants  # noqa: E402
from serve.test_same_bits import answers, requests  # noqa: E402

MOST_BYTES_A_REQUEST = 100


def main() -> None:
    """Run all of them; the first failure ends it."""
    same_bits(1_000)
    storms()
    environment = os.environ | {"PYTHIA_GGUF_EXAMPLES": "1000"}
    program = [sys.executable, "-m", "pytest", "-q", "tests/serve/test_openapi.py"]
    subprocess.run(program, cwd=ROOT, env=environment, check=True)


def same_bits(n: int) -> None:
    """Alone, and among eight in two orders, with kept beginnings and without."""
    asked = requests(n)
    with running(*two_models()) as server:
        alone = answers(server, asked, 1, 1)
        assert answers(server, asked, 8, 2) == alone
    with running(*two_models(), "--no-prefix-cache") as server:
        assert answers(server, asked, 8, 3) == alone
    say(f"{n} requests three times: 0 differing bits")


def storms() -> None:
    """One server bears all of it."""
    with running(two_models()[0]) as server:
        send_mutants(server, 100_000, seed=1, limit_s=0.1)
        say("100,000 mutated requests: the same process, and nobody waited")
        crowd(server, 2_000, 64)
        before = server.memory_bytes()
        crowd(server, 20_000, 64)
        grown = (server.memory_bytes() - before) / 20_000
        say(f"20,000 requests over 64 connections: {grown:.1f} bytes of memory a request")
        assert grown < MOST_BYTES_A_REQUEST
        be_slow(server, 700)
        say("700 slow connections: shut or refused")
        read_nothing(server, 90)
        say("a client that reads nothing was cut off")
        leave_in_waves(server, 10, 200, limit_s=1.0)
        say("2,000 clients left mid-stream: nothing is kept of them")


def say(text: str) -> None:
    """Print with the time."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()
