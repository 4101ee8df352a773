"""The outcome journal: what was answered is in the file when the worker dies, and the file stays small."""

import errno
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from mta import journal as journal_module
from mta.journal import DeadJournal, Journal, dead_journals
from mta.queue import Completion, FinalState
from tests.support.leases import completion


def dead(directory: Path) -> list[DeadJournal]:
    return list(dead_journals(directory))


def replayed(directory: Path) -> list[Completion]:
    """What the one dead journal of a directory says."""
    [found] = dead(directory)
    completions = found.completions()
    found.close(replayed=False)
    return completions


def abandon(journal: Journal) -> None:
    """Let go of the file as a killed process does."""
    os.close(journal._file)


def test_what_was_appended_is_there_after_a_death(tmp_path: Path) -> None:
    said = [completion(16), completion(32, 3, FinalState.DELIVERED), completion(48, state=FinalState.EXPIRED)]
    journal = Journal(tmp_path, 7)
    for each in said:
        journal.append(each)
    abandon(journal)
    [found] = dead(tmp_path)
    assert found.worker_id == 7
    assert found.completions() == said
    found.close(replayed=True)
    assert list(tmp_path.iterdir()) == []


def _append_and_wait(directory: Path, ready: Connection) -> None:
    journal = Journal(directory, 5)
    journal.append(completion(16))
    ready.send(True)
    signal.pause()


def test_a_killed_process_leaves_its_journal_to_be_replayed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_append_and_wait, args=(tmp_path, there))
    process.start()
    assert here.recv()
    assert dead(tmp_path) == []
    process.kill()
    process.join()
    assert replayed(tmp_path) == [completion(16)]


def test_the_last_word_on_a_recipient_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    journal.append(completion(16, attempts=1))
    journal.append(completion(32))
    journal.append(completion(16, attempts=2))
    abandon(journal)
    assert {each.key: each.attempts for each in replayed(tmp_path)} == {(16, 0): 2, (32, 0): 1}


def test_a_living_worker_keeps_its_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    journal.append(completion(16))
    assert dead(tmp_path) == []
    with pytest.raises(BlockingIOError):
        Journal(tmp_path, 1)
    journal.close()


def test_a_journal_is_for_its_user_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journals", 1)
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700
    journal.close()


def test_closing_removes_what_is_committed_and_keeps_what_is_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    journal.append(completion(16))
    journal.append(completion(32))
    journal.committed([completion(16)])
    journal.close()
    assert [each.key for each in replayed(tmp_path)] == [(16, 0), (32, 0)]
    journal = Journal(tmp_path, 2)
    journal.append(completion(16))
    journal.committed([completion(16)])
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == ["worker-1.journal"]


def test_the_file_stays_small_under_a_load_that_never_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_CUT_BYTES", 5_000)
    journal = Journal(tmp_path, 1)
    journal._cut_at = 5_000
    journal.append(completion(0))
    for number in range(1, 500):
        journal.append(completion(number))
        journal.committed([completion(number - 1)])
        assert journal.path.stat().st_size < 6_000
    assert dead(tmp_path) == []
    abandon(journal)
    assert completion(499) in replayed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["worker-1.journal"]


def test_nothing_that_is_open_is_lost_by_a_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    journal._cut_at = 3_000
    waiting = [completion(number) for number in range(20)]
    for each in waiting:
        journal.append(each)
    done = [completion(1_000 + number) for number in range(20)]
    for each in done:
        journal.append(each)
    journal.committed(done)
    journal.append(completion(5_000))
    abandon(journal)
    assert replayed(tmp_path) == [*waiting, completion(5_000)]


def test_a_commit_that_comes_late_does_not_close_what_was_said_since(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    journal._cut_at = 0
    journal.append(completion(16, attempts=1))
    journal.append(completion(16, attempts=2))
    journal.committed([completion(16, attempts=1)])
    abandon(journal)
    assert [each.attempts for each in replayed(tmp_path)] == [2]


def test_a_journal_that_was_replaced_or_removed_while_it_was_being_opened_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, 1)
    journal._cut_at = 0
    journal.append(completion(16))
    journal.append(completion(32))
    opened = os.open

    def open_while(happens: Callable[[], None]) -> Callable[[Path, int], int]:
        def replacement(path: Path, flags: int) -> int:
            monkeypatch.setattr(os, "open", opened)
            descriptor = opened(path, flags)
            happens()
            return descriptor

        return replacement

    monkeypatch.setattr(os, "open", open_while(lambda: journal.committed([completion(16)])))
    assert dead(tmp_path) == []
    journal.committed([completion(32)])
    monkeypatch.setattr(os, "open", open_while(journal.close))
    assert dead(tmp_path) == []


def test_a_full_disk_leaves_the_journal_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, 1)
    journal._cut_at = 0
    journal.append(completion(16))
    journal.append(completion(32))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        journal.committed([completion(16)])
        with pytest.raises(OSError, match="no space"):
            journal.append(completion(48))
    abandon(journal)
    assert replayed(tmp_path) == [completion(16), completion(32)]


def test_what_is_said_after_a_line_that_found_half_of_its_room_is_not_lost(tmp_path: Path) -> None:
    """A worker whose journal can't be written drains: what is under way is answered, and there may be room again."""
    journal = Journal(tmp_path, 1)
    journal.append(completion(16))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 100, unlimited[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.append(completion(32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    journal.append(completion(48))
    abandon(journal)
    assert replayed(tmp_path) == [completion(16), completion(48)]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("worker-1.journal.bak", "worker-x.journal", "worker-1.new", "notes"):
        (tmp_path / name).write_bytes(b"")
    assert dead(tmp_path) == []
