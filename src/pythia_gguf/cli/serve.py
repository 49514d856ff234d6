"""`pythia serve`: models over HTTP, as OpenAI's completions."""

from __future__ import annotations

import asyncio
import re
import secrets
import webbrowser
from pathlib import Path

import click

from pythia_gguf.choices import CHAT_FORMATS
from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.model_options import LoadOptions, loading_options
from pythia_gguf.errors import Argument, StorageError, UsageError, one_line

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class _Bytes(click.ParamType):
    """A size such as 8G or 500M."""

    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([KMGT]?)", str(value).upper())
        if match is None:
            self.fail(f"{value!r} is no size: write it as 8G or 500M", param, ctx)
        return int(float(match[1]) * _UNITS[match[2]])


@click.command("serve", cls=Command)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@loading_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; others than loopback need a key.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--api-key-file", type=click.Path(dir_okay=False, path_type=Path), help="Holds the key; made where it is missing."
)
@click.option(
    "--allowed-host", multiple=True, metavar="NAME", help="A name in Host headers; may be given several times."
)
@click.option(
    "--parallel",
    "n_parallel",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Texts at a time, per model.",
)
@click.option("--context", type=click.IntRange(1), help="Most tokens of a text.  [default: what the model has]")
@click.option("--memory", type=_Bytes(), default="8G", show_default=True, help="For weights, keys and values together.")
@click.option("--chat-format", type=click.Choice(CHAT_FORMATS), help="Take conversations, written down like this.")
@click.option("--no-prefix-cache", is_flag=True, help="Forget each text when it ends; changes no answer.")
@click.option("--check", "only_checks", is_flag=True, help="Take the port, load the first model, say where, and end.")
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
def command(
    models: tuple[str, ...],
    host: str,
    port: int,
    api_key_file: Path | None,
    allowed_host: tuple[str, ...],
    n_parallel: int,
    context: int | None,
    memory: int,
    chat_format: str | None,
    no_prefix_cache: bool,
    only_checks: bool,
    opens: bool,
    loading: LoadOptions,
) -> None:
    """Serve models over HTTP: OpenAI's completions, with the likelihood of every token of prompt and text.

    MODEL is what the other commands take, or a folder: all GGUF files in it, or the steps of a run. The first is loaded
    now, others when they are asked for. Needs the extra "serve".

    \b
    pythia serve pythia-410m.Q4_K_M.gguf
    pythia serve pythia-410m-GGUF --memory 4G --open
    pythia serve my-run --host 0.0.0.0 --api-key-file key.txt --allowed-host models.example.org
    """
    try:
        from pythia_gguf.serve.registry import Registry, ServeOptions
        from pythia_gguf.serve.server import listen, serve
        from pythia_gguf.serve.sources import sources_of
    except ModuleNotFoundError as e:
        raise UsageError(f'serving needs fastapi and uvicorn: pip install "pythia-gguf[serve]" ({e})') from e
    from pythia_gguf.cli.progress import make_progress

    if only_checks:
        refuse_given("opens", "with ", Argument("only_checks", True))
    sources = sources_of(models)
    key = None if api_key_file is None else _key_in(api_key_file)
    options = ServeOptions(
        n_parallel=n_parallel,
        context=context,
        memory_bytes=memory,
        progress=make_progress,
        threads=loading.threads,
        gelu=loading.gelu,
        activations=loading.activations,
        cache=loading.cache,
        chat_format=chat_format,
        keeps_prefixes=not no_prefix_cache,
    )
    registry = Registry(sources, options)
    with listen(host, port, key) as listening:
        loaded = registry.load_first().model
        if loaded.activations != loading.activations:
            refuse_given("activations", f"on weights that are not quantized: they take {loaded.activations}")
        address, bound = listening.getsockname()[:2]
        place = f"http://{f'[{address}]' if ':' in address else address}:{bound}"

        def tell() -> None:
            _tell(place, api_key_file, registry.first)
            if opens:
                webbrowser.open(place)

        if only_checks:
            tell()
            return
        asyncio.run(serve(registry, listening, hosts=allowed_host, key=key, on_ready=tell))


def _key_in(path: Path) -> str:
    """The key in a file; a new one, which only the user can read, where there is no file."""
    try:
        if not path.exists():
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(f"{secrets.token_urlsafe(32)}\n", "ascii")
        key = path.read_text("ascii").strip()
    except OSError as e:
        raise StorageError(f"{one_line(str(path))}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UsageError(Argument("api_key_file"), ": a key has only ASCII characters") from e
    if not key or not key.isprintable() or " " in key:
        raise UsageError(Argument("api_key_file"), f": {one_line(str(path))} must hold one word: the key")
    return key


def _tell(place: str, key_file: Path | None, model: str) -> None:
    """Three lines: where the server is, where its key is, and a command that works."""
    key = "" if key_file is None else f" -H \"Authorization: Bearer $(cat '{key_file}')\""
    click.echo(f"serving at {place}")
    click.echo("no key is needed from this machine" if key_file is None else f"the key is in {key_file}")
    body = f'{{"model": "{model}", "prompt": "Hello, I am", "max_tokens": 16, "logprobs": 1}}'
    click.echo(f"curl {place}/v1/completions -H 'Content-Type: application/json'{key} -d '{body}'")
