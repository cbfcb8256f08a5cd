"""Keeps secrets out of what is said and kept: a library's error may quote a URL with all that is in it."""

import logging
import os
import re
from pathlib import Path

_NAMES = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY")
"""How variables of the environment are named that hold one; some hold a path to one, which is none."""
_LEAST = 6
"""A shorter value is no secret worth the name, and would be cut out of words."""
_WORDS = "sig|signature|token|key|secret|passwd|password|credential"
_FORMS = (
    (
        re.compile(r"(?<![\w+.-])([\w+.-]{1,30}://)(?:([^/\s:@'\"]{0,99}:)[^\s'\"]{1,300}|[^/\s:@'\"]{20,300})(?=@)"),
        r"\1\2***",
    ),
    (re.compile(rf"([?&;][\w.-]{{0,40}}(?:{_WORDS})=)[^&\s'\"\\]+", re.IGNORECASE), r"\1***"),
    (re.compile(rf"(['\"][\w.-]{{0,40}}(?:{_WORDS})['\"]\s?[:=]\s?['\"])[^'\"]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(authorization\W{1,6}(?:bearer|basic)\s)[\w.~+/=-]+", re.IGNORECASE), r"\1***"),
)
"""A password, or a token for one, of a URL; a secret of its query, or of a mapping; a header that authorizes."""


def redacted(text: str) -> str:
    """The text without the secrets of this process's environment, and without what stands where URLs have theirs.

    What would move a terminal's cursor is shown as it is written in Python.
    """
    for secret in sorted(_secrets(), key=len, reverse=True):  # one may be a part of another
        text = text.replace(secret, "***")
    for form, shown in _FORMS:
        text = form.sub(shown, text)
    return "".join(c if c in "\n\t" or c.isprintable() else repr(c)[1:-1] for c in text)


def _secrets() -> set[str]:
    return {
        value for name, value in os.environ.items()
        if _NAMES.search(name.upper()) and len(value) >= _LEAST and not Path(value).is_absolute()
    }  # fmt: skip


def through_the_root(library: str) -> None:
    """Let a library's own log records go by the root's handler, which lets no secret through."""
    logger = logging.getLogger(library)
    logger.handlers.clear()
    logger.propagate = True


class Redacting(logging.Formatter):
    """Formats records as it is told to, tracebacks included, and lets no secret through."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return redacted(super().format(record))
