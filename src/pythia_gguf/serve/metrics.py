"""What the server counts, and that as Prometheus reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

_PREFIX = "pythia_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters since the start; each is written by one thread.

    n_answers  answers by route and status
    """

    def __init__(self) -> None:
        self.n_answers: Counter[tuple[str, int]] = Counter()
        self.n_prompt_tokens = self.n_written_tokens = self.n_cancelled = 0
        self.n_steps, self.busy_s = 0, 0.0

    def text(self, gauges: Mapping[str, tuple[float, str]]) -> str:
        """All of them, and `gauges`: name -> value now and what it is."""
        lines = list(self._answers())
        for name, value, what in (
            ("prompt_tokens_total", self.n_prompt_tokens, "Tokens of prompts that were asked for."),
            ("written_tokens_total", self.n_written_tokens, "Tokens written."),
            ("cancelled_total", self.n_cancelled, "Requests whose client left, or whose time was over."),
            ("steps_total", self.n_steps, "Steps of models."),
            ("busy_seconds_total", self.busy_s, "Time in which models ran."),
        ):
            lines += _metric(name, "counter", value, what)
        for name, (value, what) in gauges.items():
            lines += _metric(name, "gauge", value, what)
        return "\n".join(lines) + "\n"

    def _answers(self) -> Iterator[str]:
        yield from _head("answers_total", "counter", "Answers by route and status.")
        for (route, status), n in sorted(self.n_answers.items()):
            yield f'{_PREFIX}answers_total{{route="{route}",status="{status}"}} {n}'


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP {_PREFIX}{name} {what}", f"# TYPE {_PREFIX}{name} {kind}"]


def _metric(name: str, kind: str, value: float, what: str) -> list[str]:
    return [*_head(name, kind, what), f"{_PREFIX}{name} {value}"]
