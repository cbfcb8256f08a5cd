"""Kills a process at a point of the product's code; every Python that has this folder on its path begins with it.

The environment says where: `FAULT` is `module function before|after n who`. At the n-th call, counted over all
processes in the file `FAULT_COUNT`, the process (`who` is `one`), or its whole group (`all`), gets a SIGKILL.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import signal
import sys


def _counted(file):
    with open(file, "ab") as calls:  # noqa: PTH123  nothing more than must be is imported here
        calls.write(b".")
        calls.flush()
        return calls.tell()


def _killing(function, when, n, who):
    @functools.wraps(function)
    def killed(*args, **kwargs):
        if when == "before":
            strike()
        result = function(*args, **kwargs)
        if when == "after":
            strike()
        return result

    def strike():
        if _counted(os.environ["FAULT_COUNT"]) == n:
            kill = os.killpg if who == "all" else os.kill
            kill(os.getpgid(0) if who == "all" else os.getpid(), signal.SIGKILL)

    return killed


class _Patching(importlib.abc.MetaPathFinder):
    """Wraps one function as its module is imported."""

    def __init__(self, module, name, *how):
        self.module, self.name, self.how = module, name, how

    def find_spec(self, fullname, path, target=None):
        if fullname != self.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        execute = spec.loader.exec_module

        def patched(module):
            execute(module)
            *owners, last = self.name.split(".")
            owner = functools.reduce(getattr, owners, module)
            setattr(owner, last, _killing(getattr(owner, last), *self.how))

        spec.loader.exec_module = patched  # type: ignore[method-assign]
        return spec


if os.environ.get("FAULT"):
    _module, _name, _when, _n, _who = os.environ["FAULT"].split()
    sys.meta_path.insert(0, _Patching(_module, _name, _when, int(_n), _who))
