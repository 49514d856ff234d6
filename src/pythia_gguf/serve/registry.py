"""The models that may be asked for, by name: loaded when they are, and let go when another one needs the memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata

from pythia_gguf.engine.batch import Batch
from pythia_gguf.engine.model import Model, load
from pythia_gguf.engine.weights import weights_bytes
from pythia_gguf.errors import Argument, UsageError, nearest
from pythia_gguf.intake.gguf_model import open_gguf_model
from pythia_gguf.json_file import json_text
from pythia_gguf.machine import in_units
from pythia_gguf.models.find import found_gguf
from pythia_gguf.progress import Progress
from pythia_gguf.serve.refusals import RefusalError
from pythia_gguf.serve.sources import ModelSource

# Texts that have ended stay in memory while there is room: prompts to come may begin like them.
_KEPT_TEXTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How models are loaded and run.

    n_parallel    texts that one model writes at a time
    context       most tokens of a text; None: as many as each model has positions
    memory_bytes  for weights, keys and values of all models together
    chat_format   how a conversation becomes a prompt, one of `choices.CHAT_FORMATS`; None: chats are refused
    keeps_prefixes  whether texts that have ended stay for those that begin like them
    progress      makes what hears how far loading is
    threads, gelu, activations, cache  as for `engine.model.load`
    """

    n_parallel: int
    context: int | None
    memory_bytes: int
    progress: Callable[[], contextlib.AbstractContextManager[Progress]]
    threads: int | None = None
    gelu: str = "auto"
    activations: str = "int8"
    cache: str = "auto"
    chat_format: str | None = None
    keeps_prefixes: bool = True


class ServedModel:
    """A model in memory.

    batch        its texts
    n_bytes      memory of its weights, and of keys and values at their most
    fingerprint  a hash of everything that decides its numbers
    n_users      requests that need it now
    """

    def __init__(self, name: str, model: Model, batch: Batch, n_bytes: int) -> None:
        self.name, self.model, self.batch, self.n_bytes = name, model, batch, n_bytes
        self.fingerprint = fingerprint_of(model)
        self.n_users, self.last_used = 0, 0.0


class Registry:
    """Models by name. Its methods run in the event loop; loading runs in a thread beside it."""

    def __init__(self, sources: Mapping[str, ModelSource], options: ServeOptions) -> None:
        self.sources, self.options = sources, options
        self.loaded: dict[str, ServedModel] = {}
        self.started = int(time.time())
        self._one_load = asyncio.Lock()

    @property
    def first(self) -> str:
        """The name of the model that is meant where none is named."""
        return next(iter(self.sources))

    def load_first(self) -> ServedModel:
        """Load the first model before the loop runs, where a signal ends it as it ends any other command."""
        served = self.loaded[self.first] = self._load(self.sources[self.first], self._make_room)
        return served

    @contextlib.asynccontextmanager
    async def use(self, name: str | None, param: str = "model") -> AsyncIterator[ServedModel]:
        """A model, which stays in memory while the block runs; None: the first one.

        Raises RefusalError, which names the field `param`, and PythiaGGUFError or MemoryError when loading fails
        """
        name = self.first if name is None else name
        source = self.sources.get(name)
        if source is None:
            raise RefusalError("no_such_model", f"no model {name!r} is served{nearest(name, self.sources)}", param)
        served = self.loaded.get(name) or await self._loaded(source)
        served.n_users += 1
        try:
            yield served
        finally:
            served.n_users -= 1
            served.last_used = time.monotonic()

    async def _loaded(self, source: ModelSource) -> ServedModel:
        async with self._one_load:
            # Another request may have loaded it while this one waited.
            if source.name not in self.loaded:
                make_room = partial(self._make_room_in, asyncio.get_running_loop())
                self.loaded[source.name] = await asyncio.to_thread(self._load, source, make_room)
            return self.loaded[source.name]

    def _load(self, source: ModelSource, make_room: Callable[[str, int], None]) -> ServedModel:
        o = self.options
        with o.progress() as progress, found_gguf(source.place, threads=o.threads, progress=progress) as path:
            n_weights = weights_bytes(open_gguf_model(path)[0])
            make_room(source.name, n_weights)
            model = load(
                path, threads=o.threads, gelu=o.gelu, activations=o.activations, cache=o.cache, progress=progress
            )
            n_context = model.n_context if o.context is None else o.context
            if n_context > model.n_context:
                raise UsageError(
                    Argument("context"), f" must be at most {model.n_context} for {source.name}, got {n_context}"
                )
            # 1. Keys and values get what is left of the memory, and no more than all texts need at their longest.
            of_one = model.kv_bytes(n_context)
            make_room(source.name, n_weights + of_one)
            kv_bytes = min(o.n_parallel * of_one, self._n_free - n_weights)
            batch = Batch(model, o.n_parallel, n_context, kv_bytes, _KEPT_TEXTS if o.keeps_prefixes else 0)
            # 2. The hash of the file is taken now, while the file is sure to be there.
            return ServedModel(source.name, model, batch, n_weights + kv_bytes)

    @property
    def _n_free(self) -> int:
        return self.options.memory_bytes - sum(served.n_bytes for served in self.loaded.values())

    def _make_room_in(self, loop: asyncio.AbstractEventLoop, name: str, n_bytes: int) -> None:
        """The same from another thread: only the loop knows who uses a model, so only the loop lets one go."""

        async def make() -> None:
            self._make_room(name, n_bytes)

        asyncio.run_coroutine_threadsafe(make(), loop).result()

    def _make_room(self, name: str, n_bytes: int) -> None:
        """Let models go that nobody needs now, those first that nobody has needed for long."""
        if n_bytes > self.options.memory_bytes:
            most = in_units(self.options.memory_bytes)
            raise UsageError(f"{name} needs {in_units(n_bytes)} of memory, and models may take {most} together")
        while n_bytes > self._n_free:
            idle = [served for served in self.loaded.values() if served.n_users == 0]
            if not idle:
                raise RefusalError("busy", f"there is no room for {name} while other models write: try again")
            del self.loaded[min(idle, key=lambda served: served.last_used).name]


def fingerprint_of(model: Model) -> str:
    """Equal ones promise equal bits: the file, its activations, GELU, cache and special tokens, and our version."""
    facts = {key: value for key, value in model.facts.items() if key not in ("file", "quant")}
    text = json_text([sorted(facts.items()), metadata.version("pythia-gguf")])
    return f"fp_{hashlib.sha256(text.encode()).hexdigest()[:32]}"
