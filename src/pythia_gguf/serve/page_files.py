"""The page at "/": files beside this one, which load nothing from anywhere else."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response
from starlette.responses import FileResponse

from pythia_gguf.serve.refusals import RefusalError

# "/" is its index.html, and "/page/NAME" any other.
PAGE = Path(__file__).parent / "page"
# Types are named here because a machine's own table may have others, and scripts of a wrong type do not run.
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Another version of the server may have another page: the browser asks whether it has changed.
    "cache-control": "no-cache",
}


def is_public(path: str) -> bool:
    """Whether a path is for everyone: it says whether the server lives, or is a file of the page."""
    return path in ("/health", "/") or path.startswith("/page/")


def add_page(app: FastAPI) -> None:
    """Add its routes."""

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _answer("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        return _answer(name)


def _answer(name: str) -> Response:
    if name not in {path.name for path in PAGE.iterdir()}:
        raise RefusalError("no_such_route", "the page has no such file")
    return FileResponse(PAGE / name, media_type=_TYPES[Path(name).suffix], headers=_HEADERS)
