import fcntl
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.killed import killed_at

from fedkd_flwr.client.manifest import FORMAT
from fedkd_flwr.client.state import NodeState, NodeStore
from fedkd_flwr.errors import StateError

LINEAGES = [digit * 16 for digit in "abcd"]
TRAINING = ("moments", "residual")


def state(round: int) -> NodeState:
    value = float(round)
    return NodeState(
        round=round,
        version=round - 1,
        student={"w": torch.full((3, 2), value)},
        private={"teacher.w": torch.full((4,), value)},
        tied={"w": torch.full((3, 2), value / 3)},
        moments={"w/step": torch.tensor(value)},
        residual={"w": torch.full((3, 2), value / 7)},
        reply=b"reply %d" % round,
    )


def same(a: NodeState, b: NodeState) -> bool:
    tensors = all(
        getattr(a, part).keys() == getattr(b, part).keys()
        and all(torch.equal(getattr(a, part)[name], getattr(b, part)[name]) for name in getattr(a, part))
        for part in ("student", "private", "tied", "moments", "residual")
    )
    return tensors and (a.round, a.version, a.reply) == (b.round, b.version, b.reply)


@pytest.fixture
def store(tmp_path: Path) -> NodeStore:
    return NodeStore(tmp_path, LINEAGES[0], "node")


def test_what_is_saved_is_loaded_and_older_states_are_gone(store: NodeStore) -> None:
    assert store.load() is None
    for round in (1, 2, 3):
        store.save(state(round))
        loaded = store.load()
        assert loaded is not None and same(loaded, state(round))
    assert len(list(store.folder.iterdir())) == 1


def test_unchanged_parts_are_linked(store: NodeStore) -> None:
    store.save(state(1))
    (before,) = store.folder.iterdir()
    inode = (before / "moments.safetensors").stat().st_ino
    refreshed = replace(state(1), version=1, student={"w": torch.zeros(3, 2)})
    store.save(refreshed, unchanged=True)
    (after,) = store.folder.iterdir()
    loaded = store.load()
    assert loaded is not None and same(loaded, refreshed)
    assert (after / "moments.safetensors").stat().st_ino == inode
    assert (after / "student.safetensors").stat().st_nlink == 1


def test_unchanged_parts_are_copied_where_links_are_not_possible(
    store: NodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    store.save(state(1))
    refreshed = replace(state(1), version=1, student={"w": torch.zeros(3, 2)})
    store.save(refreshed, unchanged=True, finished=True)
    store.reopen()
    loaded = store.load()
    assert loaded is not None and same(loaded, refreshed)


def test_a_damaged_part_is_not_made_sound_by_the_next_write(store: NodeStore) -> None:
    """What is linked keeps the checksum with which it was written."""
    store.save(state(1))
    (folder,) = store.folder.iterdir()
    content = (folder / "moments.safetensors").read_bytes()
    (folder / "moments.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    store.save(replace(state(1), version=1), unchanged=True)
    with pytest.raises(StateError, match=r"moments\.safetensors is damaged"):
        store.load()


def test_a_state_of_another_version_is_left_alone(store: NodeStore) -> None:
    store.save(state(1))
    (folder,) = store.folder.iterdir()
    manifest = folder / "state.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT - 1}'))
    with pytest.raises(
        StateError, match=rf"{folder} has format {FORMAT - 1}, this version reads {FORMAT}: go on with .* or remove"
    ):
        store.load()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            "state.json",
            "reply",
            *(f"{part}.safetensors" for part in ("student", "private", "tied", "moments", "residual")),
        ]
    )


def test_a_kill_at_any_step_of_a_write_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    outcomes = []
    for step in range(1, 200):
        store = NodeStore(tmp_path / str(step), LINEAGES[0], "node")
        store.save(state(1))
        killed = killed_at(step, partial(store.save, state(2)))
        loaded = store.load()
        assert loaded is not None
        assert same(loaded, state(1)) or same(loaded, state(2))
        outcomes.append(loaded.round)
        store.save(state(3))
        assert len(list(store.folder.iterdir())) == 1, "leftovers are swept by the next write"
        if not killed:
            break
    assert not killed, "the write has more steps than were tried"
    assert sorted(outcomes) == outcomes and set(outcomes) == {1, 2}


@pytest.mark.parametrize("name", ["student.safetensors", "moments.safetensors", "reply", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_damage_is_named(store: NodeStore, name: str, damage: str) -> None:
    store.save(state(1))
    (folder,) = store.folder.iterdir()
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    if damage == "truncated":
        file.write_bytes(content[:-1])
    elif damage == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    with pytest.raises(StateError, match=str(folder.name)):
        store.load()


def kept_after_others(tmp_path: Path, finished: bool, in_between: Callable[[NodeStore], object]) -> NodeState:
    """What a lineage holds once its node has joined another one."""
    first, second = (NodeStore(tmp_path, lineage, "node") for lineage in LINEAGES[:2])
    first.save(state(1), finished=finished)
    in_between(first)
    second.slim_others()
    loaded = first.load()
    assert loaded is not None
    return loaded


def test_a_state_that_may_go_on_is_never_touched(tmp_path: Path) -> None:
    for number, (finished, in_between) in enumerate(
        [(False, NodeStore.load), (True, NodeStore.reopen), (True, lambda store: store.save(state(1)))]
    ):
        kept = kept_after_others(tmp_path / str(number), finished, in_between)
        assert same(kept, state(1)) and not kept.slim


def test_of_a_finished_state_only_what_training_needs_is_removed_once_another_lineage_joins(tmp_path: Path) -> None:
    kept = kept_after_others(tmp_path, True, lambda store: None)
    assert kept.slim and same(kept, replace(state(1), reply=b"", **{part: {} for part in TRAINING}))
    other = NodeStore(tmp_path, LINEAGES[0], "other")
    other.save(state(1), finished=True)
    NodeStore(tmp_path, LINEAGES[1], "node").slim_others()
    loaded = other.load()
    assert loaded is not None and same(loaded, state(1)), "another node's state is another node's"


def test_a_state_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    def hold(store: NodeStore) -> None:
        locks.append((store.folder.parent / ".node.lock").open("w"))
        fcntl.flock(locks[0], fcntl.LOCK_EX)

    locks: list[IO[str]] = []
    kept = kept_after_others(tmp_path, True, hold)
    locks[0].close()
    assert same(kept, state(1)) and not kept.slim


def test_a_kill_while_a_finished_state_is_slimmed_or_reopened_leaves_its_teacher(tmp_path: Path) -> None:
    for name, act in (("slim", NodeStore.slim_others), ("reopen", NodeStore.reopen)):
        killed = True
        for step in range(1, 300):
            first, second = (NodeStore(tmp_path / f"{name}-{step}", lineage, "node") for lineage in LINEAGES[:2])
            first.save(state(1), finished=True)
            killed = killed_at(step, partial(act, second if name == "slim" else first))
            loaded = first.load()
            slimmed = replace(state(1), reply=b"", **{part: {} for part in TRAINING})
            assert loaded is not None and same(loaded, slimmed if loaded.slim else state(1))
            if not killed:
                break
        assert not killed


@given(
    lineage=st.one_of(st.sampled_from(LINEAGES), st.text(), st.sampled_from(["..", "../..", "a/b", "examples", ""])),
    node=st.one_of(st.just("node"), st.text(), st.sampled_from(["..", "../../evil", "ward/1", ".", "", "a\nb", "n\n"])),
)
def test_no_name_leads_out_of_state_dir(tmp_path_factory: pytest.TempPathFactory, lineage: str, node: str) -> None:
    """Whatever is asked for is refused or lies two folders below state-dir."""
    root = tmp_path_factory.mktemp("root")
    state_dir, mine = root / "place" / "state", root / "evil"
    mine.mkdir()
    state_dir.parent.mkdir()
    try:
        store = NodeStore(state_dir, lineage, node)
        store.save(state(1), finished=True)
        store.reopen()
        NodeStore(state_dir, LINEAGES[3], node).slim_others()
        assert store.folder.parent.parent == state_dir and [path.name for path in state_dir.iterdir()] == [lineage]
        store.set_aside()
    except StateError:
        assert not state_dir.exists()
    outside = {path for path in root.rglob("*") if state_dir not in (path, *path.parents)}
    assert outside == {mine, state_dir.parent}


def test_a_disk_that_refuses_keeps_the_old_state(store: NodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(state(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StateError, match=r"No space left.*set state-dir to"):
        store.save(state(2))
    loaded = store.load()
    assert loaded is not None and same(loaded, state(1))
