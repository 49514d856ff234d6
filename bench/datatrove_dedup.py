"""Near-duplicates by datatrove's MinHash, for `bench_dedup.py`, in a Python that has datatrove.

    python datatrove_dedup.py CORPUS WORK BANDS ROWS WORKERS

Reads CORPUS/*.jsonl, whose documents have an "id"; prints the seconds of all four stages, and writes the ids of the
documents that stay to WORK/kept.txt.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path


def stages(corpus: Path, work: Path, bands: int, rows: int, workers: int) -> None:
    """Signatures, pairs that share a band, clusters, and the corpus without all but one of each."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.typeshelper import Languages

    # num_buckets are bands and hashes_per_bucket rows: swapped, nearly nothing or nearly everything is found.
    config = MinhashConfig(n_grams=5, num_buckets=bands, hashes_per_bucket=rows)
    n_files = len(list(corpus.glob("*.jsonl")))
    reader = JsonlReader(str(corpus), glob_pattern="*.jsonl")
    steps = [
        ([reader, MinhashDedupSignature(str(work / "1"), config, language=Languages.english)], n_files),
        ([MinhashDedupBuckets(str(work / "1"), str(work / "2"), config=config)], bands),
        ([MinhashDedupCluster(str(work / "2"), str(work / "3"), config=config)], 1),
        ([reader, MinhashDedupFilter(str(work / "3")), JsonlWriter(str(work / "4"))], n_files),
    ]
    for i, (pipeline, tasks) in enumerate(steps):
        logs = str(work / f"logs{i}")
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=workers, logging_dir=logs).run()


def main() -> None:
    """One run."""
    corpus, work = map(Path, sys.argv[1:3])
    started = time.perf_counter()
    stages(corpus, work, *map(int, sys.argv[3:6]))
    seconds = time.perf_counter() - started
    with open(work / "kept.txt", "w", encoding="utf-8") as out:
        for path in sorted((work / "4").glob("*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as file:
                out.writelines(f"{json.loads(line)['id']}\n" for line in file)
    print(seconds)


if __name__ == "__main__":
    main()
