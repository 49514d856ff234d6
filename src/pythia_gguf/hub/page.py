"""Turns addresses of pages of the Hub, as people paste them, into NAME[@STEP][:QUANT]."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote

from pythia_gguf.errors import UsageError, one_line

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_SCHEME = re.compile(r"(?P<scheme>https?|hf)://(?P<rest>.*)", re.IGNORECASE)
_USER = re.compile(r"^(\w+://)[^/@]*@")  # may hold a token: never shown, and not needed
_GIT = re.compile(r"(?:ssh://)?git@(?P<host>[\w.-]+)[:/](?P<rest>.*)", re.IGNORECASE)
# First words of addresses that look like a model's and are pages of something else.
_OTHER_PAGES = {
    "datasets": "a data set",
    "spaces": "a space",
    "collections": "a collection",
    "papers": "a paper",
    "docs": "documentation",
    "blog": "a blog",
    "kernels": "a kernel",
}
_OF_REVISIONS = ("tree", "commit", "commits", "blob", "resolve", "raw", "blame", "edit")


def is_page(text: str) -> bool:
    """Whether a text is an address rather than a name or a path: it has a scheme, or begins with a host of the Hub."""
    text = text.strip()
    return bool(
        _SCHEME.match(text) or _GIT.match(text) or text.lower().startswith(tuple(f"{host}/" for host in _HOSTS))
    )


def name_on_page(text: str, endpoint: str) -> str:
    """The name of the model whose page it is: "OWNER/NAME[@REVISION][:QUANT]"; the last two may follow the address.

    The page of a GGUF, or the address of the file itself, gives "OWNER/NAME@REVISION:FILE".

    endpoint  address of the hub; its pages and those of huggingface.co are accepted
    Raises    UsageError for other hosts, for pages of anything but a model, for any other file of a repository, and for
              two revisions
    """
    text = _USER.sub(r"\1", text.strip())
    shown = one_line(text, 150)
    path, _, query = _path(text, shown, endpoint).partition("#")[0].partition("?")
    parts = [unquote(part) for part in path.split("/") if part]
    if parts[:1] == ["models"]:
        parts = parts[1:]
    if parts and parts[0] in _OTHER_PAGES:
        raise UsageError(f"{shown} is {_OTHER_PAGES[parts[0]]}, not a model")
    if len(parts) < 2:
        raise UsageError(f"{shown} is no page of a model: expected OWNER/NAME after the host")
    name = f"{parts[0]}/{parts[1].removesuffix('.git')}"
    # What the Hub shows beside the page, and how huggingface_hub writes a file.
    shown_file = parse_qs(query).get("show_file_info", [""])[0]
    if len(parts) > 2 and parts[2] not in _OF_REVISIONS and text.lower().startswith("hf://"):
        shown_file = "/".join(parts[2:])
    if shown_file.lower().endswith(".gguf"):
        revision = f"@{parts[3]}" if len(parts) == 4 and parts[2] in _OF_REVISIONS else ""
        return f"{name}{revision}:{shown_file}"
    if len(parts) == 2:
        return name
    if parts[2] not in _OF_REVISIONS or len(parts) == 3:
        raise UsageError(f"{shown} is no page of a revision. Give {name}")
    revision, colon, quant = parts[3].partition(":")
    if "@" in name + revision:
        raise UsageError(f"{shown} names two revisions")
    if len(parts) > 4:
        if not parts[-1].lower().endswith(".gguf"):
            raise UsageError(f"{shown} is one file of a repository. Give {name}@{revision}")
        colon, quant = ":", "/".join(parts[4:])
    return f"{name}@{revision}{colon}{quant}"


def _path(text: str, shown: str, endpoint: str) -> str:
    """The path after the host."""
    if text.lower().startswith(f"{endpoint.lower()}/"):
        return text[len(endpoint) :]
    if git := _GIT.fullmatch(text):
        host, rest = git["host"], git["rest"]
    elif (match := _SCHEME.fullmatch(text)) and match["scheme"].lower() == "hf":
        return match["rest"]
    else:
        host, _, rest = (match["rest"] if match else text).partition("/")
    if host.lower() not in _HOSTS:
        raise UsageError(f"{shown} is not at {endpoint}: models come from there")
    return rest
