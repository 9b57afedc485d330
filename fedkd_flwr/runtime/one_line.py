"""What others say, fit for a log: a terminal or a log reader takes none of it for anything else than words."""

LONGEST = 1000
"""Characters of what a node says: a title, a note, a reason."""

LONGEST_LINE = 4000
"""Characters of a line of the log."""


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text without line breaks and control characters, escapes of terminals among them; cut where it is too long."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * longest])
    words = " ".join(printable.split())
    return words if len(words) <= longest else words[: longest - 1].rstrip() + "…"
