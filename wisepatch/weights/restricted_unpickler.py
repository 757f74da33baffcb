"""Unpickle what PyTorch pickles without running anything: tensors that stay in their file, plain values, inert placeholders."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wisepatch.pickles import BUILDERS, ArrayUnpickler, Unpickler, check_keys, refusal, shown
from wisepatch.weights.stored_tensors import File, Storage, StoredTensor

# Classes of Python's own library whose instances are kept as placeholders; every other name in it is refused when it is read.
HARMLESS = frozenset({
    "argparse.Namespace", "types.SimpleNamespace", "functools.partial", "datetime.datetime", "datetime.timedelta", "typing.Any",
    *(f"pathlib.{kind}" for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{kind}" for kind in ("PosixPath", "WindowsPath")),
})  # fmt: skip
# Calls that modules are pickled with and that only name a value, so that a placeholder can stand for it.
NAMING_CALLS = HARMLESS | {
    "torchvision.transforms.functional.InterpolationMode", "torchvision.transforms.functional_pil.InterpolationMode",
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """A class or function that a file names; never looked up."""

    path: str


@dataclass
class Placeholder:
    """Stand for an object of a class that is not loaded: the name of the class, and what the object holds."""

    path: str
    state: dict[Any, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Return the name of the class without its module."""
        return self.path.rpartition(".")[2]


class TensorUnpickler(ArrayUnpickler):
    """Build tensors that stay in their file, plain values, NumPy's arrays, and placeholders; refuse, by name, all that calls."""

    def __init__(
        self,
        file: File,
        storage_of: Callable[[tuple[Any, ...]], Storage] | None = None,
        load_bytes: Callable[[File], Any] | None = None,
    ) -> None:
        """Read from ``file``; ``storage_of`` finds what a persistent id names, ``load_bytes`` reads a storage within the pickle."""
        super().__init__(file, file.size)
        self.file, self.storage_of, self.load_bytes = file, storage_of, load_bytes

    def find_class(self, module: str, name: str) -> Any:
        """Return a builder of ours, or the name itself; names of Python's own library are refused."""
        path = f"{module}.{name}"
        if (module, name) in BUILDERS:
            return BUILDERS[module, name]
        if path in TENSOR_BUILDERS:
            return TENSOR_BUILDERS[path]
        if path == "torch.storage._load_from_bytes":
            return self._load_bytes
        root = module.partition(".")[0]
        if (root in sys.stdlib_module_names or root in ("__builtin__", "copy_reg", "nt")) and path not in HARMLESS:
            raise refusal(path)
        return Name(path)

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage that ``("storage", type, key, device, count)`` names, or the class of ``("module", class, source)``.

        Before PyTorch 1.6 classes of modules had their source beside them. Refuses every other persistent id.
        """
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module" and isinstance(pid[1], Name):
            return pid[1]
        if self.storage_of is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            named = ", ".join(map(shown, pid[:2])) if isinstance(pid, tuple) else shown(pid)
            raise refusal(f"the persistent id {named}")
        return self.storage_of(pid)

    def _load_bytes(self, data: Any) -> Storage:
        """Read the storage that ``pickle.dump`` of a tensor puts into the pickle, as ``torch.save`` would write it."""
        if self.load_bytes is None or not isinstance(data, bytes | memoryview):
            raise refusal("a storage within a storage")
        inner = File(memoryview(data), self.file.size)
        inner.reads = self.file.reads
        storage = self.load_bytes(inner)
        self.file.reads = inner.reads
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("it holds something else where a tensor's numbers should be")
        storage.source = self.file
        return storage

    def _frame(self) -> None:
        self.read(8)  # a frame only says how much to read at once

    def _reduce(self) -> None:
        function, arguments = self.stack[-2], self.stack[-1]
        if isinstance(function, Name):
            if function.path not in NAMING_CALLS:
                raise refusal(function.path)
            self.stack[-2:] = [Placeholder(function.path, {"arguments": arguments})]
        else:
            self.use(arguments)
            self.load_reduce()

    def _new_object(self) -> None:
        kind = self.stack[-2]
        if isinstance(kind, Name):
            self.stack[-2:] = [Placeholder(kind.path)]
        else:
            raise pickle.UnpicklingError("it makes an object of something that is no class")

    def _set_state(self) -> None:
        built, state = self.stack[-2], self.stack[-1]
        if isinstance(built, Placeholder):
            self.use(self.stack.pop())
            for part in state if isinstance(state, tuple) else (state,):
                if isinstance(part, dict):
                    built.state.update(part)
        elif isinstance(built, dict | StoredTensor):  # attributes of a dict, such as PyTorch's _metadata
            self.stack.pop()
        else:
            self._build()

    def _add_to_list(self) -> None:
        self._list_of(self.stack[-2])
        self.load_append()

    def _add_all_to_list(self) -> None:
        self._list_of(self.metastack[-1][-1])
        self.load_appends()

    def _list_of(self, target: Any) -> None:
        if type(target) is not list:
            raise pickle.UnpicklingError("it adds to something that is no list")

    def _empty_set(self) -> None:
        self.append([])  # elements of a set are hashed, which may take for ever

    def _frozen_set(self) -> None:
        self.append(self.pop_mark())

    def _with_keys_in_dict(self, target: int, load: Callable[[Any], None]) -> None:
        stack = self.stack if target == -3 else self.metastack[-1]
        if type(stack[target]) is not dict:
            raise pickle.UnpicklingError("it sets an entry of something that is no dict")
        load(self)

    dispatch = {  # noqa: RUF012 -- as in the class above
        **ArrayUnpickler.dispatch,
        pickle.FRAME[0]: _frame,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new_object,
        pickle.BUILD[0]: _set_state,
        pickle.BINPERSID[0]: Unpickler.dispatch[pickle.BINPERSID[0]],
        pickle.APPEND[0]: _add_to_list,
        pickle.APPENDS[0]: _add_all_to_list,
        pickle.EMPTY_SET[0]: _empty_set,
        pickle.ADDITEMS[0]: _add_all_to_list,
        pickle.FROZENSET[0]: _frozen_set,
        pickle.SETITEM[0]: lambda self: self._with_keys_in_dict(-3, ArrayUnpickler.dispatch[pickle.SETITEM[0]]),
        pickle.SETITEMS[0]: lambda self: self._with_keys_in_dict(-1, ArrayUnpickler.dispatch[pickle.SETITEMS[0]]),
    }
    for _name in (
        "PERSID",
        "NEWOBJ_EX",
        "EXT1",
        "EXT2",
        "EXT4",
        "INST",
        "OBJ",
        "NEXT_BUFFER",
        "READONLY_BUFFER",
        "BYTEARRAY8",
    ):
        dispatch[getattr(pickle, _name)[0]] = lambda self, name=_name: self._refuse_instruction(name)

    def _refuse_instruction(self, name: str) -> None:
        raise pickle.UnpicklingError(f"it uses the instruction {name}, and no code of a file is run")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    """Make the tensor of ``torch._utils._rebuild_tensor`` and its kin; numbers are checked, none is read."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple | list) or not isinstance(strides, tuple | list):
        raise pickle.UnpicklingError("it holds a tensor without numbers")
    if len(shape) != len(strides) or len(shape) > 16:
        raise pickle.UnpicklingError("it holds a tensor whose shape is none")
    if not all(type(each) is int and 0 <= each < 2**48 for each in [offset, *shape, *strides]):
        raise pickle.UnpicklingError("it holds a tensor whose shape is none")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _tensor_of_type(function: Any, _kind: Any, arguments: Any, _state: Any = None) -> Any:
    """Make a tensor with attributes of its own, which are left out."""
    if function is not _tensor:
        raise refusal(getattr(function, "path", "a function for a tensor of another kind"))
    return _tensor(*arguments)


def _values(items: Any = (), *_: Any) -> Any:
    return items


def _dict(items: Any = (), *_: Any) -> dict[Any, Any]:
    pairs = [tuple(pair) for pair in (items.items() if isinstance(items, dict) else items)]
    if not all(len(pair) == 2 for pair in pairs):
        raise pickle.UnpicklingError("it holds a dict of something else than keys and values")
    check_keys(pair[0] for pair in pairs)
    return dict(pairs)


def _list(items: Any = (), *_: Any) -> list[Any]:
    return list(items)


def _no_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _text(*parts: Any) -> str:
    return ":".join(map(shown, parts))


TYPES = ("dict", "list", "tuple", "str", "int", "float", "bool")
TENSOR_BUILDERS: dict[str, Any] = {
    **dict.fromkeys(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), _tensor),
    **dict.fromkeys(("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"), _parameter),
    "torch._tensor._rebuild_from_type_v2": _tensor_of_type,
    **dict.fromkeys((f"torch.jit._pickle.{name}" for name in (
        "build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag",
    )), _values),
    "torch.Size": _values,
    "torch.device": _text,
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _no_dict,
    "collections.deque": _list,
    **{f"{builtins}.{kind}": _values for builtins in ("builtins", "__builtin__") for kind in ("set", "frozenset")},
    # What a defaultdict of them makes of a missing key; as names of types they are never called with anything but values.
    **{f"{builtins}.{kind}": _no_dict for builtins in ("builtins", "__builtin__") for kind in TYPES},
}  # fmt: skip
