"""`hpo.run` on behalf of `hpo.cluster`: it ends as on SIGTERM when its input ends: whoever placed it is gone."""

import os
import signal
import sys
import threading

from hpo.names import STORAGE_VARIABLE
from hpo.options import leave
from hpo.run import main


def _watch() -> None:
    while sys.stdin.readline():
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_watch, name="input", daemon=True).start()
    leave(main([*sys.argv[1:], "--storage", os.environ[STORAGE_VARIABLE]]))
