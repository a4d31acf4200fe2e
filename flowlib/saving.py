"""A flow in one file: how it was made and its weights, with nothing in it that can run.

``flow.save(path)`` writes a `safetensors <https://github.com/huggingface/safetensors>`_ file. Its
tensors are the flow's weights and buffers; its header says, in JSON, with which arguments the flow
and its parts were constructed. :func:`load` constructs them again and puts the weights in. A pickle
would be shorter to write, and runs whatever its author liked.

Every class that derives from :class:`Recorded` takes part: bijections, densities, transformers,
bases, the networks of this library. A class of your own that derives from one of these does, too.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self
from weakref import WeakValueDictionary

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.utils import lazy_property

from flowlib.arrays import Names

__all__ = ["Recorded", "load", "remake", "save"]

FORMAT, VERSION = "flowlib", 1
ARGUMENT = "argument."  # before the names of tensors that are arguments and not weights
PLAIN = (type(None), bool, int, float, str)
KNOWN: WeakValueDictionary[str, type] = WeakValueDictionary()  # the classes that a file may name
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
COVARIANCES = ("covariance_matrix", "precision_matrix", "scale_tril")  # one of them is an argument
RENAMED = {  # where a distribution of PyTorch keeps an argument under another name
    "base_distribution": "base_dist",
    "mixture_distribution": "_mixture_distribution",
    "component_distribution": "_component_distribution",
}


class Arguments(NamedTuple):
    """What a class is called with."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012, never changed


class Recorded:
    """Base class of all that can be made again from the arguments that it was made with.

    The arguments are kept as they were given; buffers that are not persistent are what the
    constructor makes of them. A subclass whose arguments cannot be used twice, such
    as an iterator, or that has been changed since, returns from :meth:`arguments` others that make
    the same.

    Example:
        >>> class Shift(Recorded, torch.nn.Module):
        ...     def __init__(self, dim, by=1.0):
        ...         super().__init__()
        ...         self.dim, self.by = dim, by
        >>> Shift(3, by=2.0).arguments()
        Arguments(args=(3,), kwargs={'by': 2.0})
        >>> remake(Shift(3, by=2.0)).by
        2.0
    """

    _made_with: Arguments

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        kept = Arguments(
            tuple(map(_keepable, args)), {name: _keepable(value) for name, value in kwargs.items()}
        )
        made.__dict__["_made_with"] = kept  # before nn.Module's own __init__, and past its checks
        return made

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        KNOWN[_name(cls)] = cls

    def arguments(self) -> Arguments:
        """The arguments that make one like this, but for the weights."""
        return self._made_with


class _Unwritable(NamedTuple):
    """In the place of an argument that would keep this object from being pickled."""

    what: str


def _keepable(value: Any) -> Any:
    """The value, or a copy that its owner does not change later."""
    if isinstance(value, torch.Generator):  # what it has drawn is in the weights and buffers
        return None
    if inspect.isroutine(value) and "<" in value.__qualname__:  # a lambda, or local to a function
        return _Unwritable(f"the function {value.__qualname__}")
    if isinstance(value, Iterator):
        return _Unwritable(f"a {type(value).__name__}, which can be gone through once")
    if type(value) in (list, tuple):
        return type(value)([_keepable(item) for item in value])
    if type(value) is dict:
        return {key: _keepable(item) for key, item in value.items()}
    if type(value) is functools.partial:
        parts = (value.func, *value.args, *value.keywords.values())
        lost = [part for part in map(_keepable, parts) if isinstance(part, _Unwritable)]
        return lost[0] if lost else value
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) is Tensor:
        return value.detach().clone()
    return value


def remake(module: Any) -> Any:
    """A new one, made with the same arguments; its weights are drawn anew.

    The caller's random state is left as it is.

    Args:
        module: a :class:`Recorded`, such as a flow.

    Raises:
        TypeError: if an argument cannot be written to a file, such as a lambda.

    Example:
        >>> from flowlib import RealNVP
        >>> len(remake(RealNVP(2, n_layers=4)).bijection)
        5
    """
    tensors: dict[str, Tensor] = {}
    recipe = json.loads(json.dumps(_Writer("remake", tensors).write(module, type(module).__name__)))
    return _made(recipe, tensors)


def _made(recipe: Any, tensors: dict[str, Tensor]) -> Any:
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return _Reader(tensors).read(recipe)


# --- files --------------------------------------------------------------------------------------


def save(module: Any, path: str | Path) -> None:
    """Write a flow, or another :class:`Recorded` module, to a file.

    The file is replaced whole or not at all.

    Args:
        module: what to write, on any device, of any dtype.
        path: the file. Its name is up to you; ``.safetensors`` is what others expect.

    Raises:
        TypeError: if an argument of the module or of one of its parts cannot be written, such as a
            lambda; a class or ``functools.partial`` of one can.
        ValueError: if the module has been changed since it was made, and its arguments would make
            another one; if a weight has no values because it is on the device ``meta``.
        OSError: if nothing can be written there.

    Example:
        >>> import tempfile
        >>> from flowlib import RealNVP
        >>> flow, x = RealNVP(2).eval(), torch.zeros(5, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     flow.save(f"{folder}/flow.safetensors")
        ...     again = load(f"{folder}/flow.safetensors")
        >>> torch.equal(flow.log_prob(x), again.log_prob(x))
        True
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"save: expected the name of a file, got the folder {path}")
    if not (isinstance(module, Recorded) and isinstance(module, nn.Module)):
        raise TypeError(
            f"save: expected a flow or another module of flowlib, got a {type(module).__name__}"
        )
    weights = module.state_dict()
    empty = [name for name, value in weights.items() if value.is_meta]
    if empty:
        raise ValueError(f"save: {empty[0]} has no values, it is on the device meta")
    tensors: dict[str, Tensor] = {}
    recipe = _Writer("save", tensors).write(module, type(module).__name__)
    _require_same(_made(recipe, tensors), module)
    frozen = [name for name, weight in module.named_parameters() if not weight.requires_grad]
    # each with memory of its own: two names of one tensor are two tensors in the file
    kept = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in {**weights, **tensors}.items()
    }
    about = {"made": recipe, "frozen": frozen, "tied": _tied(module)}
    names = getattr(module, "columns", None)
    if isinstance(names, Names) and any(names):
        about["columns"] = names._asdict()
    written = json.dumps(about)
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "recipe": written,
        "digest": digest(written, kept),
    }
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=path.name, suffix=".new", delete=False
    ) as fresh:
        pass
    try:
        save_file(kept, fresh.name, header)
        os.replace(fresh.name, path)
    except SafetensorError as error:  # as of a full disk
        raise OSError(f"save: cannot write {path}: {error}") from error
    finally:
        Path(fresh.name).unlink(missing_ok=True)


def load(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """A flow from a file that its ``save`` has written, ready for use: in evaluation mode.

    Nothing in the file is run. It may name classes of flowlib, of ``torch.nn`` and of
    ``torch.distributions``, and those classes of your own that your program has already imported.
    Its densities are those of the flow that was saved, bit by bit on a CPU. What a stranger has
    written can still ask for more memory than there is.

    Args:
        path: the file.
        device: where the flow is to be.

    Returns:
        What was saved: for ``flow.save`` a :class:`~flowlib.Density` of the same class.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another kind, such as a pickle; if it has been cut off or changed;
            if it is of a version that this library cannot read; if it names a class that is
            unknown here.
    """
    path = Path(path)
    tensors, header = _contents(path)
    if header.get("format") != FORMAT or "recipe" not in header:
        raise ValueError(
            f"load: {path} holds tensors, and not a flow that flow.save has written; "
            "load_state_dict takes tensors"
        )
    if header.get("version") != str(VERSION):
        raise ValueError(
            f"load: {path} is of version {header.get('version')} of the format, and this flowlib "
            f"reads version {VERSION}; the flowlib that wrote it reads it, too"
        )
    if header.get("digest") != digest(header["recipe"], tensors):
        raise ValueError(f"load: {path} has been changed: its digest is not that of its contents")
    arguments = {k: tensors.pop(k) for k in list(tensors) if k.startswith(ARGUMENT)}
    try:
        recipe = json.loads(header["recipe"])
        module = _made(recipe["made"], arguments)
        floats = [value.dtype for value in tensors.values() if value.is_floating_point()]
        if floats:
            module.to(floats[0])  # what is not in the file has a dtype, too
        module.load_state_dict(tensors, assign=True)
        _tie(module, recipe["tied"])
        for name in recipe["frozen"]:
            module.get_parameter(name).requires_grad_(False)
        if "columns" in recipe:  # the names of a table that it was fitted on
            module.columns = Names.of(**recipe["columns"])
    except Exception as error:  # a file that was made by hand may cause any
        raise ValueError(
            f"load: {path} was written by another flowlib, or by hand: {error}"
        ) from error
    return module.eval().to(device)


def digest(recipe: str, tensors: dict[str, Tensor]) -> str:
    """What tells that a byte has changed: SHA-256 of a header and tensors. It is no signature."""
    found = hashlib.sha256(recipe.encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with open(path, "rb") as opened:  # the operating system says what is wrong with the path
        start = opened.read(9)
    if start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
        raise ValueError(
            f"load: {path} is a pickle, as torch.save writes; loading one can run any code, so it "
            "is never done here. If you trust it, make the flow anew and give it "
            "torch.load(path, weights_only=True)"
        )
    try:
        with safe_open(path, "pt") as file:
            # in memory of its own, which is aligned: BLAS rounds differently where it is not
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"load: {path} is not a file that flow.save has written, or it has been cut off: "
            f"{error}"
        ) from error


def _tied(module: nn.Module) -> list[list[str]]:
    """The names of each weight that has several."""
    names: dict[int, list[str]] = {}
    for name, weight in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), []).append(name)
    return [of for of in names.values() if len(of) > 1]


def _tie(module: nn.Module, groups: list[list[str]]) -> None:
    for first, *others in groups:
        for name in others:
            place, _, last = name.rpartition(".")
            setattr(module.get_submodule(place), last, module.get_parameter(first))


def _require_same(twin: nn.Module, module: nn.Module) -> None:
    """Raise ``ValueError`` if the arguments make something else than ``module``."""
    own, its = _looks(module), _looks(twin)
    differ = [name for name in {**own, **its} if own.get(name) != its.get(name)]
    if differ:
        name = differ[0]
        raise ValueError(
            f"save: the {type(module).__name__} was changed after it was made: {name} is "
            f"{own.get(name, 'missing')}, and the arguments make one where it is "
            f"{its.get(name, 'missing')}. Save its state_dict(), or put the parts together anew"
        )


def _looks(module: nn.Module) -> dict[str, Any]:
    """All that must be the same in two modules, by name."""
    found: dict[str, Any] = {
        name: tuple(value.shape) for name, value in module.state_dict().items()
    }
    for name, part in module.named_modules():
        found[name or "it"] = type(part).__name__
        for key, value in vars(part).items():
            if key.startswith("_") or key == "training":
                continue
            if isinstance(value, PLAIN) or (
                isinstance(value, list | tuple) and all(isinstance(v, PLAIN) for v in value)
            ):
                # by their words, in which one NaN is like another
                found[f"{name}.{key}" if name else key] = repr(value)
    return found


# --- arguments as JSON --------------------------------------------------------------------------


class _Writer:
    """Values as JSON; their tensors go to ``tensors``, and what is met twice is one object."""

    def __init__(self, where: str, tensors: dict[str, Tensor]) -> None:
        self.where, self.tensors = where, tensors
        self.met: dict[int, int] = {}
        self.alive: list[Any] = []  # or another object could get the same id

    def write(self, value: Any, what: str) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, np.generic):
            return self.write(value.item(), what)
        if isinstance(value, Tensor | np.ndarray):
            name = f"{ARGUMENT}{len(self.tensors)}"
            self.tensors[name] = torch.as_tensor(value).detach().cpu()
            return {"tensor": name}
        if isinstance(value, tuple | range) and not isinstance(value, _Unwritable):
            return {"tuple": [self.write(item, what) for item in value]}
        if isinstance(value, list):
            return [self.write(item, what) for item in value]
        if isinstance(value, OrderedDict):
            items = [[self.write(k, what), self.write(v, what)] for k, v in value.items()]
            return {"ordered": items}
        if isinstance(value, dict):
            return {"dict": [[self.write(k, what), self.write(v, what)] for k, v in value.items()]}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, type):
            return {"class": self.known(value, what)}
        if isinstance(value, functools.partial):
            call = self.call(Arguments(value.args, value.keywords), what)
            return {"partial": self.write(value.func, what), **call}
        if isinstance(value, Recorded | nn.Module | Distribution):
            return self.object(value, what)
        given = value.what if isinstance(value, _Unwritable) else f"a {type(value).__name__}"
        if inspect.isroutine(value):
            given = f"the function {value.__qualname__}"
        raise TypeError(
            f"{self.where}: {what} was given {given}, which cannot be written to a file; give it a "
            "class, or functools.partial of a class"
        )

    def object(self, value: Any, what: str) -> Any:
        if id(value) in self.met:
            return {"same": self.met[id(value)]}
        name = self.known(type(value), what)
        if isinstance(value, Recorded):
            arguments = value.arguments()
        elif isinstance(value, nn.Sequential):
            names = [name for name, _ in value.named_children()]
            parts: tuple[Any, ...] = tuple(value)
            if names != [str(k) for k in range(len(names))]:
                parts = (OrderedDict(value.named_children()),)
            arguments = Arguments(parts)
        else:
            arguments = self.of_pytorch(value, what)
        call = self.call(arguments, type(value).__name__)
        asked = [key for key in _computed(value) if key not in arguments.kwargs]
        self.met[id(value)] = len(self.met)
        self.alive.append(value)
        return {"make": name, **call, **({"asked": asked} if asked else {})}

    def call(self, arguments: Arguments, what: str) -> dict[str, Any]:
        return {
            "args": [self.write(value, what) for value in arguments.args],
            "kwargs": {
                name: self.write(value, f"{name} of {what}")
                for name, value in arguments.kwargs.items()
            },
        }

    def known(self, cls: type, what: str) -> str:
        name = _name(cls)
        if _found(name) is not cls:
            raise TypeError(
                f"{self.where}: {what} was given {cls.__qualname__}, a class that flowlib cannot "
                "make again; derive it from flowlib.Recorded"
            )
        return name

    def of_pytorch(self, value: Any, what: str) -> Arguments:
        """The arguments of an object of PyTorch: most are its attributes of the same names."""
        found, kept = {}, dict(vars(value))
        if isinstance(value, nn.Module):
            kept.update(value.named_parameters(recurse=False))
        if {"probs", "logits"} <= kept.keys():  # one was given, the other has been computed
            kept.pop("logits" if torch.equal(kept["probs"], kept["_param"]) else "probs")
        _, *others = [key for key in kept if key in COVARIANCES] or [""]
        for key in others:  # the first was given, the others have been computed
            kept.pop(key)
        for name, parameter in inspect.signature(type(value)).parameters.items():
            key = RENAMED.get(name, name)
            if name == "bias" and isinstance(value, nn.Module):
                found[name] = (
                    kept[name] if isinstance(kept.get(name), bool) else (kept.get(name) is not None)
                )
            elif key in kept:
                found[name] = kept[key]
            elif parameter.default is parameter.empty and parameter.kind not in VARIADIC:
                raise TypeError(
                    f"{self.where}: {what} has a {type(value).__name__} of PyTorch, whose {name} "
                    "is not known any more; make it in a class derived from flowlib.Recorded"
                )
        return Arguments((), found)


class _Reader:
    """What :class:`_Writer` has written as objects."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.made: list[Any] = []

    def read(self, value: Any) -> Any:
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, list):
            return [self.read(item) for item in value]
        kind = next((kind for kind in self.KINDS if kind in value), None)
        if kind is None:
            raise ValueError(f"expected the description of an argument, got {value!r:.80}")
        made = getattr(self, f"read_{kind}")(value)
        if kind == "make":
            self.made.append(made)  # after its parts, as they were written
        return made

    KINDS = (
        "float",
        "tensor",
        "tuple",
        "dict",
        "ordered",
        "dtype",
        "same",
        "class",
        "partial",
        "make",
    )

    def read_float(self, value: Any) -> float:
        return float(value["float"])

    def read_tensor(self, value: Any) -> Tensor:
        return self.tensors[value["tensor"]]

    def read_tuple(self, value: Any) -> tuple[Any, ...]:
        return tuple([self.read(item) for item in value["tuple"]])

    def read_dict(self, value: Any) -> dict[Any, Any]:
        return {self.read(k): self.read(v) for k, v in value["dict"]}

    def read_ordered(self, value: Any) -> OrderedDict[Any, Any]:
        return OrderedDict((self.read(k), self.read(v)) for k, v in value["ordered"])

    def read_dtype(self, value: Any) -> torch.dtype:
        found = getattr(torch, value["dtype"], None)
        if not isinstance(found, torch.dtype):  # there is more in that module, such as torch.load
            raise ValueError(f"expected the name of a dtype, got {value['dtype']!r}")
        return found

    def read_same(self, value: Any) -> Any:
        return self.made[value["same"]]

    def read_class(self, value: Any) -> type:
        return self.known(value["class"])

    def read_partial(self, value: Any) -> Any:
        of = value["partial"]
        if not isinstance(of, dict) or not ({"class", "partial"} & of.keys()):
            raise ValueError(f"expected a class to make a partial of, got {of!r:.80}")
        target, (args, kwargs) = self.read(of), self.call(value)
        return functools.partial(target, *args, **kwargs)

    def read_make(self, value: Any) -> Any:
        cls, (args, kwargs) = self.known(value["make"]), self.call(value)
        made = cls(*args, **kwargs)
        for name in value.get("asked", ()):
            if not _is_lazy(made, name):
                raise ValueError(f"expected what a {cls.__name__} computes when asked, got {name}")
            getattr(made, name)
        return made

    def call(self, value: Any) -> Arguments:
        args = tuple([self.read(item) for item in value["args"]])  # in the order of writing
        return Arguments(args, {name: self.read(v) for name, v in value["kwargs"].items()})

    def known(self, name: str) -> type:
        cls = _found(name)
        if cls is None:
            raise ValueError(
                f"the class {name} is unknown here; if it is yours, import the module that defines "
                "it before you load"
            )
        return cls


def _computed(value: Any) -> list[str]:
    """What a distribution of PyTorch has computed when it was first asked, and has kept."""
    if not isinstance(value, Distribution):
        return []
    return [key for key in vars(value) if _is_lazy(value, key)]


def _is_lazy(value: Any, key: str) -> bool:
    return isinstance(inspect.getattr_static(type(value), key, None), lazy_property)


def _name(cls: type) -> str:
    """The name of a class in files; flowlib's modules may move, and their names are left out."""
    place, _, _ = cls.__module__.partition(".")
    if place == "flowlib":
        return f"flowlib.{cls.__qualname__}"
    for module in (nn, torch.distributions):
        if getattr(module, cls.__name__, None) is cls:
            return f"{module.__name__}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _found(name: str) -> type | None:
    """The class of that name, if a file may name it."""
    for module, kind in ((nn, nn.Module), (torch.distributions, Distribution)):
        place, _, last = name.rpartition(".")
        if place == module.__name__:
            cls = getattr(module, last, None)
            return cls if isinstance(cls, type) and issubclass(cls, kind) else None
    if name in KNOWN:
        return KNOWN[name]
    # a class of a script, or of a notebook, is of the module __main__ there and not elsewhere
    _, _, last = name.rpartition(".")
    same = [cls for known, cls in KNOWN.items() if known.rpartition(".")[2] == last]
    main = [
        cls
        for cls in same
        if "__main__" in (name.partition(".")[0], cls.__module__)
        and not cls.__module__.startswith("flowlib.")
    ]
    return main[0] if len(main) == 1 else None
