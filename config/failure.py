"""What is said to whoever meets something that can't be done: what, where, and what helps."""

import errno


class Failed(Exception):
    """What was asked for can't be done; the text says why, and what would help."""


class WrongUse(Failed):
    """What was asked for makes no sense, whatever there is; the text says what would."""


class DatabaseFailed(Failed):
    """There is no database that it could be done with."""


def refused(error: BaseException) -> bool:
    """Whether nothing listens where something was to be reached; at each address, where a name has several."""
    return isinstance(error, ConnectionRefusedError) or (
        isinstance(error, OSError) and f"[Errno {errno.ECONNREFUSED}]" in str(error)
    )


def file_trouble(error: OSError) -> str:
    """An error of the operating system in a line."""
    advice = "; run heed as the user that Heed runs as, such as: runuser -u heed -- heed …"
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}{advice if isinstance(error, PermissionError) else ''}"
