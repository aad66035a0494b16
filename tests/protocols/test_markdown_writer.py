"""Marks stand where text is, and nowhere else."""

import pytest

from appliance.protocols.markdown_writer import MarkdownWriter, WriterFull


def written(writer: MarkdownWriter) -> str:
    return "".join(writer.pieces)


def test_space_is_kept_between_words_and_nowhere_else() -> None:
    writer = MarkdownWriter(1000)
    for piece in (" one", " ", "two ", "\n three", "four"):
        writer.text(piece)

    assert written(writer) == "one two threefour"


def test_a_mark_without_text_leaves_nothing() -> None:
    writer = MarkdownWriter(1000)
    writer.text("a ")
    writer.begin_link()
    writer.begin_code()
    writer.end_code()
    writer.end_link("https://x.example")
    writer.mark("# ")
    writer.unmark()
    writer.begin_literal()
    writer.end_literal()
    writer.text("b")

    assert written(writer) == "a\n\nb"


def test_a_link_over_several_lines_names_its_address_behind() -> None:
    writer = MarkdownWriter(1000)
    writer.begin_link()
    writer.text("one")
    writer.block()
    writer.text("two")
    writer.end_link("https://x.example")
    writer.text(" ")
    writer.begin_link()
    writer.text("https://x.example")
    writer.end_link("https://x.example")

    assert written(writer) == "one\n\ntwo (https://x.example) https://x.example"


def test_lines_are_indented_as_deep_as_lists_and_quotes_are() -> None:
    writer = MarkdownWriter(1000)
    writer.indent("> ", starts_here=True)
    writer.block()
    writer.text("quoted")
    writer.block(1)
    writer.indent("  ", starts_here=False)
    writer.bullet("- ")
    writer.text("item")
    writer.block()
    writer.text("goes on")
    writer.outdent()
    writer.outdent()
    writer.block()
    writer.text("end")

    assert written(writer) == "> quoted\n> - item\n>\n>   goes on\n\nend"


def test_without_marks_only_bullets_stay() -> None:
    writer = MarkdownWriter(1000, with_marks=False)
    writer.mark("# ")
    writer.bullet("- ")
    writer.begin_link()
    writer.begin_code()
    writer.text("x")
    writer.end_code()
    writer.end_link("https://x.example")
    writer.row_rule(3)

    assert written(writer) == "- x"


def test_a_writer_is_full_at_its_limit() -> None:
    writer = MarkdownWriter(10)
    writer.text("123456789 ")
    with pytest.raises(WriterFull):
        writer.text("abc")
    assert writer.size == 12
