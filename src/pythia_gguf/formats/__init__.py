"""Block layouts and their decode, one file per format: the definition, slow and obvious.

`FORMATS` is the one list of formats; every other list is derived from it.
"""

from pythia_gguf.formats.format import Format
from pythia_gguf.formats.iq4_nl import IQ4_NL
from pythia_gguf.formats.iq4_xs import IQ4_XS
from pythia_gguf.formats.plain import BF16, F16, F32
from pythia_gguf.formats.q2_k import Q2_K
from pythia_gguf.formats.q3_k import Q3_K
from pythia_gguf.formats.q4_0 import Q4_0
from pythia_gguf.formats.q4_1 import Q4_1
from pythia_gguf.formats.q4_k import Q4_K
from pythia_gguf.formats.q5_0 import Q5_0
from pythia_gguf.formats.q5_1 import Q5_1
from pythia_gguf.formats.q5_k import Q5_K
from pythia_gguf.formats.q6_k import Q6_K
from pythia_gguf.formats.q8_0 import Q8_0

__all__ = ["FORMATS", "FORMAT_OF_ID", "Format"]

FORMATS: dict[str, Format] = {
    f.name: f for f in (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS)
}
FORMAT_OF_ID: dict[int, Format] = {f.ggml_id: f for f in FORMATS.values()}
