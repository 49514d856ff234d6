"""Quantizing from the Hub without a copy of the weights: the same bytes, whatever the connection does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from hub.loopback import LoopbackHub
from press.tiny import folder_files, sharded, sharded_bins
from pythia_gguf import quantize, verify
from pythia_gguf.errors import ModelFileError, NetworkError
from pythia_gguf.hub.client import Hub
from pythia_gguf.hub.model_name import parse_model_name
from pythia_gguf.hub.pull import pull
from pythia_gguf.hub.remote_file import BLOCK_BYTES, RemoteFile

NANO = Path(__file__).parents[2] / "examples" / "nano"
REPO = "EleutherAI/pythia-14m"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".gguf" or p.name == "SHA256SUMS"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the folder gives when it is read from disk."""
    out = tmp_path_factory.mktemp("local")
    quantize(NANO, out, quants="Q4_K_M,Q8_0", name="pythia-14m-step3000")
    return contents(out)


def test_twenty_dropped_connections_change_no_byte(hub: LoopbackHub, local: dict[str, bytes], tmp_path: Path):
    hub.add(REPO, NANO, branch="step3000")
    size = (NANO / "model.safetensors").stat().st_size
    hub.faults.drops = {int(n) for n in np.random.default_rng(5).integers(0, size, 20)}
    assert len(hub.faults.drops) == 20
    result = quantize("pythia-14m@step3000", tmp_path / "out", quants="Q4_K_M,Q8_0")
    assert not hub.faults.drops
    assert contents(tmp_path / "out") == local
    assert all(v.fault is None for v in verify(tmp_path / "out"))
    assert any("read from the Hub" in note for note in result.notes)
    # No copy of the weights is left, here or in the cache.
    kept = [p for p in Path(constants.HF_HUB_CACHE).rglob("*") if p.is_file() and p.stat().st_size > 1 << 20]
    assert kept == []


def test_a_kept_copy_gives_the_same_and_is_read_then(hub: LoopbackHub, local: dict[str, bytes], tmp_path: Path):
    hub.add(REPO, NANO, branch="step3000")
    quantize("pythia-14m@step3000", tmp_path / "a", quants="Q4_K_M,Q8_0", keep_source=True)
    before = len(hub.requests)
    quantize("pythia-14m@step3000", tmp_path / "b", quants="Q4_K_M,Q8_0")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == local
    assert not [r for r in hub.requests[before:] if r.method == "GET" and r.path.endswith(".safetensors")]


def test_a_copy_damaged_in_the_cache_is_noticed(hub: LoopbackHub, tmp_path: Path):
    hub.add("me/tiny", folder_files(width=32))
    folder = pull(parse_model_name("me/tiny"))
    blob = (folder / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ModelFileError, match="differs from its name"):
        quantize("me/tiny", tmp_path / "out", quants="Q8_0")


def test_files_that_another_host_serves(hub: LoopbackHub, local: dict[str, bytes], tmp_path: Path):
    hub.add(REPO, NANO, branch="step3000")
    hub.faults.elsewhere = True
    quantize("pythia-14m@step3000", tmp_path / "out", quants="Q4_K_M,Q8_0")
    assert contents(tmp_path / "out") == local
    elsewhere = [r for r in hub.requests if r.headers["Host"].startswith("localhost")]
    assert any("range" in map(str.lower, r.headers) for r in elsewhere)
    assert not [r for r in elsewhere if "authorization" in map(str.lower, r.headers)]


@pytest.mark.parametrize("split", [sharded, sharded_bins])
def test_shards_and_bins(split, hub: LoopbackHub, tmp_path: Path):
    hub.add("me/tiny", split(folder_files(width=32)))
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, content in split(folder_files(width=32)).items():
        (folder / name).write_bytes(content)
    quantize("me/tiny", tmp_path / "remote", quants="Q8_0")
    quantize(folder, tmp_path / "local", quants="Q8_0")
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def test_a_server_without_ranges_and_one_that_lies(hub: LoopbackHub, tmp_path: Path):
    hub.add("me/tiny", folder_files(width=32))
    hub.faults.no_ranges = True
    with pytest.raises(NetworkError, match="parts of files"):
        quantize("me/tiny", tmp_path / "a", quants="Q8_0")
    hub.faults.no_ranges = False
    # Of the listed length, but no safetensors file; then shorter than it was listed.
    n = len(folder_files(width=32)["model.safetensors"])
    hub.faults.altered = {"model.safetensors": b"\xff" * n}
    with pytest.raises(ModelFileError, match="header length: expected at most"):
        quantize("me/tiny", tmp_path / "b", quants="Q8_0")
    hub.faults.altered = {"model.safetensors": b"\xff" * 100}
    with pytest.raises(NetworkError, match="parts of files"):
        quantize("me/tiny", tmp_path / "c", quants="Q8_0")
    assert not list(tmp_path.rglob("*.gguf"))


class Always(set[int]):
    """Positions where the connection breaks each time, not once."""

    def remove(self, position: int) -> None:
        """Not at all."""


def test_a_server_that_always_breaks_off_is_given_up(hub: LoopbackHub, tmp_path: Path):
    files = folder_files(width=32)
    hub.add("me/tiny", files)
    hub.faults.drops = Always({len(files["model.safetensors"]) - 1})
    before = len(hub.requests)
    with pytest.raises(NetworkError, match="the connection breaks again and again"):
        quantize("me/tiny", tmp_path / "a", quants="Q8_0")
    asked = [r for r in hub.requests[before:] if r.method == "GET" and r.path.endswith(".safetensors")]
    assert len(asked) > 5
    assert not list(tmp_path.rglob("*.gguf"))


def test_any_part_of_a_remote_file_is_what_it_is(hub: LoopbackHub, tmp_path: Path):
    numbers = np.random.default_rng(7)
    content = numbers.integers(0, 256, 3 * BLOCK_BYTES + 12345, np.uint8).tobytes()
    hub.add("me/x", {"model.safetensors": content})
    listed = Hub().revision("me/x", "main")
    with RemoteFile(Hub(), listed, listed.files["model.safetensors"], tmp_path / "x") as file:
        for start, n in ((0, 10), (BLOCK_BYTES - 3, 7), (len(content) - 5, 5), (100, 2 * BLOCK_BYTES), (0, 0)):
            assert file.read(start, n) == content[start : start + n]
        for start, n in ((len(content), 1), (len(content) - 1, 2)):
            with pytest.raises(ModelFileError, match="cut short"):
                file.read(start, n)
        with pytest.raises(ValueError, match="negative"):
            file.read(-1, 1)
