"""What every command does with its command line: it never ignores an option that a user gives."""

from __future__ import annotations

from collections import Counter

import click
from click.core import ParameterSource

from pythia_gguf.errors import Argument, Part, UsageError


class Command(click.Command):
    """A command that refuses an option given twice, unless it is repeatable or a flag: only the last would count."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; raises UsageError for an option that is there twice."""
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            for parameter, n in Counter(order).items():
                if n > 1 and isinstance(parameter, click.Option) and not (parameter.multiple or parameter.is_flag):
                    raise UsageError(Argument(str(parameter.name)), f" is given {n} times, and only one can count")
        return super().parse_args(ctx, args)


def refuse_given(names: str, *why: Part) -> None:
    """Raises UsageError for the first of these parameters, by their Python names, that the command line gives.

    names  separated by spaces
    why    they could change nothing, as in "--top-k changes nothing at temperature 0"
    """
    for name in names.split():
        if is_given(name):
            raise UsageError(Argument(name), " changes nothing ", *why)


def is_given(name: str) -> bool:
    """Whether the command line gives a parameter, even if its value is the default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE
