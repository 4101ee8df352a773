"""Where settings come from; later ones win: the model's defaults, TOML files in the order given (DEFAULT_FILE, if it is
there, where none is given), the environment (HEED_DELIVERY__NEXT_HOP), `--set delivery.next_hop=…`.

Remembers the origin of each key. Collects problems instead of raising at the first: SettingsError lists all of them,
each with the place where it was set, the key, the value, and what would be right.
"""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from config.failure import file_trouble
from config.settings import Settings, SettingsError

PREFIX = "HEED_"
DEFAULT_FILE = Path("/etc/heed/heed.toml")
_ROUTES = ("delivery", "routes")


def load(
    files: list[Path] | None = None,
    overrides: list[str] | None = None,
    environment: dict[str, str] | None = None,
) -> Settings:
    """Merge all sources and check them. Raises SettingsError with every problem found."""
    sources = Sources()
    for file in files or []:
        sources.add_file(file)
    sources.add_environment(dict(os.environ) if environment is None else environment)
    for override in overrides or []:
        sources.add_override(override)
    return sources.settings()


def default_files() -> list[Path]:
    """What is read where no file is named; one that is there but may not be read is named too, and so is an error."""
    try:
        DEFAULT_FILE.stat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        pass
    return [DEFAULT_FILE]


class Sources:
    """A nested mapping of values, with for each dotted key the place that set it last."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self._problems: list[str] = []

    def add_file(self, path: Path) -> None:
        """Merge a TOML file."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self._problems.append(file_trouble(error))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            self._problems.append(f"{path}: not valid TOML: {error}")
        else:
            self._merge(values, str(path), ())

    def add_environment(self, environment: dict[str, str]) -> None:
        """Merge HEED_* variables; HEED_TEST_* and HEED_BENCH_* are not settings."""
        for name, text in sorted(environment.items()):
            if not name.startswith(PREFIX) or name.startswith(
                ("HEED_TEST_", "HEED_BENCH_", "HEED_CORPORA", "HEED_SEND_")
            ):
                continue
            self._put(tuple(name[len(PREFIX) :].lower().split("__")), text, name)

    def add_override(self, text: str) -> None:
        """Merge one --set key=value."""
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            self._problems.append(f"--set {text!r}: is written key=value, such as delivery.next_hop=127.0.0.1:2500")
            return
        self._put(tuple(key.strip().split(".")), value.strip(), f"--set {key.strip()}")

    def settings(self) -> Settings:
        """The checked settings."""
        try:
            settings = Settings(**self._values)
        except ValidationError as error:
            raise SettingsError(self._problems + [self._explain(dict(item)) for item in error.errors()]) from None
        if self._problems:
            raise SettingsError(self._problems)
        return settings

    def _merge(self, values: dict[str, Any], origin: str, above: tuple[str, ...]) -> None:
        for key, value in values.items():
            path = (*above, key)
            if isinstance(value, dict) and path != _ROUTES:
                self._merge(value, origin, path)
            else:
                self._put(path, value, origin)

    def _put(self, path: tuple[str, ...], value: Any, origin: str) -> None:
        if len(path) > 3 and path[:2] == _ROUTES:
            path = (*_ROUTES, ".".join(path[2:]))  # the dots of a domain are no levels
        if isinstance(value, str) and (_takes_structure(path) or value.startswith("[")):
            value = _parsed(value)
        place = self._values
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                self._problems.append(f"{origin}: {'.'.join(path)}: {part} is an option, not a table")
                return
            place = inner
        # an empty text switches an optional setting off, where TOML has no null
        place[path[-1]] = None if value == "" else value
        self._origins[".".join(path)] = origin

    def _explain(self, error: dict[str, Any]) -> str:
        path = [str(part) for part in error["loc"] if part != "[key]"]  # so pydantic says that a key is meant
        key = ".".join(path)
        origin = next((self._origins[k] for k in _prefixes(path) if k in self._origins), None)
        if origin is None:
            origin = next((o for k, o in self._origins.items() if k.startswith(key + ".")), "configuration")
        if error["type"] == "extra_forbidden":
            close = difflib.get_close_matches(key, known_keys(), 1, 0.6)
            return f"{origin}: {key}: there is no such option" + (f"; did you mean {close[0]}?" if close else "")
        message = error["msg"].removeprefix("Value error, ")
        secret = path[:1] == ["database"]  # a URL with a password, wherever it was put
        shown = "" if secret or isinstance(error["input"], (dict, BaseModel)) else f" = {error['input']!r}"
        return f"{origin}: {key or 'settings'}{shown}: {message[:1].lower()}{message[1:]}"


def known_keys() -> list[str]:
    """Every dotted key of the model."""
    keys = []
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += [f"{name}.{key}" for key in field.annotation.model_fields]
        else:
            keys.append(name)
    return keys


def _prefixes(path: list[str]) -> list[str]:
    return [".".join(path[:length]) for length in range(len(path), 0, -1)]


def _takes_structure(path: tuple[str, ...]) -> bool:
    return path in {("submission", "trusted_networks"), ("delivery", "routes")}


def _parsed(text: str) -> Any:
    """A table or a list given as TOML text; what is no TOML, such as [::1]:25, stays as it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
