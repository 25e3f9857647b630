"""Lines of a stream of bytes, each of which is a message on stdio."""

from __future__ import annotations


class LineSplitter:
    """Splits bytes at LF alone and leaves out blank lines; one thread at a time. Spec: TRN-010, TRN-011

    :param limit: the longest line in bytes, without its LF.
    :ivar too_long: whether the line that has not ended yet is longer.
    """

    def __init__(self, limit: int) -> None:
        self.too_long = False
        self._limit = limit
        self._parts: list[bytes] = []  # of the line that has not ended yet
        self._size = 0

    @property
    def begun(self) -> bool:
        """Whether a line has begun and not ended yet."""
        return self.too_long or bool(self._parts)

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """Take some bytes and return the lines that end in them, None for one longer than the limit."""
        *ended, rest = chunk.split(b"\n")
        lines: list[bytes | None] = []
        for line in ended:
            if self._parts:
                line = b"".join([*self._parts, line])
                self._parts.clear()
                self._size = 0
            if self.too_long or len(line) > self._limit:
                self.too_long = False
                lines.append(None)
            elif line and not line.isspace():
                lines.append(line)
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > self._limit:
                # The rest of the line is not kept either, so that an endless one takes bounded memory.
                self.too_long = True
                self._parts.clear()
                self._size = 0
        return lines
