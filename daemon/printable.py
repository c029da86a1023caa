"""Text of others, made safe for a terminal."""


def printable(text: str) -> str:
    """The text without what would command the terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else repr(each)[1:-1] for each in text)
