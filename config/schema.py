"""config/schema.sql is every migration in its order, in one file to read: `python -m config.schema` writes it."""

from importlib import resources
from pathlib import Path

from config.database import migrations

HEADER = "-- What a database of this version holds: all migrations in order. Written by `python -m config.schema`.\n"


def schema() -> str:
    """The text that config/schema.sql must have."""
    parts = [f"\n-- {'-' * 20} {step.number:04}_{step.name}\n\n{step.sql.strip()}\n" for step in migrations()]
    return HEADER + "".join(parts)


def shipped() -> str:
    """The text that config/schema.sql has."""
    return resources.files("config").joinpath("schema.sql").read_text("utf-8")


if __name__ == "__main__":
    Path(__file__).with_name("schema.sql").write_text(schema(), encoding="utf-8")
