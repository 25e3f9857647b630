"""Docstrings of three styles, and what is left of them as text."""

from __future__ import annotations

import pytest

from minimcp.engines.schema.docstrings import parse

GOOGLE = """Forecast the weather.

    Looks some days ahead.

    Args:
        city (str): The city,
            as locals call it.
        days: How many days: one to ten.
        **options: More.

    Returns:
        A forecast.

    Raises:
        ValueError: Never.
    """

NUMPY = """Forecast the weather.

    Looks some days ahead.

    Parameters
    ----------
    city : str
        The city,
        as locals call it.
    days, weeks : int, optional
        How many.

        Not too many.
    **options
        More.

    Returns
    -------
    str
        A forecast.
    """

SPHINX = """Forecast the weather.

    Looks some days ahead.

    :param str city: The city,
        as locals call it.
    :param days: How many days: one to ten.
    :type days: int
    :returns: A forecast.
    :rtype: str
    :raises ValueError: Never.
    """


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX])
def test_the_text_keeps_the_summary_and_drops_the_sections(docstring):
    assert parse(docstring)[0] == "Forecast the weather.\n\nLooks some days ahead."


def test_google_arguments_are_read_with_types_colons_and_continuations():
    assert parse(GOOGLE)[1] == {
        "city": "The city, as locals call it.",
        "days": "How many days: one to ten.",
        "options": "More.",
    }


def test_numpy_parameters_are_read_with_shared_and_long_texts():
    assert parse(NUMPY)[1] == {
        "city": "The city, as locals call it.",
        "days": "How many. Not too many.",
        "weeks": "How many. Not too many.",
        "options": "More.",
    }


def test_sphinx_fields_are_read_with_types_and_continuations():
    assert parse(SPHINX)[1] == {"city": "The city, as locals call it.", "days": "How many days: one to ten."}


def test_a_docstring_without_sections_is_its_text():
    assert parse("  One line. ") == ("One line.", {})
    assert parse("One.\n\n    Two: three.\n      indented\n    ") == ("One.\n\nTwo: three.\n  indented", {})


@pytest.mark.parametrize("docstring", [None, "", "   \n  "])
def test_no_docstring_is_empty_text(docstring):
    assert parse(docstring) == ("", {})


def test_sections_that_are_not_about_parameters_stay_in_the_text():
    text, found = parse("Do it.\n\nExample:\n    do()\n\nArgs:\n    x: The x.\n")
    assert text == "Do it.\n\nExample:\n    do()"
    assert found == {"x": "The x."}


def test_a_section_word_without_a_section_below_is_text():
    assert parse("Args:\nnothing indented")[0] == "Args:\nnothing indented"
    assert parse("Parameters\nare fine")[0] == "Parameters\nare fine"


def test_text_after_a_section_is_kept():
    assert parse("Do it.\n\nArgs:\n    x: The x.\n\nMore words.")[0] == "Do it.\n\nMore words."
    assert parse("Do it.\n\n:param x: The x.\n\nMore words.") == ("Do it.\n\nMore words.", {"x": "The x."})


def test_the_attributes_of_a_class_count_as_parameters():
    assert parse("A point.\n\nAttributes:\n    x: Across.\n")[1] == {"x": "Across."}


@pytest.mark.parametrize(
    "block",
    [
        "    - a: The a.\n    - b (int): The b:\n      whole.",
        "    a - The a.\n    b - The b: whole.",
        "    * `a`: The a.\n    * **b** (dict(str, int)): The b: whole.",
        "    a: The a.\n    b (list(int)) – The b: whole.",
        "- a: The a.\n- b: The b: whole.",
    ],
)
def test_lists_and_dashes_are_read(block):
    text, found = parse(f"Do it.\n\nArgs:\n{block}\n", ["a", "b"])
    assert found == {"a": "The a.", "b": "The b: whole."}
    assert text == "Do it."


def test_a_section_that_cannot_be_read_stays_in_the_text():
    prose = "Do it.\n\nArgs:\n    Give the city as people call it.\n"
    assert parse(prose, ["city"]) == ("Do it.\n\nArgs:\n    Give the city as people call it.", {})
    mixed = "Do it.\n\nArgs:\n    a: The a.\n    other: Not here,\n        but said.\n"
    text, found = parse(mixed, ["a"])
    assert found == {"a": "The a."} and "other: Not here," in text and "but said." in text and "The a." not in text
    numpy = "Do it.\n\nParameters\n----------\nother : int\n    Not here.\n"
    assert "Not here." in parse(numpy, ["a"])[0]
