"""A loaded model after `os.fork`: the child, its children and the parent all get the parent's logits, and nobody waits
for ever.

Each case runs in an interpreter of its own, which forks; a child that hangs is ended by its alarm and seen as a fault.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from engine.nano import NANO, nano_files
from patience import HANGS_S
from pythia_gguf.engine.model import load
from pythia_gguf.engine.windows import Windows
from pythia_gguf.engine.workers import Workers

START = """
import concurrent.futures, multiprocessing, os, signal, sys, threading
import numpy as np
from pythia_gguf.engine.model import load
path, nano, out = sys.argv[1:]
model = load(path, threads=3)
ids = list(range(100, 140))
whole = model.logits(ids)
text = model.generate("def", temperature=0, max_tokens=8).text

def works():
    return np.array_equal(model.logits(ids), whole) and model.generate("def", temperature=0, max_tokens=8).text == text

def works_in_pool(i):
    return works()

def child(job=works, seconds=60):
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        code = 1
        try:
            code = 0 if job() else 1
        finally:
            os._exit(code)
    return pid

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
CASES = {
    "after a step, two at once": "assert [end(c) for c in [child(), child()]] == [0, 0]",
    "before the first step": "model = load(path, threads=3); assert end(child()) == 0",
    "child of a child": "assert end(child(lambda: works() and end(child()) == 0)) == 0",
    "child of a child that has not worked": "assert end(child(lambda: end(child()) == 0)) == 0",
    # The lock is held, threads are in the middle of an op, and none of them is in the child.
    "while other threads are in a step": """
is_over = threading.Event()
def busy():
    while not is_over.is_set():
        model.logits(ids)
threads = [threading.Thread(target=busy) for _ in range(2)]
for t in threads: t.start()
codes = [end(child()) for _ in range(12)]
is_over.set()
for t in threads: t.join()
assert codes == [0] * 12, codes
""",
    "in a session that goes on in both": """
from pythia_gguf.engine.protocol import Part
session = model.sequences()
seq = session.open()
session.step([Part(seq=seq, ids=ids[:20])])
def goes_on():
    return np.array_equal(session.step([Part(seq=seq, ids=ids[20:])])[0], whole[-1])
pid = child(goes_on)
assert goes_on() and end(pid) == 0
""",
    "from a signal's handler, at any moment of a step": """
children = []
def ring(number, frame):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        me[0] = False
    children.append(pid)
me = [True]
for i in range(40):
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 2e-4 + i * 5e-5)
    is_same, n = True, len(children)
    while len(children) == n:
        is_same = is_same and np.array_equal(model.logits(ids), whole)
    is_same = is_same and works()
    if not me[0]:
        os._exit(0 if is_same else 1)
    assert is_same
assert [end(c) for c in children] == [0] * 40
""",
    "child killed in a step": """
reads, writes = os.pipe()
def busy():
    os.write(writes, b"x")
    while True:
        model.logits(ids)
pid = child(busy)
os.read(reads, 1)
os.kill(pid, signal.SIGKILL)
assert end(pid) == -signal.SIGKILL
""",
    "pools of processes": """
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    assert pool.map(works_in_pool, range(4)) == [True] * 4
with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
    assert list(pool.map(works_in_pool, range(4))) == [True] * 4
""",
    # A kernel is compiled, or read from the cache, under a lock of Numba's.
    "while another thread compiles, and compiles itself": """
from pythia_gguf.kernels.divergence import compare
from numba.core.compiler_lock import global_compiler_lock
holds, may_end = threading.Event(), threading.Event()
def compiles():
    with global_compiler_lock:
        holds.set()
        may_end.wait(0.3)
thread = threading.Thread(target=compiles)
thread.start()
holds.wait()
def compiles_too():
    return works() and (compare(whole, whole, np.zeros(40, np.int64), 2)[:, 5] == 1).all()
assert end(child(compiles_too)) == 0
thread.join()
""",
    # Machine code is loaded under a lock of ours.
    "while another thread loads kernels, and loads them itself": """
from pythia_gguf.kernels.c_kernel import kernel_of
may_end = threading.Event()
def loads():
    kernel_of("stored_values", "widen_f16", 4).load()
    return True
def loads_on():
    while not may_end.is_set():
        loads()
loads()
thread = threading.Thread(target=loads_on)
thread.start()
assert [end(pid) for pid in [child(loads) for _ in range(6)]] == [0] * 6
may_end.set()
thread.join()
""",
    "while another thread quantizes, and quantizes itself": """
from pythia_gguf import quantize
thread = threading.Thread(target=quantize, args=(nano, out + "/parent"), kwargs={"quants": "Q8_0", "threads": 2})
thread.start()
def quantizes():
    quantize(nano, out + f"/{os.getpid()}", quants="Q8_0", threads=2)
    return works()
pids = [child(quantizes) for _ in range(2)]
assert [end(pid) for pid in pids] == [0, 0]
thread.join()
""",
}


@pytest.mark.parametrize("case", CASES if hasattr(os, "fork") else [])
def test_forked_children_work_and_the_parent_too(case: str, tmp_path: Path):
    code = START + CASES[case] + "\nassert works()\n"
    # Python 3.12 warns of every fork while there are threads.
    command = [
        sys.executable,
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        code,
        str(nano_files()["Q4_K_M"]),
        str(NANO),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_what_holds_a_model_is_neither_pickled_nor_copied():
    """Everything of the engine that does: the error is one line, and says what to do."""
    model = load(nano_files()["Q4_K_M"], threads=1)
    things = [
        model,
        model.runner.workers,
        model.sequences(n_context=8),
        Windows(model, 8),
        model.begin("def", max_tokens=4),
    ]
    for thing in things:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="In another process load the file again, by the model's path") as e:
                attempt(thing)
            assert str(e.value).startswith(f"a {type(thing).__name__} cannot be pickled or copied: ")
            assert str(e.value).isprintable()
    assert isinstance(model.runner.workers, Workers)
