"""Scores the ends of a sentence with every quantization of a model: what does each of them think is likely?

python examples/score_with_every_quant.py [SOURCE [FOLDER]]
"""

from __future__ import annotations

import sys
from pathlib import Path

from pythia_gguf import load, quantize

NANO = Path(__file__).parent / "nano"
PROMPT, ENDS = "import", (" sys", " os", " banana")


def main(source: str = str(NANO), folder: str = "out/nano-GGUF") -> None:
    """Quantize what is missing, then score with one file after the other."""
    files = [file for file in quantize(source, folder, keep_f16=True).files if file.alias_of is None]
    print(f"log-likelihoods in nats after {PROMPT!r}")
    print("quant ", *(f"{end!r:>10}" for end in ENDS))
    for file in files:
        scores = load(file.path).score([(PROMPT, end) for end in ENDS])
        print(f"{file.quant:6}", *(f"{score.logprob:10.4f}" for score in scores))


if __name__ == "__main__":
    main(*sys.argv[1:])
