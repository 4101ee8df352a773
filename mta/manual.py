"""The man page, written from the commands themselves, so that it says what they do (man-pages(7))."""

import inspect
from collections.abc import Iterator
from typing import Any


def manual(command: Any, version: str) -> str:
    """roff for heed(1). command: the click command that typer makes of the application."""
    lines = [
        f'.TH HEED 1 "" "Heed {version}" "User Commands"',
        ".SH NAME",
        "heed \\- mail delivery daemon for mail that people asked for",
        ".SH SYNOPSIS",
        ".B heed",
        ".I command",
        ".RI [ options ]",
        ".SH DESCRIPTION",
        _escaped(command.help or ""),
        "Every option of the configuration can be given with",
        ".BR \\-\\-set ,",
        "in a file with",
        ".BR \\-\\-config ,",
        "or in the environment as HEED_SECTION__OPTION.",
        ".SH COMMANDS",
    ]
    for path, each in _commands(command, ()):
        lines += _section(path, each)
    lines += [
        ".SH EXIT STATUS",
        _escaped(command.epilog or ""),
        ".SH FILES",
        ".TP",
        ".I /etc/heed/heed.toml",
        "The configuration, where no other is named.",
        ".TP",
        ".I data_dir/keys/master.key",
        "Without it nothing that is stored can be read. Keep a copy.",
    ]
    return "\n".join(lines) + "\n"


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name in sorted(children):
        yield from _commands(children[name], (*path, name))


def _section(path: tuple[str, ...], command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    names = " ".join(_escaped(p.metavar or p.name.upper()) for p in arguments)
    lines = [f".SS heed {_escaped(' '.join(path))} {names}".rstrip(), _escaped(inspect.cleandoc(command.help or ""))]
    for parameter in arguments:
        lines += [".TP", f".I {_escaped(parameter.metavar or parameter.name.upper())}", _help(parameter)]
    for parameter in options:
        switches = ", ".join(_escaped(switch) for switch in (*parameter.opts, *parameter.secondary_opts))
        value = "" if parameter.is_flag else f" \\fI{_escaped((parameter.metavar or parameter.name or '').upper())}\\fR"
        lines += [".TP", f"\\fB{switches}\\fR{value}", _help(parameter)]
    return lines


def _help(parameter: Any) -> str:
    return _escaped(getattr(parameter, "help", None) or "") or "\\&"


def _escaped(text: str) -> str:
    """Text as roff takes it: ASCII, no line starts a request, no dash becomes a hyphen."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    text = "".join(character if character.isascii() else f"\\[u{ord(character):04X}]" for character in text)
    return "\\&" + text if text[:1] in (".", "'") else text
