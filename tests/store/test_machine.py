"""The store against the ledger, in any order of operations."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from prefixmux_store.names import digest_of
from prefixmux_store.store import PrefixStore
from store.ledger import EMPTY, TENANT, Op, expected, observed, perform
from store.makers import fast_folder, prefix

TASKS = st.sampled_from(["a", "b", "c"])
CONTENTS = st.integers(0, 4)
NUMBERS = st.integers(0, 6)


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.held = ExitStack()
        self.folder = self.held.enter_context(fast_folder())
        self.store = PrefixStore.open(self.folder / "store")
        self.state = EMPTY

    def held_digests(self) -> set[str]:
        blobs = self.folder / "store" / "blobs" / TENANT
        return {f"sha256:{path.name}" for path in blobs.iterdir()} if blobs.is_dir() else set()

    def needed(self) -> set[str]:
        return self.state.digests

    def run(self, op: Op) -> None:
        self.state, outcome = expected(self.state, op)
        assert perform(self.store, op) == outcome

    @rule(task_id=TASKS, content=CONTENTS, active=st.booleans())
    def put(self, task_id: str, content: int, active: bool) -> None:
        self.run(Op("put" if active else "quiet_put", task_id, content))

    @rule(task_id=TASKS, parts=st.lists(TASKS, min_size=1, max_size=4))
    def compose(self, task_id: str, parts: list[str]) -> None:
        self.run(Op("compose", task_id, parts=tuple(parts)))

    @rule(task_id=TASKS, version=NUMBERS)
    def activate(self, task_id: str, version: int) -> None:
        self.run(Op("activate", task_id, version=version))

    @rule(task_id=TASKS)
    def delete_task(self, task_id: str) -> None:
        self.run(Op("delete_task", task_id))

    @rule(task_id=TASKS, version=NUMBERS)
    def delete_version(self, task_id: str, version: int) -> None:
        self.run(Op("delete_version", task_id, version=version))

    @rule()
    def collect(self) -> None:
        self.run(Op("gc"))
        assert self.held_digests() == self.needed()

    @rule(content=CONTENTS)
    def stage_and_discard(self, content: int) -> None:
        digest = digest_of(prefix(content))
        others = self.held_digests() - {digest}
        self.run(Op("discard", content=content))
        assert self.held_digests() == others | ({digest} & self.needed())

    @rule(content=CONTENTS)
    def discard_whatever_is_there(self, content: int) -> None:
        digest = digest_of(prefix(content))
        unneeded = {digest} - self.needed()
        rest = self.held_digests() - unneeded
        self.store.discard(TENANT, digest)
        assert self.held_digests() == rest

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = PrefixStore.open(self.folder / "store")

    @rule(content=CONTENTS)
    def stage_only(self, content: int) -> None:
        self.store.stage(TENANT, prefix(content))

    @invariant()
    def shows_what_it_should(self) -> None:
        assert observed(self.store) == self.state.tasks
        assert self.store.verify().ok

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.held.close()


def test_the_store_is_what_the_ledger_says() -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
