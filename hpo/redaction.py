"""Keeps secrets out of what is said and kept: a library's error may quote a URL with all that is in it."""

import logging
import os
import re

_NAMES = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY")
"""How variables of the environment are named that hold one."""
_LEAST = 6
"""A shorter value is no secret worth the name, and would be cut out of words."""
_IN_QUERIES = "sig|signature|token|key|secret|passwd|password|credential"
_FORMS = (
    (re.compile(r"(\b[\w+.-]+://[^/\s:@]*:)[^/\s]+(?=@)"), r"\1***"),
    (re.compile(rf"([?&;][\w.-]*(?:{_IN_QUERIES})=)[^&\s'\"\\]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE), r"\1***"),
)
"""A password of a URL, a secret of its query, a header that authorizes."""


def redacted(text: str) -> str:
    """The text without the secrets of this process's environment, and without what stands where URLs have theirs."""
    secrets = {value for name, value in os.environ.items() if _NAMES.search(name.upper()) and len(value) >= _LEAST}
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        text = text.replace(secret, "***")
    for form, shown in _FORMS:
        text = form.sub(shown, text)
    return text


class Redacting(logging.Formatter):
    """Formats records as it is told to, tracebacks included, and lets no secret through."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return redacted(super().format(record))
