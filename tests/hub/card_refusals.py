"""What the Hub refuses in a model card, in its words, as people have reported them: for the hub on loopback.

It is written without a look at our rules. The list of licences is that of huggingface_hub #4218; `no` is a text, as in
YAML 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0
cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0
cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl
gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr
mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
grok2-community gemma unknown other
"""
_ID = re.compile(r"(?!null$)(?:\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
_LANGUAGE = re.compile("[a-z]{2,3}|code|multilingual")
_NOT_ISO = {"jp", "cn"}
_LANGUAGE_SAYS = (
    'It must be an ISO 639-1, 639-2 or 639-3 code (two/three letters), or a special value like "code", "multilingual".'
)


class _Loader(yaml.BaseLoader):
    """Every scalar a text; a key that is there twice is an error, as for js-yaml."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(set(map(str, keys))) < len(keys):
            raise yaml.YAMLError("duplicated mapping key")
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True))


def refusals(content: str) -> list[str]:
    """Messages of the errors; none for a card that is taken."""
    match = re.match(r"---\r?\n(.*?)^---\s*$", content, re.DOTALL | re.MULTILINE)
    if match is None:
        return []
    try:
        keys = yaml.load(match[1], Loader=_Loader)
    except yaml.YAMLError as e:
        return [f"Error parsing YAML: {' '.join(str(e).split())}"]
    return list(_refusals(keys)) if isinstance(keys, dict) else ["Expected an object"]


def _refusals(keys: dict[str, Any]) -> Iterator[str]:
    for key, says, takes in (
        ("base_model", "Use a model id from https://hf.co/models.", _ID.fullmatch),
        ("new_version", "Use a model id from https://hf.co/models.", _ID.fullmatch),
        ("datasets", "If possible, use a dataset id from https://hf.co/datasets.", _ID.fullmatch),
        ("language", _LANGUAGE_SAYS, lambda t: _LANGUAGE.fullmatch(t) and t not in _NOT_ISO),
    ):
        value = keys.get(key, ())
        for i, entry in enumerate(value if isinstance(value, list) else [value] if key in keys else ()):
            where = f"{key}[{i}]" if isinstance(value, list) else key
            if not isinstance(entry, str) or not takes(entry):
                yield f'"{where}" with value "{entry}" is not valid. {says}'
    if "license" in keys:
        value = keys["license"]
        if not all(entry in _LICENSES.split() for entry in (value if isinstance(value, list) else [value])):
            yield f'"license" must be one of [{", ".join(_LICENSES.split())}, array]'
    for key in ("tags", "metrics", "widget", "model-index"):
        if key in keys and not isinstance(keys[key], list):
            yield f'"{key}" must be an array'
    index = keys.get("model-index")
    for i, model in enumerate(index if isinstance(index, list) else ()):
        if not isinstance(model, dict) or not _ID.fullmatch(str(model.get("name", ""))):
            yield f'"model-index[{i}].name" is not valid'
        elif not isinstance(model.get("results"), list):
            yield f'"model-index[{i}].results" is required'
