"""What all routes share: models, the engine, the queue's bound, counters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pythia_gguf.serve.engine_thread import EngineThread
from pythia_gguf.serve.metrics import Metrics
from pythia_gguf.serve.refusals import RefusalError
from pythia_gguf.serve.registry import Registry

# Texts of all requests, those that wait included: as many as the largest request has, and 512 more.
MOST_TEXTS = 1024


class ServerState:
    """One server."""

    def __init__(self, registry: Registry, engine: EngineThread, metrics: Metrics) -> None:
        self.registry, self.engine, self.metrics = registry, engine, metrics
        self._n_texts = 0

    @contextlib.contextmanager
    def place_for(self, n_texts: int) -> Iterator[None]:
        """Let so many more texts in while the block runs; raises RefusalError when too many wait already."""
        if self._n_texts + n_texts > MOST_TEXTS:
            raise RefusalError("busy", f"{self._n_texts} texts are being written or wait: try again")
        self._n_texts += n_texts
        try:
            yield
        finally:
            self._n_texts -= n_texts

    def cards(self) -> list[dict[str, Any]]:
        """Every model, as `shapes.ModelCard`."""
        registry = self.registry
        found = []
        for name, source in registry.sources.items():
            served = registry.loaded.get(name)
            found.append(
                {
                    "id": name,
                    "object": "model",
                    "created": registry.started,
                    "owned_by": "pythia-gguf",
                    "is_loaded": served is not None,
                    "quant": source.quant if served is None else served.model.facts["quant"],
                    "step": source.step,
                    "max_model_len": source.n_context if served is None else served.batch.n_context,
                }
            )
        return found

    def gauges(self) -> dict[str, tuple[float, str]]:
        """What is so now, for /metrics."""
        loaded = self.registry.loaded.values()
        return {
            "texts": (self._n_texts, "Texts that are being written or wait."),
            "models_loaded": (len(loaded), "Models in memory."),
            "memory_bytes": (sum(s.n_bytes for s in loaded), "Memory of models, keys and values at their most."),
        }
