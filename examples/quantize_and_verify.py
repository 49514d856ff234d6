"""Makes all 19 quantizations of a model in one read, and checks every byte of them.

    python examples/quantize_and_verify.py [SOURCE [FOLDER]]

SOURCE is a Hugging Face folder or a name such as pythia-70m@step3000; without one it is the sample.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pythia_gguf import quantize, verify

NANO = Path(__file__).parent / "nano"


def main(source: str = str(NANO), folder: str = "out/nano-GGUF") -> None:
    """Quantize, verify, and show why one tensor got its format."""
    result = quantize(source, folder, keep_f16=True)
    for file in result.files:
        same = f", the same bytes as {file.alias_of}" if file.alias_of else ""
        print(f"{file.path.name}: {file.n_bytes:,} bytes, {file.bits_per_weight:.2f} bits per weight{same}")
        format_name, reason = file.plan["blk.0.ffn_down.weight"]
        print(f"    blk.0.ffn_down.weight is {format_name}: {reason}")

    verdicts = list(verify(folder))
    damaged = [verdict for verdict in verdicts if verdict.state != "ok"]
    print(f"{len(verdicts)} files checked, {len(damaged)} of them damaged")


if __name__ == "__main__":
    main(*sys.argv[1:])
