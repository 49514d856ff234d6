"""Measures what each quantization of a model costs on a text, and draws perplexity and divergence against size.

    python examples/measure_and_draw.py [SOURCE [FOLDER [TEXT]]]

It needs matplotlib: pip install ".[eval]".
"""

from __future__ import annotations

import sys
from pathlib import Path

from pythia_gguf import quantize
from pythia_gguf.evals.files import measure_files
from pythia_gguf.evals.plots import plot_reports
from pythia_gguf.evals.report import read_report
from pythia_gguf.files import sha256_of

NANO = Path(__file__).parent / "nano"


def main(source: str = str(NANO), folder: str = "out/nano-GGUF", text: str = str(NANO / "heldout.txt")) -> None:
    """Quantize what is missing, measure four windows of the text, draw."""
    quantize(source, folder, keep_f16=True)
    path = Path(folder) / "quick-report.json"
    measure_files([folder], text=text, n_windows=4, out=path, force=True)
    report = read_report(path)
    for row in sorted(report["files"], key=lambda row: row["bits_per_weight"]):
        print(f"{row['quant']:6} {row['bits_per_weight']:5.2f} bits per weight, divergence {row['kl_mean']:.5f} nats")
    for picture in plot_reports({path.name: report}, [sha256_of(path)], Path(folder)):
        print(picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
