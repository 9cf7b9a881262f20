"""Reads pickles of numbers without running anything that they carry.

A pickle is a program, and `pickle.load` imports and calls whatever it names. Some published
databases are such files, even `dill` files that carry the code of a function. `load_arrays` does
not hand them to `pickle`: it parses the opcodes (`pickletools.genops`, which runs none) and gives
a meaning to those that build arrays of numbers, plain containers and scalars. The classes and
functions that a file names stay names, a few of which stand for something that is built here
(`_call`, `_build`). Code is never built, and whatever else a file asks for is refused.
"""

import pickletools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


class UnsafePickleError(ValueError):
    """A pickle asks for more than arrays of numbers and plain containers."""


def load_arrays(path: Path) -> Any:
    """The dicts, lists, tuples, sets, scalars and arrays of numbers in a pickle.

    An OrderedDict or a defaultdict becomes a dict.

    Raises:
        UnsafePickleError: the file asks for anything else; the message names it.
        ValueError: the file is truncated or no pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            machine.step(opcode.name, argument)
        (result,) = machine.stack
        return _data(result)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{path} is refused: {error}") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is truncated or no pickle: {error}") from error


class _Placeholder:
    """A value that a file may hand around while it builds data, but may not put into the data."""

    __slots__ = ()


class _Name(_Placeholder, str):
    """The name of a class, function or module, which is not imported."""

    __slots__ = ()


class _Inert(_Placeholder):
    """A function, its code, or a type."""

    __slots__ = ()


class _Arguments(_Placeholder, tuple):
    """A tuple with placeholders in it."""

    __slots__ = ()


class _DType(_Placeholder):
    """A dtype, before and after BUILD sets its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype


class _Array(_Placeholder):
    """An array of which nothing is known until BUILD makes it."""

    __slots__ = ("array",)

    def __init__(self):
        self.array: np.ndarray | None = None


_UMATH = ("numpy.core._multiarray_umath", "numpy._core._multiarray_umath")
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray", *_UMATH)
_CONTAINERS = ("collections.OrderedDict", "collections.defaultdict")
_SETS = ("builtins.set", "__builtin__.set")
_FACTORIES = tuple(f"builtins.{kind}" for kind in ("dict", "list", "int", "float"))
_INERT = ("dill._dill._create_function", "dill._dill._create_code", "dill._dill._load_type")
_ADMITTED = {
    **{f"{module}._reconstruct": "numpy._reconstruct" for module in _MULTIARRAY},
    **{name: name for name in (*_CONTAINERS, *_SETS, *_FACTORIES, *_INERT)},
    **{name: name for name in ("numpy.ndarray", "numpy.dtype")},
    **{name: name for name in ("dill._dill._get_attr", "dill._dill._import_module")},
    **{name: name for name in ("builtins.__main__", "__builtin__.__main__")},  # dill's globals
}


class _Machine:
    """A pickle's stack, the stacks that MARK has set aside, and the memo."""

    def __init__(self):
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        match opcode:
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "SHORT_BINUNICODE" | "BINUNICODE" | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
            case "BINGET" | "LONG_BINGET":
                stack.append(_latest(self.memo[argument]))
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MARK":
                self.marked.append(stack)
                self.stack = []
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(_tuple(_pop(stack, int(opcode[-1]))))
            case "TUPLE":
                self._to_mark().append(_tuple(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                _set_items(_pop(stack, 2), stack[-1])
            case "SETITEMS":
                _set_items(stack, self._to_mark()[-1])
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                _append(_pop(stack, 1), stack[-1])
            case "APPENDS":
                _append(stack, self._to_mark()[-1])
            case "EMPTY_SET":
                stack.append(set())
            case "ADDITEMS":
                _add(stack, self._to_mark()[-1])
            case "GLOBAL":
                stack.append(_name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_name(*_pop(stack, 2)))
            case "REDUCE":
                stack.append(_call(*_pop(stack, 2)))
            case "BUILD":
                stack.append(_build(*_pop(stack, 2)))
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                detail = "" if argument is None else f" {argument!r:.80}"
                raise UnsafePickleError(f"it uses the opcode {opcode}{detail}")

    def _to_mark(self) -> list[Any]:
        """Goes back to the stack that the last MARK set aside."""
        self.stack = self.marked.pop()
        return self.stack


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("an opcode finds too few items on the stack")
    popped = stack[-count:]
    del stack[-count:]
    return popped


def _latest(known: Any) -> Any:
    return known.array if isinstance(known, _Array) and known.array is not None else known


def _tuple(items: Iterable[Any]) -> tuple:
    items = tuple(items)
    return _Arguments(items) if any(isinstance(i, _Placeholder) for i in items) else items


def _data(value: Any) -> Any:
    if isinstance(value, _Placeholder):
        raise UnsafePickleError(f"it holds {_describe(value)} as data")
    return value


def _key(value: Any) -> Any:
    if isinstance(value, _Placeholder) or not isinstance(value, str | bytes | float | int | None):
        raise UnsafePickleError(f"it has {_describe(value)} as a key")
    return value


def _describe(value: Any) -> str:
    match value:
        case _Name():
            return str(value)
        case _Arguments():
            return " and ".join(_describe(v) for v in value if isinstance(v, _Placeholder))
        case _Inert():
            return "a function or type"
    return type(value).__name__.lstrip("_").lower()


def _set_items(items: list[Any], target: Any) -> None:
    _container(target, dict).update(
        (_key(key), _data(value)) for key, value in zip(items[::2], items[1::2], strict=True)
    )


def _append(items: list[Any], target: Any) -> None:
    _container(target, list).extend(_data(item) for item in items)


def _add(items: list[Any], target: Any) -> None:
    _container(target, set).update(_key(item) for item in items)


def _container(target: Any, kind: type) -> Any:
    if type(target) is not kind:
        raise UnsafePickleError(f"it fills {_describe(target)} as if it were a {kind.__name__}")
    return target


def _name(module: Any, name: Any) -> _Name:
    """The name of what GLOBAL looks up, as `_call` knows it."""
    admitted = _ADMITTED.get(f"{module}.{name}")
    if admitted is None:
        raise UnsafePickleError(f"it names {module}.{name}")
    return _Name(admitted)


def _call(function: Any, arguments: Any) -> Any:
    """The value that the call of a named function stands for."""
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise UnsafePickleError(f"it calls {_describe(function)}")
    match (str(function), *arguments):
        case ("numpy._reconstruct", "numpy.ndarray", (0,), b"b"):
            return _Array()
        case ("numpy.dtype", str(code), _, _):
            if not re.fullmatch(r"[biufc]\d{1,2}", code):
                raise UnsafePickleError(f"it has an array of dtype {code!r}")
            return _DType(np.dtype(code))
        case ("dill._dill._import_module", str(module)) if module in _UMATH:
            return _Name(module)
        case ("dill._dill._get_attr", _Name() as module, "_reconstruct") if module in _UMATH:
            return _Name("numpy._reconstruct")
        case (name,) if name in _CONTAINERS:
            return {}
        case ("collections.defaultdict", _):
            return {}
        case (name, list(items)) if name in _SETS:
            return {_key(item) for item in items}
        case (name, *_) if name in _INERT:
            return _Inert()
    listed = ", ".join(repr(a) if isinstance(a, str) else _describe(a) for a in arguments)
    raise UnsafePickleError(f"it calls {function}({listed})")


def _build(target: Any, state: Any) -> Any:
    """The object with its state, which pickles of arrays and dtypes keep apart from the call."""
    match target, state:
        case _DType(), (3, "<" | ">" | "=" | "|" as order, None, None, None, *_):
            target.dtype = target.dtype.newbyteorder(order)
            return target
        case _Array(), (1, tuple(shape), _DType() as kind, bool(fortran), bytes(data)):
            flat = np.frombuffer(data, kind.dtype)
            target.array = flat.reshape(shape, order="F" if fortran else "C")
            return target.array
    raise UnsafePickleError(f"it sets the state of {_describe(target)}")
