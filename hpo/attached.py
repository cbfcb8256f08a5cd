"""`python -m hpo.attached SECONDS COMMAND…`: a command that ends, with all it has started, when its starter is gone.

The starter holds this process's input, which ends with it, however it ends. To be started in a session of its own.
"""

import os
import signal
import subprocess
import sys
import threading
import time


def main() -> int:
    """Run the command; gives its exit code."""
    process = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to the whole group: this one ends with the command
    threading.Thread(target=_watch, args=(float(sys.argv[1]),), name="input", daemon=True).start()
    return process.wait()


def _watch(seconds: float) -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGTERM)
    time.sleep(seconds)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
