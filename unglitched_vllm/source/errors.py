"""What can go wrong, said with its values and with what to type next."""


class SourceError(Exception):
    """A step that cannot go on. ``what`` is one sentence, ``hint`` the next thing to type."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.hint}"
