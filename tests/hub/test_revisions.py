"""Branches compared by hash: every kind of finding that was reported of the suite, and none where there is none."""

from __future__ import annotations

from hub.loopback import DATE, LoopbackHub
from pythia_gguf.hub.model_name import parse_model_name
from pythia_gguf.hub.revisions import Finding, check_revisions
from pythia_gguf.hub.suite import MODELS

REPO = "EleutherAI/pythia-70m"


def branch(seed: int, shards: int = 1) -> dict[str, bytes]:
    texts = {"config.json": b"{}", "tokenizer.json": b"{}"}
    if shards == 1:
        return texts | {"model.safetensors": b"weights %d" % seed}
    names = [f"model-{i:05}-of-{shards:05}.safetensors" for i in range(1, shards + 1)]
    index = {"model.safetensors.index.json": b"{}"}
    return texts | index | {name: b"%s %d" % (name.encode(), seed) for name in names}


def fill(hub: LoopbackHub, shards: int = 1) -> None:
    """All branches of the suite as they are meant to be."""
    for n in MODELS["pythia-70m"].steps:
        hub.add(REPO, branch(n if n != 1 else 0, shards), f"step{n}")
    hub.add(REPO, branch(143000, shards))


def found(hub: LoopbackHub, name: str = "pythia-70m") -> list[Finding]:
    return list(check_revisions(parse_model_name(name)).findings)


def brief(findings: list[Finding]) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(f.kind, tuple(b.name for b in f.branches), f.files) for f in findings]


def test_a_whole_suite_has_no_findings_and_nothing_is_downloaded(hub: LoopbackHub):
    fill(hub)
    assert found(hub) == []
    assert not [r for r in hub.requests if "/resolve/" in r.path]


def test_final_weights_in_step_branches(hub: LoopbackHub):
    # EleutherAI/pythia #205: branches that serve what main serves.
    fill(hub)
    for n in (0, 5000):
        hub.add(REPO, branch(143000), f"step{n}")
    (finding,) = found(hub)
    assert finding.kind == "same sha256"
    assert [b.name for b in finding.branches] == ["step0", "step5000", "step143000", "main"]
    assert finding.files == ("model.safetensors",)
    assert finding.branches[1].commit == hub.commit(REPO, "step5000")
    assert finding.branches[1].date
    assert f"{finding.branches[1].date:%Y-%m-%d}" == DATE[:10]


def test_a_shard_of_another_step(hub: LoopbackHub):
    # #206: step50000 and step58000 of the 12B hold the first shard of the last step.
    fill(hub, shards=3)
    first = "model-00001-of-00003.safetensors"
    files = branch(50000, 3)
    files[first] = branch(143000, 3)[first]
    hub.add(REPO, files, "step50000")
    assert brief(found(hub)) == [("same sha256 of a shard", ("step50000", "step143000", "main"), (first,))]


def test_missing_branches_and_files(hub: LoopbackHub):
    fill(hub, shards=2)
    del hub.repos[REPO]["step40000"]
    del hub.repos[REPO]["step512"]["model-00002-of-00002.safetensors"]
    del hub.repos[REPO]["step256"]["config.json"]
    hub.repos[REPO]["step128"] = {"config.json": b"{}", "tokenizer.json": b"{}"}
    assert brief(found(hub)) == [
        ("missing branch", ("step40000",), ()),
        ("missing file", ("step128",), ("model.safetensors or pytorch_model.bin",)),
        ("missing file", ("step256",), ("config.json",)),
        ("missing file", ("step512",), ("model-00002-of-00002.safetensors",)),
    ]


def test_two_steps_with_the_same_weights(hub: LoopbackHub):
    fill(hub)
    hub.add(REPO, branch(7000), "step8000")
    assert brief(found(hub)) == [("same sha256", ("step7000", "step8000"), ("model.safetensors",))]


def test_repositories_outside_of_the_suite(hub: LoopbackHub):
    for n in (10, 20):
        hub.add("me/run", branch(n), f"step{n}")
    hub.add("me/run", branch(20))
    assert found(hub, "me/run") == []
    hub.add("me/run", branch(10))
    assert brief(found(hub, "me/run")) == [("same sha256", ("step10", "main"), ("model.safetensors",))]
