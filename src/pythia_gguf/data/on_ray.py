"""The steps of `dedup_steps.py` as tasks of a Ray cluster: one for the signatures of each file, and one for the rest.

Every node must see the corpus and the folder of the results under the same paths, and have this package.
"""

from __future__ import annotations

import dataclasses
import re
import socket
from typing import Any

from pythia_gguf.data.dedup_steps import Job
from pythia_gguf.errors import Argument, NetworkError, PythiaGGUFError, UsageError, one_line
from pythia_gguf.progress import Progress, Silence

_ANSWERS_IN_S = 10


def run_on_ray(job: Job, address: str, progress: Progress) -> dict[str, Any]:
    """Do a job on the cluster at an address, or on one of this machine that "local" starts and ends.

    Returns  what its report says
    Raises   UsageError, NetworkError where no cluster answers, and what the steps raise
    """
    try:
        import ray
    except ImportError:
        raise UsageError("a Ray cluster needs ray. Run: pip install 'pythia-gguf[ray]'") from None

    _check(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as e:
        raise NetworkError(f"no Ray cluster answers at {one_line(address)}: {one_line(str(e))}") from e
    # Tasks run in folders of their own.
    job = dataclasses.replace(job, paths=[path.absolute() for path in job.paths], out=job.out.absolute())
    try:
        as_task: Any = ray.remote(num_cpus=1)
        sign, merge = as_task(_sign), as_task(_merge)
        waiting = {sign.remote(job, i): path.name for i, path in enumerate(job.paths)}
        progress.stage("reading documents", len(waiting), "files")
        while waiting:
            done, _ = ray.wait(list(waiting))
            ray.get(done)
            for each in done:
                progress.advance(waiting.pop(each), 1)
        progress.stage("finding duplicates", 1, "tasks")
        told: dict[str, Any] = ray.get(merge.remote(job))
        progress.advance("all files", 1)
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, PythiaGGUFError):
            raise e.cause from None
        raise
    finally:
        ray.shutdown()
    return told


def _check(address: str) -> None:
    """Raise where nobody listens: Ray itself would ask for minutes, and write warnings."""
    match = re.fullmatch(r"(?:ray://)?(.+):([0-9]{1,5})", address)
    if match is None and address not in ("local", "auto"):
        raise UsageError(Argument("ray"), f" must be HOST:PORT, local or auto, got {address!r}")
    try:
        if match is not None:
            socket.create_connection((match[1], int(match[2])), _ANSWERS_IN_S).close()
    except (OSError, OverflowError) as e:
        raise NetworkError(f"no Ray cluster answers at {one_line(address)}: {e}") from e


def _sign(job: Job, i: int) -> None:
    with job.work(1) as workers:
        job.sign(i, workers, Silence())


def _merge(job: Job) -> dict[str, Any]:
    with job.work(1) as workers:
        return job.merge(workers, Silence())
