"""What is wrong with a file or directory, said to whoever meets it: what, where, and what helps."""


def file_trouble(error: OSError) -> str:
    """An error of the operating system in a line."""
    advice = "; run heed as the user that Heed runs as, such as: runuser -u heed -- heed …"
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}{advice if isinstance(error, PermissionError) else ''}"
