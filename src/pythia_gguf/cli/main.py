"""The `pythia` command: finds the sub-command's file and turns errors into one line and an exit code.

`cli/<name>.py` is `pythia <name>`, and `cli/<group>/<name>.py` is `pythia <group> <name>`, with `-` as `_`. A file is
loaded only when its command is called: help and lists come from the tables below.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from importlib import metadata
from types import TracebackType

import click

from pythia_gguf.cli.signals import EndingSignals
from pythia_gguf.cli.streams import flush_results, prepare_streams
from pythia_gguf.errors import Argument, PythiaGGUFError, nearest, one_line

_VERSION = metadata.version("pythia-gguf")

# Words of a command line -> one line of help. The file cli/<name>.py, for "<group> <name>" the file
# cli/<group>/<name>.py, defines `command`.
COMMANDS = {
    "models": "Show the Pythia suite: sizes, names, training steps.",
    "pull": "Fetch a model of the Hub.",
    "check-revisions": "Compare all branches of a model, downloading nothing.",
    "quantize": "Turn a checkpoint into GGUF files: all 19 quants in one read.",
    "imatrix": "Importance matrix: what each column of a weight is multiplied with.",
    "quants": "Show the menu, or for a model its plan and sizes.",
    "inspect": "Show what a GGUF file holds.",
    "verify": "Check files against their manifest, byte by byte.",
    "generate": "Write on from a text.",
    "serve": "Models over HTTP, as OpenAI's completions.",
    "score": "Log-likelihoods of continuations.",
    "measure": "What each quantization costs: perplexity, KL divergence, top token.",
    "eval": "Run tasks of lm-evaluation-harness.",
    "plot": "Pictures of what was measured, and of published scores.",
    "card": "Put what was measured into the card of a folder.",
    "bench": "Measure how fast a file runs here.",
    "export": "Turn a GGUF into a Hugging Face folder.",
    "publish": "Send a folder of files to the Hub.",
    "train": "Train a model as Pythia was trained.",
    "replay": "Do a step of a training again, and compare it by its digest.",
    "data tokenize": "Documents to the ids that models are trained on.",
    "data dedup": "A corpus without its near-duplicates.",
    "data order": "The order in which training reads documents.",
    "data view": "What a model saw at a step of its training.",
    "data pull": "Rows that Pythia was trained on, onto this machine.",
    "data index": "Sort the tokens of training data, so that any text is found at once.",
    "data find": "Where a text stands in training data, and at which steps it was seen.",
    "data trace": "The longest spans of a text that stand in training data.",
    "data effect": "How likely a model finds a text before and after its training showed it.",
    "data corpus": "A labelled corpus of documentation that Debian packages.",
    "data stats": "Documents, tokens and sources of some data.",
    "cache": "What is kept between runs, its size and last use; prune it.",
    "warmup": "Compile all kernels now, so that no later run has to.",
    "doctor": "What this machine gives the program, and what is wrong with it.",
}
# The first word of commands that have two -> one line of help for all of them.
GROUPS: dict[str, str] = {
    "data": "What models are trained on: from text to the order in which it is seen.",
}


class OneLineError(click.ClickException):
    """An error of the library, in the words of the command line."""

    def __init__(self, error: PythiaGGUFError, command: click.Command) -> None:
        self.exit_code = error.exit_code  # type: ignore[misc]
        super().__init__(error.said(lambda argument: flag_of(command, argument)))


def flag_of(command: click.Command, argument: Argument) -> str | None:
    """What a command calls an argument of Python: "--max-tokens", "--dtype float32"; None where it has none."""
    for parameter in command.params:
        if parameter.name == argument.name:
            if isinstance(parameter, click.Argument):
                return parameter.make_metavar(click.Context(command))
            flag = max(parameter.opts, key=len)
            return flag if argument.value in (None, True) else f"{flag} {argument.value}"
    return None


class Commands(click.Group):
    """The commands of COMMANDS that begin with the words in `prefix`, each imported when it is called."""

    prefix = ""

    def invoke(self, ctx: click.Context) -> object:
        """Run a sub-command; errors of the library name its options."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as e:
            raise click.Abort from e
        except click.NoSuchOption as e:
            # Errors of a command in a group pass here too, with the hint that the group has added.
            if e.possibilities or e.ctx is None or e.ctx.parent is not ctx:
                raise
            if not any(isinstance(p, click.Argument) for p in e.ctx.command.params):
                raise
            hint = f'{e.message.rstrip(".")}. Put "--" before an argument that begins with a dash.'
            raise click.NoSuchOption(e.option_name, hint, ctx=e.ctx) from e
        except PythiaGGUFError as e:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            assert command is not None
            raise OneLineError(e, command) from e

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(self._helps())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command or group of that name; a usage error with the nearest names when there is none."""
        name = self.prefix + cmd_name
        if name in GROUPS or name in COMMANDS:
            return find_command(name)
        if ctx.resilient_parsing:  # a shell that completes wants no error
            return None
        # Who forgets the group is told the whole name.
        known = [*self._helps(), *(() if self.prefix else COMMANDS)]
        raise click.UsageError(f"no such command {name!r}{nearest(cmd_name, known)}", ctx=ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands for --help, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._helps().items()))

    def _helps(self) -> dict[str, str]:
        """What may follow `prefix`, each with its line of help."""
        words = {name: name.removeprefix(self.prefix).split()[0] for name in COMMANDS if name.startswith(self.prefix)}
        return {word: GROUPS.get(self.prefix + word) or COMMANDS[name] for name, word in words.items()}


def find_command(name: str) -> click.Command:
    """A command by its key in COMMANDS, whose file is imported; or a group by its key in GROUPS."""
    if name in GROUPS:
        group = Commands(name, help=GROUPS[name])
        group.prefix = f"{name} "
        return group
    command: click.Command = importlib.import_module(
        f"pythia_gguf.cli.{name.replace('-', '_').replace(' ', '.')}"
    ).command
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_VERSION, prog_name="pythia-gguf")
def cli() -> None:
    """Pythia / GPT-NeoX checkpoints to GGUF, bit-identical to llama.cpp, and those files run on a CPU.

    \b
    pythia quantize path/to/pythia-70m            all 19 files, in pythia-70m-GGUF/
    pythia quantize path/to/pythia-70m --dry-run  what that would write
    pythia verify pythia-70m-GGUF                 check every byte
    pythia generate pythia-70m-GGUF/pythia-70m.Q4_K_M.gguf "Hello, I am"
    pythia generate pythia-70m-deduped@step3000:Q4_K_M "Hello, I am"   by name, from the Hub
    """


def main() -> None:
    """Entry point of the console scripts: exit codes are those of errors.py, 128 + n when signal n ended the run."""
    prepare_streams()
    # NumPy would start a thread for each CPU, for products that are not used here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.excepthook = _show_fault
    with EndingSignals() as signals:
        try:
            result = cli.main(standalone_mode=False)
            flush_results()
            code = result if isinstance(result, int) else 0
        except (click.Abort, KeyboardInterrupt):
            code = _say(f"{signals.said}. No file is left half written.", signals.exit_code)
        except click.ClickException as e:
            code = _say(e, e.exit_code)
        except BrokenPipeError:  # the reader of our output has gone, as `head` does
            code = 1
        except OSError as e:
            place = f"{one_line(str(e.filename))}: " if e.filename else ""
            code = _say(f"Error: {place}{one_line(e.strerror or str(e))}", 74)
        except MemoryError as e:
            code = _say(f"Error: not enough memory{': ' if str(e) else ''}{one_line(str(e))}", 71)
        except RecursionError:
            code = _say("Error: something here is nested too deeply", 65)
        except UnicodeEncodeError as e:
            code = _say(f"Error: a text that is not Unicode: {one_line(str(e))}", 65)
    sys.exit(code)


def _say(message: str | click.ClickException, code: int) -> int:
    """Show a message where that is possible, after everything that was printed before."""
    with contextlib.suppress(OSError):
        flush_results()
    with contextlib.suppress(OSError):
        if isinstance(message, str):
            click.echo(message, err=True)
        else:
            message.show()
    return code


def _show_fault(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    """Show a mistake of ours, which no user can cause, as a traceback and one more line."""
    sys.__excepthook__(kind, value, trace)
    click.echo(f"This is a fault of pythia-gguf {_VERSION}. Please report it with the lines above.", err=True)
