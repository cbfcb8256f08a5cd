"""Finds and loads a study's declaration: a name in `studies/`, or the path of a user's own file."""

import ast
import difflib
import importlib.util
import re
import stat
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import CodeType

from hpo.errors import UserError
from hpo.spec import FIELDS, SpecError, StudySpec, check_name


def load_spec(study: str) -> StudySpec:
    """The `STUDY` of a module in `studies/` by its name, or of a `.py` file by its path.

    Raises:
        UserError: no such study, or its file has faults; each is one line, `FILE:LINE: what`.
    """
    path = find_study(study)
    try:
        source = path.read_bytes()
        tree = ast.parse(source, str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (RecursionError, MemoryError):
        raise UserError(f"{path}: it is nested too deep to be read") from None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UserError(f"{path}{f':{line}' if line else ''}: {getattr(error, 'msg', error)}") from None
    unknown = _unknown_fields(tree)
    faults = [f"{path}:{line}: {words}" for line, words in unknown]
    try:
        # Without its unknown fields, so that the faults of the others are told with them.
        found = _executed(path, compile(_without_unknown(tree), str(path), "exec") if unknown else None)
        if not isinstance(found, StudySpec) and not faults:
            faults.append(
                f"{path}: no STUDY = StudySpec(...) in it" + ("" if found is None else f", but {found!r:.60}")
            )
    except SpecError as error:
        lines = _field_lines(tree)
        faults += [f"{path}:{lines.get(f, 1)}: {f} {words}" for f, words in error.faults.items()]
    except UserError as error:
        faults.append(f"{path}: {error}")
    except SystemExit as error:
        faults.append(f"{path}:{_line_in(path, error)}: it ends the process; a study's file only declares STUDY")
    except Exception as error:  # it is the user's code: whatever it raises is told as a fault of it
        needed = re.findall(r"'(\w+)'", str(error)) if "required keyword-only argument" in str(error) else []
        words = f"StudySpec needs {', '.join(needed)}" if needed else f"{type(error).__name__}: {error}"
        faults.append(f"{path}:{_line_in(path, error)}: {words}")
    if faults:
        raise UserError("\n".join(faults))
    if not isinstance(found, StudySpec):
        raise UserError(f"{path}: no STUDY")
    return found


def find_study(study: str) -> Path:
    """The file that declares a study.

    Raises:
        UserError: a name that can't be one, an unknown one (the message lists the known), or a path to no file.
    """
    if study.endswith(".py") and "\0" not in study:
        path = Path(study)
        if not path.exists():
            raise UserError(f"{path}: no such study file")
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a regular file")
        return path.absolute()
    if fault := check_name(study):
        raise UserError(f"--study {fault}; or give the path of a file that ends in .py")
    known = known_studies()
    if study not in known:
        near = difflib.get_close_matches(study, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"no study {study!r}{hint}; there are {', '.join(known)}, or give the path of a .py file")
    return known[study]


def known_studies() -> dict[str, Path]:
    """The studies that come with the project, by name."""
    found = importlib.util.find_spec("studies")
    folders = [Path(p) for p in (found.submodule_search_locations or ())] if found else []
    files = sorted(file for folder in folders for file in folder.glob("*.py"))
    return {file.stem: file for file in files if b"\nSTUDY = " in file.read_bytes()}


def _executed(path: Path, code: CodeType | None) -> object:
    name = f"study_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise UserError("not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and the like look a module up by its name
    if code is None:
        found.loader.exec_module(module)
    else:
        exec(code, module.__dict__)  # noqa: S102  the user's own study, as an import would run it
    return getattr(module, "STUDY", None)


def _spec_calls(tree: ast.AST) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [c for c in calls if getattr(c.func, "id", getattr(c.func, "attr", None)) == "StudySpec"]


def _unknown_fields(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for keyword in (k for call in _spec_calls(tree) for k in call.keywords):
        if keyword.arg is not None and keyword.arg not in FIELDS:
            near = difflib.get_close_matches(keyword.arg, FIELDS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else f"; there are {', '.join(FIELDS)}"
            found.append((keyword.value.lineno, f"unknown field {keyword.arg!r}{hint}"))
    return found


def _without_unknown(tree: ast.Module) -> ast.Module:
    for call in _spec_calls(tree):
        call.keywords = [k for k in call.keywords if k.arg is None or k.arg in FIELDS]
    return tree


def _field_lines(tree: ast.AST) -> Mapping[str, int]:
    return {k.arg: k.value.lineno for call in _spec_calls(tree) for k in call.keywords if k.arg}


def _line_in(path: Path, error: BaseException) -> int:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return (frames[-1].lineno or 1) if frames else 1
