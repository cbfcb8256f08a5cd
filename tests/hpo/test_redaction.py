"""What looks like a secret, or is one of the environment, is shown to nobody."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.redaction import Redacting, redacted, through_the_root


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://u:hunter2@h/x failed", "GET https://u:***@h/x failed"),
        ("postgresql+psycopg://u:se@cret@h/d", "postgresql+psycopg://u:***@h/d"),
        ("https://h/x?X-Amz-Signature=abc&n=1", "https://h/x?X-Amz-Signature=***&n=1"),
        ("https://h/x?sv=1&sig=abc%2B' is gone", "https://h/x?sv=1&sig=***' is gone"),
        ("https://h/?api_key=abc", "https://h/?api_key=***"),
        ("https://u:p/ss@h/d", "https://u:***@h/d"),
        ("git clone https://ghp_0123456789abcdef0123@github.com/x", "git clone https://***@github.com/x"),
        ("postgresql://hpo@db.example.org/studies", "postgresql://hpo@db.example.org/studies"),
        ("{'Authorization': 'Bearer abcdefgh.ij'}", "{'Authorization': 'Bearer ***'}"),
        ('{"db_password": "hunter2", "user": "me"}', '{"db_password": "***", "user": "me"}'),
        (
            "a basic configuration of a token=3 kind at 10:30@noon",
            "a basic configuration of a token=3 kind at 10:30@noon",
        ),
        ("the bearer certificate", "the bearer certificate"),
        ("\x1b[2Jfaces.csv: é\n", "\\x1b[2Jfaces.csv: é\n"),
        ("sqlite:////tmp/a/hpo.db", "sqlite:////tmp/a/hpo.db"),
        ("http://127.0.0.1:5000/#/experiments", "http://127.0.0.1:5000/#/experiments"),
    ],
)
def test_what_stands_where_urls_have_their_secrets_is_not_shown(text, shown):
    assert redacted(text) == shown


def test_secrets_of_the_environment_are_not_shown_and_other_variables_are(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter22")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22-and-more")
    monkeypatch.setenv("DB_TOKEN", "x")
    monkeypatch.setenv("A_TOKEN_FILE", "/home/fox")
    monkeypatch.setenv("HPO_CACHE_DIR", "/home/fox/cache")

    assert redacted("hunter22, hunter22-and-more, x, /home/fox/cache") == "***, ***, x, /home/fox/cache"


def test_a_log_record_is_shown_without_them_its_traceback_too(monkeypatch):
    monkeypatch.setenv("A_SECRET", "hunter22")
    try:
        raise ValueError("hunter22 is wrong")
    except ValueError as error:
        record = logging.LogRecord(
            "hpo", logging.WARNING, "f.py", 1, "said %s", ("hunter22",), (ValueError, error, None)
        )

    said = Redacting("%(message)s").format(record)

    assert said.startswith("said ***")
    assert "ValueError: *** is wrong" in said
    assert "hunter22" not in said


PIECES = st.sampled_from(
    ["https://", "u:", "hunter2", "@", "h/x", "?sig=", "&token=", " ", "'", "Authorization: Bearer ", "***"]
)


@given(st.lists(PIECES).map("".join))
def test_what_was_redacted_once_stays_as_it_is(text):
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize("piece", ["a-", "?a", "://a", "'token", "authorization: "])
def test_a_long_text_takes_no_longer_than_it_is_long(piece):
    """Where it took the square of that this would take hours."""
    text = piece * 500_000

    assert len(redacted(text)) == len(text)


def test_what_a_library_logs_goes_by_the_root_s_handler():
    logger = logging.getLogger("a-library")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False

    through_the_root("a-library")

    assert (logger.handlers, logger.propagate) == ([], True)
