"""Why a request does not have its shape, as one refusal that names the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pythia_gguf.arguments import shown
from pythia_gguf.errors import nearest, one_line
from pythia_gguf.serve import shapes
from pythia_gguf.serve.refusals import RefusalError

# Fields that may be of several kinds: what pydantic says of each kind would be many lines.
_SEVERAL = {
    "prompt": f"must be a text, token ids, or a list of 1 to {shapes.MOST_PROMPTS} of either",
    "stop": f"must be a text of 1 to {shapes.MOST_STOP_CHARS} characters, or a list of at most {shapes.MOST_STOPS}",
}
# Fields of OpenAI's that only have the value that changes nothing.
_UNSUPPORTED = ("best_of", "suffix", "user", "presence_penalty", "frequency_penalty")


def refusal_of_fields(errors: Sequence[Mapping[str, Any]], known: Iterable[str]) -> RefusalError:
    """The first of pydantic's errors, in our words; `known` are fields that the request may have."""
    error = errors[0]
    kind, place = error["type"], [part for part in error["loc"] if part not in ("body", "query")]
    if kind == "json_invalid":
        return RefusalError("bad_json", str(error["ctx"]["error"]))
    if not place:
        return RefusalError("bad_json", "the body must be a JSON object, sent as application/json")
    field = str(place[0])
    name = one_line(field, 80)
    if kind == "missing" and len(place) == 1:
        return RefusalError("bad_value", f"{name} is missing", field)
    if kind == "extra_forbidden":
        where = one_line(".".join(map(str, place)), 80)
        return RefusalError(
            "unsupported", f"{where} is no field that is known here{nearest(str(place[-1]), known, 1)}", field
        )
    if field in _UNSUPPORTED:
        return RefusalError("unsupported", f"{name} is not supported: leave it out", field)
    said = _SEVERAL.get(field) or f"{error['msg'][0].lower()}{error['msg'][1:]}, got {shown(error['input'])}"
    return RefusalError("bad_value", f"{name}: {said}", field)
