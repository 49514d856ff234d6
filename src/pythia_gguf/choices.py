"""What may be chosen by name when a model is run: the one list of each, for Python and for the command line.

This module loads nothing, so that `--help` may read it.
"""

from __future__ import annotations

GELUS = ("erf", "tanh")
# auto: the form that the files beside the model name.
ANY_GELU = ("auto", *GELUS)
# Activations that products take, the default first.
ACTIVATIONS = ("int8", "float32", "bf16x3")
# How keys and values are kept; auto: as the file's weights are.
CACHES = ("auto", "f16", "f32")
# How prompt and continuation become tokens: as one text, or each by itself.
ENCODINGS = ("joint", "separate")
# How a conversation becomes a prompt; see `serve.chat`.
CHAT_FORMATS = ("dialogue", "dolly", "oasst")
