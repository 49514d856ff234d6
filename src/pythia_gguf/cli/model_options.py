"""The options of every command that runs a model."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.choices import ACTIVATIONS, ANY_GELU, CACHES, ENCODINGS
from pythia_gguf.cli.command import refuse_given

if TYPE_CHECKING:
    from pythia_gguf.engine.model import Model

_OPTIONS = (
    click.option("--threads", type=int, help="Threads; no result depends on it.  [default: one per CPU]"),
    click.option(
        "--gelu",
        type=click.Choice(ANY_GELU),
        default="auto",
        show_default=True,
        help="Form of the activation: erf as on the Hub, tanh as in training and in llama.cpp. auto: what the manifest"
        " or config.json beside the file says, else erf.",
    ),
    click.option(
        "--activations",
        type=click.Choice(ACTIVATIONS),
        default=ACTIVATIONS[0],
        show_default=True,
        help="int8 is fast; float32, which F16 and F32 weights take instead of it, shows the error of the weights"
        " alone; bf16x3 gives nearly its numbers several times faster, on processors with AMX.",
    ),
    click.option(
        "--kv",
        "cache",
        type=click.Choice(CACHES),
        default="auto",
        show_default=True,
        help="How keys and values are kept; auto: f32 for F32 files, else f16.",
    ),
)
_output_format = click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
encoding_option = click.option(
    "--encoding",
    type=click.Choice(ENCODINGS),
    default=ENCODINGS[0],
    show_default=True,
    help="joint: prompt and continuation are one text, as in lm_eval today; separate: each is encoded by itself, as for"
    " the published scores of Pythia.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a model is to be loaded; see the options."""

    threads: int | None
    gelu: str
    activations: str
    cache: str

    def load(self, model: str, *, is_quiet: bool = False) -> Model:
        """The model, with progress on stderr while it is fetched, pressed, compiled and loaded.

        Its file stays until the command ends, even if another process prunes the cache: results hold its hash.
        """
        from pythia_gguf.cli.progress import make_progress
        from pythia_gguf.engine.model import load
        from pythia_gguf.models.find import found_gguf

        def tell(line: str) -> None:
            if not is_quiet:
                click.echo(line, err=True)

        with contextlib.nullcontext() if is_quiet else make_progress() as progress:
            found = found_gguf(model, threads=self.threads, progress=progress, tell=tell)
            loaded = load(
                click.get_current_context().with_resource(found),
                threads=self.threads,
                gelu=self.gelu,
                activations=self.activations,
                cache=self.cache,
                progress=progress,
            )
        if loaded.activations != self.activations:
            refuse_given("activations", f"on weights that are not quantized: they take {loaded.activations}")
        for note in loaded.notes:
            tell(note)
        return loaded


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the `loading_options`, and --output-format."""
    return loading_options(_output_format(command))


def loading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: --threads, --gelu, --activations and --kv as `loading`."""

    @functools.wraps(command)
    def given(*, threads: int | None, gelu: str, activations: str, cache: str, **others: Any) -> None:
        command(loading=LoadOptions(threads=threads, gelu=gelu, activations=activations, cache=cache), **others)

    with_options: Callable[..., None] = given
    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: MODEL and the `run_options`."""
    return click.argument("model")(run_options(command))


def described(model: Model) -> dict[str, Any]:
    """How the numbers of a model were computed, for JSON."""
    from pythia_gguf.plan.recognize import quant_of

    return {
        "model": str(model.path),
        "quant": quant_of(model.gguf.metadata, model.gguf.formats),
        "activations": model.activations,
        "gelu": model.gelu,
        "kv": model.cache,
        "threads": model.threads,
    }
