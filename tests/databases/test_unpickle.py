"""Nothing that a pickle carries is run, and only data come out."""

import collections
import contextlib
import copyreg
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from amt.databases._unpickle import UnsafePickleError, load_arrays


@pytest.fixture
def load(tmp_path):
    def load(content: bytes):
        path = tmp_path / "file.pkl"
        path.write_bytes(content)
        return load_arrays(path)

    return load


@pytest.fixture
def sentinel(tmp_path) -> Path:
    """A file that hostile pickles create if they get to run."""
    return tmp_path / "sentinel"


def text(value: str) -> bytes:
    return b"\x8c" + struct.pack("<B", len(value.encode())) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def pickled(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


class Reduces:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


# Data


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        np.arange(3, dtype=">f4"),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(1.5),
        np.zeros((0, 4)),
    ],
    ids=lambda array: array.dtype.str,
)
def test_arrays(load, array, protocol):
    if protocol == 2:
        with pytest.raises(UnsafePickleError, match="_codecs"):  # how it spells bytes
            load(pickle.dumps(array, protocol))
        return
    read = load(pickle.dumps({"a": array, "again": array}, protocol))
    np.testing.assert_array_equal(read["a"], array)
    assert read["a"].dtype == array.dtype
    assert read["a"].flags.f_contiguous == array.flags.f_contiguous
    assert read["again"] is read["a"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_containers(load, protocol):
    data = {
        "list": [1, 2.5, "three", None, True, False, -(2**70), 300, 70_000],
        "tuple": ((), (1,), (1, 2), (1, 2, 3), tuple(range(4))),
        "sets": [set(), {1, 2}],
        "one": [1],
        3: {4: {}},
        "b" * 300: "",
    }
    if protocol > 2:
        data["bytes"] = [b"short", b"long" * 100]
    assert load(pickle.dumps(data, protocol)) == data


def test_other_dicts_become_dicts(load):
    default = collections.defaultdict(list, {"a": 1})
    ordered = collections.OrderedDict(b=2, a=1)
    read = load(pickle.dumps([ordered, collections.defaultdict(None, a=default)], 4))
    assert read == [{"b": 2, "a": 1}, {"a": {"a": 1}}]
    assert [type(d) for d in read] == [dict, dict]


@pytest.mark.parametrize("package", ["core", "_core"])
@pytest.mark.parametrize("module", ["multiarray", "_multiarray_umath"])
def test_array_under_old_and_new_names(load, package, module):
    reconstruct = stack_global(f"numpy.{package}.{module}", "_reconstruct")
    assert load(pickled(_array(reconstruct))).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("package", ["core", "_core"])
def test_array_as_dill_names_it(load, package):
    assert load(pickled(_array(_get_attr(f"numpy.{package}._multiarray_umath")))).tolist() == [0, 1]


def _array(reconstruct: bytes) -> bytes:
    call = stack_global("numpy", "ndarray") + b"K\x00\x85" + b"C\x01b" + b"\x87R"
    dtype = stack_global("numpy", "dtype") + text("f8") + b"\x89\x88\x87R"
    dtype += b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    data = np.arange(2.0).tobytes()
    return reconstruct + call + b"(K\x01K\x02\x85" + dtype + b"\x89C\x10" + data + b"tb"


def _get_attr(module: str, name: str = "_reconstruct") -> bytes:
    imported = stack_global("dill._dill", "_import_module") + text(module) + b"\x85R"
    return stack_global("dill._dill", "_get_attr") + imported + text(name) + b"\x86R"


# Attacks


def _system(sentinel: Path) -> bytes:
    return text(f"touch {sentinel}") + b"\x85R"


ATTACKS = {
    "GLOBAL": lambda s: b"cos\nsystem\n" + _system(s),
    "GLOBAL posix": lambda s: b"cposix\nsystem\n" + _system(s),
    "STACK_GLOBAL": lambda s: stack_global("os", "system") + _system(s),
    "eval": lambda s: stack_global("builtins", "eval") + text(f"open({str(s)!r},'w')") + b"\x85R",
    "eval, Python 2": lambda s: b"c__builtin__\neval\n" + text(f"open({str(s)!r},'w')") + b"\x85R",
    "getattr": lambda s: stack_global("builtins", "getattr"),
    "dotted name": lambda s: stack_global("numpy", "ndarray.tofile"),
    "numpy's os": lambda s: stack_global("numpy", "os.system") + _system(s),
    "numpy.load": lambda s: stack_global("numpy", "load"),
    "runstring": lambda s: stack_global("numpy.testing._private.utils", "runstring"),
    "NEWOBJ": lambda s: stack_global("subprocess", "Popen") + text("true") + b"\x85\x81",
    "NEWOBJ_EX": lambda s: stack_global("numpy", "ndarray") + b")}\x92",
    "NEWOBJ of an admitted name": lambda s: stack_global("numpy", "ndarray") + b")\x81",
    "INST": lambda s: b"(" + text(f"touch {s}") + b"ios\nsystem\n",
    "INST of an admitted name": lambda s: b"(icollections\ndefaultdict\n",
    "OBJ": lambda s: b"(" + stack_global("collections", "OrderedDict") + b"o",
    "PERSID": lambda s: b"Psomething\n",
    "BINPERSID": lambda s: text("something") + b"Q",
    "BUILD of a dict": lambda s: b"}}" + text("__setstate__") + b"K\x01sb",
    "BUILD of a class": lambda s: stack_global("numpy", "ndarray") + b"}b",
    "BUILD of a function": lambda s: _get_attr("numpy.core._multiarray_umath") + b"}b",
    "BUILD with slots": lambda s: stack_global("numpy", "dtype") + b"N}\x86b",
    "module outside numpy": lambda s: _get_attr("os", "system") + _system(s),
    "module by itself": lambda s: stack_global("dill._dill", "_import_module")
    + text("os") + b"\x85R",
    "another attribute": lambda s: _get_attr("numpy.core._multiarray_umath", "fromfile"),
    "dunder attribute": lambda s: _get_attr("numpy.core._multiarray_umath", "__loader__"),
    "attribute of a class": lambda s: stack_global("dill._dill", "_get_attr")
    + stack_global("numpy", "ndarray") + text("_reconstruct") + b"\x86R",
    "attribute of a string": lambda s: stack_global("dill._dill", "_get_attr")
    + text("numpy.core._multiarray_umath") + text("_reconstruct") + b"\x86R",
    "chained getattr": lambda s: stack_global("dill._dill", "_get_attr")
    + _get_attr("numpy.core._multiarray_umath") + text("__globals__") + b"\x86R",
    "rest of dill": lambda s: stack_global("dill._dill", "_load_session"),
    "a string called": lambda s: text("os.system") + _system(s),
    "a string that is admitted": lambda s: text("numpy.dtype") + text("f8") + b"\x89\x88\x87R",
    "_codecs": lambda s: stack_global("_codecs", "encode"),
    "subclass": lambda s: stack_global("dill._dill", "_get_attr") + b")R",
    "names that are no strings": lambda s: b"K\x01K\x02\x93",
    "dtype of objects": lambda s: stack_global("numpy", "dtype") + text("O8") + b"\x89\x88\x87R",
    "structured dtype": lambda s: stack_global("numpy", "dtype") + text("V8") + b"\x89\x88\x87R",
    "dtype by a name": lambda s: stack_global("numpy", "dtype") + text("os") + b"\x89\x88\x87R",
    "array subclass": lambda s: stack_global("numpy.core.multiarray", "_reconstruct")
    + stack_global("collections", "OrderedDict") + b"K\x00\x85C\x01b\x87R",
    "class as data": lambda s: b"]" + stack_global("numpy", "ndarray") + b"a",
    "class as the result": lambda s: stack_global("numpy", "ndarray"),
    "class as a key": lambda s: b"}" + stack_global("numpy", "ndarray") + b"K\x01s",
    "class in a tuple": lambda s: b"]" + stack_global("numpy", "ndarray") + b"\x85a",
    "array never filled": lambda s: b"]" + _array(_get_attr("numpy.core._multiarray_umath"))
    .split(b"(K\x01")[0] + b"a",
    "list as a key": lambda s: b"}]K\x01s",
    "tuple appended to": lambda s: b")K\x01a",
    "bytearray": lambda s: b"\x96" + struct.pack("<Q", 1) + b"x",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attacks_are_refused(load, sentinel, attack):
    with pytest.raises(
        UnsafePickleError,
        match=r"file\.pkl is refused: it (names|calls|uses|sets|holds|has|fills) .",
    ):
        load(pickled(attack(sentinel)))
    assert not sentinel.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "system"),
        (eval, "eval"),
        (exec, "exec"),
        (copyreg._reconstructor, "_reconstructor"),
    ],
)
def test_calls_are_refused_by_name(load, sentinel, function, name, protocol):
    hostile = pickle.dumps(Reduces(function, (f"touch {sentinel}",)), protocol)
    with pytest.raises(UnsafePickleError, match=name):
        load(hostile)
    assert not sentinel.exists()


def test_reduce_with_state_setter_is_refused(load):
    with pytest.raises(UnsafePickleError, match="setattr"):
        load(pickle.dumps(Reduces(collections.OrderedDict, (), {"a": 1}, None, None, setattr), 4))


@pytest.mark.parametrize("opcode", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_extension_codes_are_refused(load, sentinel, opcode):
    copyreg.add_extension("os", "system", 0xF0)
    pickle.loads(b"\x80\x02\x82\xf0.")  # now in the cache that pickle asks before find_class
    try:
        with pytest.raises(UnsafePickleError, match=r"opcode EXT\d 240"):
            load(pickled(opcode + _system(sentinel)))
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert not sentinel.exists()


def test_objects_in_an_array_are_refused(load):
    array = np.array([Reduces(os.getcwd, ())], dtype=object)
    with pytest.raises(UnsafePickleError, match="dtype 'O8'"):
        load(pickle.dumps(array, 4))
    with pytest.raises(UnsafePickleError, match="dtype 'O8'"):
        load(pickle.dumps(np.array([None], dtype=object), 4))


# A function as dill pickles it, in the place of a defaultdict's factory


def _created_function(sentinel: Path) -> bytes:
    hostile = compile(f"open({str(sentinel)!r}, 'w').close()", "file", "exec").co_code
    code = stack_global("dill._dill", "_create_code") + b"("
    code += b"K\x00K\x00K\x00K\x02KC" + b"C" + bytes([len(hostile)]) + hostile
    code += b"N\x85" + text("open") + b"\x85)" + text("<ipython>") + text("<lambda>") + b"K\x01"
    code += b"C\x00))tR"
    function = stack_global("dill._dill", "_create_function") + b"(" + code
    return function + b"c__builtin__\n__main__\n" + text("<lambda>") + b"NN}NtR"


def test_factory_is_ignored(load, sentinel):
    factory = _created_function(sentinel)
    body = stack_global("collections", "defaultdict") + factory + b"\x85R" + text("a") + b"K\x01s"
    read = load(pickled(body))
    assert read == {"a": 1}
    assert type(read) is dict
    with pytest.raises(KeyError):
        read["b"]
    assert not sentinel.exists()


def test_type_is_ignored(load):
    factory = stack_global("dill._dill", "_load_type") + text("dict") + b"\x85R"
    assert load(pickled(stack_global("collections", "defaultdict") + factory + b"\x85R")) == {}


@pytest.mark.parametrize(
    "use", [b")R", b")\x81", b"}b", b"", b"\x85"], ids=repr
)  # called, instantiated, given a state, returned, in a tuple
def test_function_is_of_no_use(load, sentinel, use):
    with pytest.raises(UnsafePickleError, match=r"a function or type|NEWOBJ"):
        load(pickled(_created_function(sentinel) + use))
    assert not sentinel.exists()


# Damage


def test_truncated(load):
    whole = pickle.dumps({"a": np.arange(3.0), "b": [1, 2]}, 4)
    load(whole)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"file\.pkl is (truncated or no pickle|refused)"):
            load(whole[:length])


@pytest.mark.parametrize(
    "content",
    [b"", b"no pickle at all", b".", pickled(b"h\x07"), pickled(b"t"), pickled(b"K\x01K\x02")],
    ids=repr,
)
def test_no_pickle(load, content):
    with pytest.raises(ValueError, match=r"file\.pkl is truncated or no pickle"):
        load(content)


def test_bytes_that_do_not_fill_the_array(load):
    body = _array(stack_global("numpy.core.multiarray", "_reconstruct"))
    with pytest.raises(ValueError, match="truncated"):
        load(pickled(body.replace(b"K\x01K\x02\x85", b"K\x01K\x03\x85")))


def test_random_damage(load):
    rng = np.random.default_rng(0)
    whole = pickle.dumps({"a": np.arange(3.0), "b": [1, (2, "c")]}, 4)
    for _ in range(300):
        damaged = bytearray(whole)
        for position in rng.integers(len(whole), size=3):
            damaged[position] = rng.integers(256)
        with contextlib.suppress(ValueError):  # and no other error
            load(bytes(damaged))
