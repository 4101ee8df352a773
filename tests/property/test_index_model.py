"""The index against a dict: any order of entries, rebuilds at any moment, lookups of both classes."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from suppression import build
from suppression.base import Base
from suppression.digest import Effect, MessageClass
from suppression.entry import Action, Step
from suppression.index import Index

KEYS = [-(2**63), -4, 0, 2, 4, 6, 2**62, 2**63 - 2]
keys = st.sampled_from(KEYS)
AT = datetime(2026, 1, 1, tzinfo=UTC)


class IndexAndDict(RuleBasedStateMachine):
    """Two workers of a node that share a base file, one of them behind; and what must be true."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "base"
        self.log: list[Step] = []
        self.ahead, self.behind = Index(), Index()

    def teardown(self) -> None:
        self.directory.cleanup()

    @rule(key=keys, effect=st.sampled_from(Effect))
    def append(self, key: int, effect: Effect) -> None:
        position = len(self.log) + 1
        previous, own = (position - 1).to_bytes(32, "big"), position.to_bytes(32, "big")
        self.log.append(Step(position, AT, Action.SUPPRESS, key, effect, previous, own))
        self.ahead.apply([self.log[-1]])

    @rule(count=st.integers(1, 5))
    def follow(self, count: int) -> None:
        self.behind.apply(self.log[self.behind.position : self.behind.position + count])

    @rule(behind=st.booleans())
    def rebuild(self, behind: bool) -> None:
        index = self.behind if behind else self.ahead
        base, position, digest, changes = index.changes()
        build.write(self.path, position, digest, build.merged(base, changes), len(base) + len(changes))

    @rule(behind=st.booleans())
    def swap(self, behind: bool) -> None:
        if self.path.exists():
            (self.behind if behind else self.ahead).swap(Base.load(self.path))

    @rule()
    def restart(self) -> None:
        self.behind = Index(Base.load(self.path)) if self.path.exists() else Index()

    @invariant()
    def each_index_is_the_log_up_to_its_position(self) -> None:
        for index in (self.ahead, self.behind):
            state = {step.key: step.effect for step in self.log[: index.position]}
            for key in KEYS:
                effect = state.get(key, 0)
                assert index.blocks((key,), MessageClass.CAMPAIGN) == (effect >= 1)
                assert index.blocks((key,), MessageClass.TRANSACTIONAL) == (effect == 2)


TestIndexAndDict = IndexAndDict.TestCase
TestIndexAndDict.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
