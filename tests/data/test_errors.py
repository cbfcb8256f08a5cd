from data.errors import DataError, printable


def test_a_name_is_printed_on_one_line_whatever_it_is_made_of():
    assert printable("größe.png") == "größe.png"
    assert printable("a\nb\udcff.png") == "a\\nb\\udcff.png"


def test_what_moves_a_terminals_cursor_is_shown_and_does_not_move_it():
    assert str(DataError("\x1b[2J.csv: row 7\na\rb.csv: row 8")) == "\\x1b[2J.csv: row 7\na\\rb.csv: row 8"
