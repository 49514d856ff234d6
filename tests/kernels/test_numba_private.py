"""Each private name of Numba is there and does what we use it for; no other file knows one.

A new release of Numba is tried here first; where something fails, kernels/numba_private.py is the place to mend.
"""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba.extending import intrinsic

from pythia_gguf.kernels import numba_private
from pythia_gguf.kernels.numba_private import (
    AbstractTemplate,
    NullCache,
    array_at,
    c_code,
    code_from_bytes,
    code_to_bytes,
    compiler_lock,
    cpu_context,
    data_of,
    get_or_insert_function,
    has_code,
    holds,
    infer_global,
    signature,
    target_of,
    use_cache,
)
from pythia_gguf.kernels.object_code import ENTRY, load_object

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "src" / "pythia_gguf").rglob("*.py"))
PRIVATE_FILE = ROOT / "src" / "pythia_gguf" / "kernels" / "numba_private.py"
# Attributes of Numba's objects that are in no documentation.
ATTRIBUTES = frozenset(
    {
        "overloads", "targetctx", "target_context", "codegen", "magic_tuple", "make_array", "lifted", "library",
        "has_dynamic_globals", "refresh", "fndesc",
    }
)  # fmt: skip
FLOATS = numba.float32[::1]


class Shelf(NullCache):
    """A cache that keeps code as bytes, as kernels/cache.py does in files."""

    def __init__(self) -> None:
        self.kept: dict[object, bytes] = {}
        self.loaded = 0

    def load_overload(self, sig: object, target_context: object) -> object:
        data = self.kept.get(sig)
        self.loaded += data is not None
        return None if data is None else code_from_bytes(data, target_context)

    def save_overload(self, sig: object, data: object) -> None:
        self.kept[sig] = code_to_bytes(data)

    def holds(self, sig: object) -> bool:
        return sig in self.kept


def double(x):
    for i in range(x.size):
        x[i] += x[i]


def faults(tree: ast.AST) -> list[str]:
    """What a file says that only kernels/numba_private.py may say."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("numba.core")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
            allowed = node.module in ("numba", "numba.extending") and "core" not in {a.name for a in node.names}
            found += [] if allowed else [str(node.module)]
        elif isinstance(node, ast.Attribute):
            is_foreign_private = (
                node.attr.startswith("_") and not node.attr.startswith("__") and ast.unparse(node.value) != "self"
            )
            if node.attr in ATTRIBUTES or is_foreign_private or ast.unparse(node) == "numba.core":
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name == "kernels" and p != PRIVATE_FILE], ids=lambda p: p.name
)
def test_no_other_file_of_kernels_says_a_private_name(path: Path):
    assert faults(ast.parse(path.read_text("utf-8"))) == []


def test_private_names_are_noticed():
    for line in (
        "from numba.core import cgutils", "import numba.core.types", "from numba import core", "numba.core.config",
        "from numba.np.arrayobj import make_array", "f._cache = 1", "f.overloads", "context.make_array(t)",
    ):  # fmt: skip
        assert faults(ast.parse(line)), line
    assert faults(ast.parse("from numba import types\nself._cache = 1\nfrom numba.extending import intrinsic")) == []


def test_every_name_is_used():
    used = {
        alias.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == numba_private.__name__
        for alias in node.names
    }
    assert used == set(numba_private.__all__)


def test_this_numba_is_one_that_the_package_asks_for():
    (asked,) = [
        d for d in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"] if "numba" in d
    ]
    least, below = asked.removeprefix("numba>=").split(",<")
    version = tuple(map(int, numba.__version__.split(".")[:2]))
    assert tuple(map(int, least.split("."))) <= version < tuple(map(int, below.split(".")))


def test_a_dispatcher_takes_another_cache():
    shelf, x = Shelf(), np.ones(3, np.float32)
    for n_loaded in (0, 1):
        fresh = numba.njit(double)
        use_cache(fresh, shelf)
        assert not has_code(fresh, (FLOATS,))
        assert holds(fresh, (FLOATS,)) == bool(n_loaded)
        fresh(x)
        assert has_code(fresh, (FLOATS,))
        assert not has_code(fresh, (numba.float64[::1],))
        assert (shelf.loaded, list(shelf.kept)) == (n_loaded, [(FLOATS,)])
    assert x.tolist() == [4, 4, 4]


def test_a_cache_is_asked_for_two_methods_and_no_more():
    """Those that a dispatcher of `njit` and a C function call; the others do nothing in the class itself."""
    assert {name for name, _ in inspect.getmembers(NullCache, inspect.isfunction)} == {
        "load_overload", "save_overload", "enable", "disable", "flush",
    }  # fmt: skip


def test_code_is_bytes_of_a_pickle_for_another_process():
    shelf = Shelf()
    fresh = numba.njit(double)
    use_cache(fresh, shelf)
    fresh(np.ones(1, np.float32))
    (data,) = shelf.kept.values()
    assert isinstance(pickle.loads(data), tuple)
    code = (
        "import sys, numba, numpy as np\n"
        "from pythia_gguf.kernels.numba_private import code_from_bytes, cpu_context\n"
        "result = code_from_bytes(sys.stdin.buffer.read(), cpu_context())\n"
        "x = np.ones(2, np.float32)\n"
        "result.entry_point(x)\n"
        "print(x.tolist())\n"
    )
    # A closure over nothing of this file: the other process need not know it.
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=False, env=os.environ)
    assert (run.returncode, run.stdout.decode().strip()) == (0, "[2.0, 2.0]"), run.stderr.decode()


def test_a_c_function_becomes_an_object_file_that_refers_to_nothing():
    """Neither to Numba nor to Python; it is called without either, and what Numba itself makes of it does the same."""

    def store(address, n):
        numba.carray(pointer(address), (1,))[0] = n

    @intrinsic
    def pointer(typing_context, address):
        def emit(context, builder, sig, args):
            return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

        return numba.types.CPointer(numba.int64)(numba.int64), emit

    import ctypes

    out = np.zeros(1, np.int64)
    code = c_code(store, ((numba.int64, numba.int64), numba.void))
    for n, address in ((5, load_object(code.object_file)), (6, code.address())):
        ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)(out.ctypes.data, n)
        assert out[0] == n
    for name in (b"NRT_", b"Py", b"numba_"):
        assert name not in code.object_file
    assert ENTRY in code.assembly()


def test_an_array_lies_where_its_pointer_says():
    @intrinsic
    def upper_half(typing_context, array):
        def emit(context, builder, sig, args):
            data = data_of(context, builder, sig.args[0], args[0])
            two = ir.Constant(ir.IntType(64), 2)
            return array_at(context, builder, sig.return_type, builder.gep(data, [two]), two)

        return numba.types.Array(numba.float32, 1, "C")(array), emit

    half = numba.njit(lambda x: (upper_half(x).size, upper_half(x)[0], upper_half(x)[-1]))
    assert half(np.array([1, 2, 3, 4], np.float32)) == (2, 3, 4)


def test_who_holds_the_lock_compiles_alone():
    acquire, release = compiler_lock()
    ended = threading.Event()

    def compile_elsewhere() -> None:
        numba.njit(double)(np.ones(1, np.float32))
        ended.set()

    other = threading.Thread(target=compile_elsewhere)
    acquire()
    acquire()
    try:
        other.start()
        # Compiled here meanwhile, which takes as long; without the lock the other thread would be ready too.
        for _ in range(3):
            numba.njit(double)(np.ones(1, np.float32))
        assert not ended.is_set()
    finally:
        release()
        release()
    other.join(60)
    assert ended.is_set()


def test_the_target_says_triple_cpu_and_features():
    triple, cpu, features = target_of(cpu_context())
    assert "-" in triple
    assert cpu
    assert all(f[0] in "+-" for f in features.split(",") if f)
    code = (
        "from pythia_gguf.kernels.numba_private import cpu_context, target_of\n"
        "print(*target_of(cpu_context())[1:], sep='|')"
    )
    env = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "+sse2"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert run.stdout.strip() == f"{cpu}|+sse2"


def test_the_data_of_an_array_and_functions_of_llvm_are_reached():
    @intrinsic
    def root_of_first(typing_context, array):
        def emit(context, builder, sig, args):
            first = builder.load(data_of(context, builder, sig.args[0], args[0]))
            kind = ir.FunctionType(first.type, [first.type])
            root = get_or_insert_function(builder.module, kind, "llvm.sqrt.f32")
            assert get_or_insert_function(builder.module, kind, "llvm.sqrt.f32") is root
            return builder.call(root, [first])

        return numba.float32(array), emit

    assert numba.njit(lambda x: root_of_first(x))(np.array([16, 4], np.float32)) == 4


def test_an_operator_is_typed_for_a_type_of_ours():
    """As kernels/simd.py does it for vectors: here `matmul` of two booleans, which Numba has not."""
    import operator

    from numba.extending import lower_builtin

    boolean = numba.types.boolean

    @infer_global(operator.matmul)
    class _Template(AbstractTemplate):
        def generic(self, args: tuple, kws: dict) -> object:
            return signature(boolean, *args) if args == (boolean, boolean) else None

    lower_builtin(operator.matmul, boolean, boolean)(lambda context, builder, sig, args: builder.and_(*args))
    both = numba.njit(lambda a, b: a @ b)
    assert (both(True, True), both(True, False)) == (True, False)
