"""`pythia generate`: text that a model writes."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.model_options import LoadOptions, described, model_options
from pythia_gguf.errors import Argument
from pythia_gguf.json_file import json_text
from pythia_gguf.text_file import decode_text

if TYPE_CHECKING:
    from pythia_gguf.engine.generation import Generation

SCHEMA_VERSION = 1


@click.command("generate", cls=Command)
@model_options
@click.argument("prompt")
@click.option("--max-tokens", type=int, default=64, show_default=True, help="Most tokens to write.")
@click.option("--temperature", type=float, default=0.8, show_default=True, help="0 takes the most likely token.")
@click.option("--top-k", type=int, default=40, show_default=True, help="Only the K most likely; 0 for all.")
@click.option("--top-p", type=float, default=0.95, show_default=True, help="Only those that have P together; 1: all.")
@click.option("--min-p", type=float, default=0.05, show_default=True, help="Only those of P times the best's; 0: all.")
@click.option("--repeat-penalty", type=float, default=1.0, show_default=True, help="On the last 64 tokens; 1: none.")
@click.option("--seed", type=int, help="The same seed gives the same text.  [default: a new one]")
@click.option(
    "--stop",
    multiple=True,
    metavar="TEXT",
    callback=lambda ctx, parameter, texts: tuple(_unescaped(text) for text in texts),
    help=r"End before this text; may be given several times. In it \n, \r, \t and \\ are a new line, a return, a tab"
    r" and a backslash.",
)
@click.option("--logprobs", type=int, metavar="N", help="Tell log-probabilities, and the N most likely tokens.")
@click.option("--lookup", is_flag=True, help="Guess from the text so far: same text, sooner where it repeats.")
@click.option("--shift", is_flag=True, help="At the end of the context forget the oldest text instead of refusing.")
@click.option("--no-echo", is_flag=True, help="Do not print the prompt again.")
@click.option("--quiet", is_flag=True, help="No progress, no figures; errors still show.")
def command(
    model: str,
    prompt: str,
    loading: LoadOptions,
    output_format: str,
    no_echo: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Write on from PROMPT, taken as it is; "-" reads it from stdin, without the one line end that a file ends with.

    MODEL is a GGUF, a folder of them as FOLDER:QUANT, a Hugging Face folder, a step of a run as DIR@stepN[:QUANT] where
    DIR holds folders stepN, or NAME[@STEP][:QUANT] of the Hub, a checkpoint or a repository of GGUF files; what is
    missing is fetched, quantized and kept.

    \b
    pythia generate pythia-70m.Q4_K_M.gguf "Hello, I am"
    pythia generate pythia-70m.Q4_K_M.gguf "def main(" --temperature 0 --stop "class "
    pythia generate pythia-70m-deduped@step3000:Q4_K_M "Hello, I am" --stop '\\n\\n'
    pythia generate pythia-70m.Q4_K_M.gguf -- "- milk"
    cat notes.txt | pythia generate pythia-70m.Q8_0.gguf - --max-tokens 200 --lookup --output-format json
    """
    _refuse_unused(output_format, **options)
    if prompt == "-":
        prompt = re.sub(r"\r?\n\Z", "", decode_text(sys.stdin.buffer.read(), "-"))
    loaded = loading.load(model, is_quiet=quiet)
    generation = loaded.begin(prompt, **options)
    if output_format == "json":
        for _ in generation:
            pass
        click.echo(json_text(_as_json(generation, prompt, described(loaded))))
        return
    _print_text(generation, "" if no_echo else prompt)
    if options["logprobs"] is not None:
        _print_logprobs(generation)
    if not quiet:
        click.echo(_figures(generation), err=True)


def _refuse_unused(output_format: str, *, temperature: float, top_k: int, **others: Any) -> None:
    """Raises UsageError for an option that could change nothing: the most likely token leaves no choice."""
    if temperature == 0:
        refuse_given("top_k top_p min_p seed", "with ", Argument("temperature"), " 0")
    elif top_k == 1:
        refuse_given("temperature top_p min_p seed", "with ", Argument("top_k"), " 1")
    if output_format == "json":
        refuse_given("no_echo", "with ", Argument("output_format", "json"), ", which holds both texts")


def _unescaped(text: str) -> str:
    r"""Resolve \n, \r, \t and \\ in a text, because a shell hands them over as they are; other backslashes stay."""
    means = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nrt\\])", lambda match: means[match[1]], text)


def _print_text(generation: Generation, echoed: str) -> None:
    """Print piece by piece; characters that the terminal cannot show are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    first = True
    for piece in generation:
        text = echoed + piece if first else piece
        first = False
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)
        sys.stdout.flush()
    click.echo(echoed if first else "")


def _print_logprobs(generation: Generation) -> None:
    from pythia_gguf.cli.tables import print_table

    completion = generation.completion
    decode = generation.model.tokenizer.decode

    def shown(token: int, logprob: float) -> str:
        return f"{decode([token])!r} {logprob:.3f}"

    rows = [
        (repr(decode([t.token])), str(t.token), f"{t.logprob:.4f}", "  ".join(shown(*pair) for pair in t.top))
        for t in completion.logprobs or ()
    ]
    click.echo()
    print_table(("token", "id", "logprob", "most likely"), rows, right=(1, 2))


def _figures(generation: Generation) -> str:
    c = generation.completion
    t = c.timings
    text = f"[{t.n_generated} tokens, seed {c.seed}, ended by {c.finish_reason}; "
    text += f"prompt {t.n_prompt} tokens in {t.prompt_s:.2f} s"
    if t.n_steps:
        text += f", then {(t.n_generated - 1) / t.generate_s:.1f} tokens/s"
    if t.n_steps < t.n_generated - 1:
        text += f", {t.n_steps} steps"
    return text + "]"


def _as_json(generation: Generation, prompt: str, how: dict[str, Any]) -> dict[str, Any]:
    c = generation.completion
    decode = generation.model.tokenizer.decode
    logprobs = None
    if c.logprobs is not None:
        logprobs = [
            {
                "token": t.token,
                "text": decode([t.token]),
                "logprob": t.logprob,
                "top": [{"token": i, "text": decode([i]), "logprob": p} for i, p in t.top],
            }
            for t in c.logprobs
        ]
    return {
        "schema_version": SCHEMA_VERSION,
        "prompt": prompt,
        "text": c.text,
        "tokens": list(c.tokens),
        "finish_reason": c.finish_reason,
        "seed": c.seed,
        "logprobs": logprobs,
        "timings": asdict(c.timings),
        **how,
    }
