"""Algorithms from outside the package: ``module:Class``, or the name of an entry point.

Such a class is called ``module:Class@HASH``. The hash is of the source that it was loaded from, its
file and those beside it that the file imports, so that an edited loss is another trial, and no
process trains with another source than the one that was planned. Modules are imported when a
configuration names them, never because a store does.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

from cegppo_lab.algorithms.base import Algorithm
from cegppo_lab.errors import LabError, unknown

GROUP = "cegppo_lab.algorithms"
"""The entry-point group of installed packages that bring algorithms."""
_PACKAGE = __name__.partition(".")[0]
_OURS = frozenset({_PACKAGE, "analysis"})
_SITE = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True)
class Outside:
    """A class from outside, with the source that is its own.

    ``root``: the folder that must be importable. ``files``: path below ``root`` -> content.
    """

    cls: type[Algorithm]
    root: Path
    files: dict[str, bytes]

    @property
    def installed(self) -> bool:
        """Whether it belongs to an installed package, which every process finds by itself."""
        return not _SITE.isdisjoint(self.root.parts)

    @property
    def digest(self) -> str:
        """Twelve characters that stand for ``files``."""
        told = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            told.update(f"{name}\0{len(content)}\0".encode() + content)
        return told.hexdigest()[:12]


_FOUND: dict[str, Outside] = {}
"""By ``module:Class``: a process imports a module once, whatever becomes of its file."""


def is_reference(name: str) -> bool:
    """Whether ``name`` says where a class is, rather than what it is called."""
    return ":" in name


def load(name: str) -> type[Algorithm]:
    """The class at ``module:Class``; with ``@HASH`` behind it, of that source and no other.

    The module is looked for in the present folder and among what is installed.

    Raises:
        LabError: there is no such module or class, it fails to import, is no algorithm, or has
            another source than ``@HASH`` says.
    """
    reference, _, wanted = name.partition("@")
    if reference not in _FOUND:
        _FOUND[reference] = _find(reference)
    found = _FOUND[reference]
    if wanted and found.digest != wanted:
        raise LabError(
            f"algorithm {reference}: its source has changed since the run was planned "
            f"({wanted}, now {found.digest}); type the same command again, for a run of its own"
        )
    return found.cls


def loaded() -> list[Outside]:
    """What this process has loaded and other processes do not find by themselves."""
    return [found for found in _FOUND.values() if not found.installed]


def admit(folders: Iterable[str]) -> None:
    """Let modules in ``folders`` be imported, by this process and those that it starts."""
    for folder in folders:
        if folder not in sys.path:
            sys.path.append(folder)
        told = os.environ.get("PYTHONPATH", "")
        if folder not in told.split(os.pathsep):
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [told, folder]))


@lru_cache(maxsize=1)
def entry_points() -> dict[str, list[str]]:
    """Name -> the ``module:Class`` of every entry point of :data:`GROUP`; nothing is imported."""
    found: dict[str, set[str]] = {}
    for point in metadata.entry_points(group=GROUP):
        found.setdefault(point.name, set()).add(point.value.replace(" ", ""))
    return {name: sorted(values) for name, values in found.items()}


def _find(reference: str) -> Outside:
    module_name, _, class_name = reference.partition(":")
    if module_name.endswith(".py"):
        raise LabError(f"algorithm {reference}: say {module_name[:-3]}:{class_name}, without .py")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise LabError(f"algorithm {reference!r}: must be MODULE:CLASS, e.g. my_algorithms:MyLoss")
    module = _import(module_name, reference)
    cls = _class(module, class_name, reference)
    home = sys.modules[cls.__module__]
    if home.__name__.partition(".")[0] in _OURS:
        raise LabError(f"algorithm {reference}: it is the package's own; say algorithm={cls.name}")
    root = _root(home)
    found = Outside(cls, root, dict(_sources(root, home.__name__)))
    if not found.files:
        raise LabError(
            f"algorithm {reference}: {home.__name__} has no source; it must be a .py file"
        )
    if not found.installed:
        admit([str(root)])
    _describe(cls, f"{cls.__module__}:{cls.__qualname__}@{found.digest}")
    return found


def _import(name: str, reference: str) -> ModuleType:
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            place = f"{error.name.replace('.', '/')}.py"
            raise LabError(
                f"algorithm {reference}: no module {error.name!r}; type the command in the folder "
                f"where {place} lies, or install its package"
            ) from None
        raise LabError(f"algorithm {reference}: {place_of(error)}") from None


def place_of(error: BaseException) -> str:
    """File and line of what went wrong in a user's module, and the first line of what."""
    told = (str(error).splitlines() or [""])[0]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name} line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not _foreign(f.filename)] or frames
    return f"{Path(own[-1].filename).name} line {own[-1].lineno}: {type(error).__name__}: {told}"


def _foreign(file: str) -> bool:
    package = Path(__file__).resolve().parents[1]
    outside = file.startswith("<") or file == importlib.__file__
    return outside or not _SITE.isdisjoint(Path(file).parts) or Path(file).is_relative_to(package)


def _class(module: ModuleType, name: str, reference: str) -> type[Algorithm]:
    if not hasattr(module, name):
        own = {key for key, value in vars(module).items() if _is_algorithm(value)}
        raise unknown(f"class of {module.__name__}", name, own)
    cls = getattr(module, name)
    if not _is_algorithm(cls):
        raise LabError(
            f"algorithm {reference}: it is no Algorithm; write class {name}(Algorithm) after "
            "from cegppo_lab.algorithms import Algorithm"
        )
    if inspect.isabstract(cls):
        raise LabError(f"algorithm {reference}: it has no weight F; define weight(self, batch)")
    return cls


def _is_algorithm(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Algorithm)


def _describe(cls: type[Algorithm], name: str) -> None:
    """Name the class; what it does not say of itself, its docstring and place say."""
    first = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
    told = {"title": cls.__name__, "equation": first, "source": name.partition(":")[0]}
    for key, value in told.items():
        if key not in vars(cls):
            setattr(cls, key, value)
    cls.name = name


def _root(module: ModuleType) -> Path:
    """The folder in which ``module``'s top package or file lies."""
    file = Path(module.__file__ or "").resolve()
    depth = module.__name__.count(".") + (file.stem == "__init__")
    return file.parents[depth]


def _sources(root: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """The module ``name``, the packages that it lies in, and what they import below ``root``.

    In a folder of installed packages, only of its own package.
    """
    top = name.partition(".")[0]
    bounded = not _SITE.isdisjoint(root.parts)
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        if name in seen or (bounded and name.partition(".")[0] != top):
            continue
        seen.add(name)
        stem = root.joinpath(*name.split("."))
        places = (stem / "__init__.py", stem.with_suffix(".py"))
        file = next((place for place in places if place.is_file()), None)
        if file is None or name.partition(".")[0] in _OURS:
            continue
        content = file.read_bytes()
        yield file.relative_to(root).as_posix(), content
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        waiting += [name.rpartition(".")[0]] if "." in name else []
        waiting += _imports(content, package)


def _imports(content: bytes, package: str) -> Iterator[str]:
    """The names of modules that a source imports; some are of things in a module."""
    with suppress(SyntaxError, ValueError, ImportError):  # of what was never imported in fact
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                base = util.resolve_name(base, package) if node.level else base
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
