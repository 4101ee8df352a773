"""Journal lines come back as they were; a torn one is ignored, and costs no other."""

import json
import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bounce.outcome import Action, BounceClass, Outcome, Stage, Trouble
from mta.journal import Journal, dead_journals
from mta.queue import Completion, FinalState

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
seconds = st.floats(0, 4e9)
outcomes = st.builds(
    Outcome, st.sampled_from(Action), text, st.integers(0, 599), text, text, st.sampled_from(BounceClass),
    st.sampled_from(Trouble), st.sampled_from(Stage),
)  # fmt: skip
ids = st.integers(0, 2**31 - 1)
completions = st.builds(
    Completion,
    st.integers(0, 2**63 - 1),
    ids,
    st.none() | st.sampled_from(FinalState),
    st.integers(0, 32_000),
    seconds,
    st.none() | outcomes,
    text,
    seconds,
    st.booleans(),
    st.sampled_from(["", "failed", "delayed", "relayed"]),
    ids,
    ids,
    ids,
    st.integers(-(2**63), 2**63 - 1),
    seconds,
    st.booleans(),
    st.integers(0, 10**6).map(lambda milliseconds: milliseconds / 1_000),
    st.booleans(),
    seconds,
)


@given(completions)
def test_a_line_comes_back(completion: Completion) -> None:
    line = completion.to_json()
    assert b"\n" not in line
    assert Completion.from_json(line) == completion


@given(completions, st.integers(0, 10_000))
def test_part_of_a_line_is_no_line(completion: Completion, cut: int) -> None:
    line = completion.to_json()
    refused(line[: cut % len(line)])


@given(st.binary(max_size=40) | st.lists(text, max_size=18).map(json.dumps).map(str.encode))
def test_anything_else_is_no_line(line: bytes) -> None:
    refused(line)


def refused(line: bytes) -> None:
    try:
        Completion.from_json(line)
    except ValueError:
        return
    raise AssertionError("a line that nobody wrote was read")


@given(st.lists(completions, max_size=6), completions, st.integers(0, 10_000), st.lists(completions, max_size=2))
def test_a_torn_line_costs_no_other(
    said: list[Completion], torn: Completion, cut: int, afterwards: list[Completion]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        journal = Journal(directory, 1)
        for each in said:
            journal.append(each)
        line = b"\n" + torn.to_json()
        os.write(journal._file, line[: cut % len(line)])
        for each in afterwards:
            journal.append(each)
        os.close(journal._file)
        [found] = dead_journals(directory)
        assert {each.key: each for each in found.completions()} == {each.key: each for each in [*said, *afterwards]}
        found.close(replayed=True)
