import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from killed import killed_at

from fedkd_flwr.errors import StateError
from fedkd_flwr.node_state import NodeState, NodeStore


def state(round: int) -> NodeState:
    value = float(round)
    return NodeState(
        round=round,
        version=round - 1,
        student={"w": torch.full((3, 2), value)},
        private={"teacher.w": torch.full((4,), value)},
        lent={"w": torch.full((3, 2), value / 3)},
        moments={"w/step": torch.tensor(value)},
        residual={"w": torch.full((3, 2), value / 7)},
        bases={"w": torch.full((1, 2), value / 9)},
        reply=b"reply %d" % round,
    )


def same(a: NodeState, b: NodeState) -> bool:
    tensors = all(
        getattr(a, part).keys() == getattr(b, part).keys()
        and all(torch.equal(getattr(a, part)[name], getattr(b, part)[name]) for name in getattr(a, part))
        for part in ("student", "private", "lent", "moments", "residual", "bases")
    )
    return tensors and (a.round, a.version, a.reply) == (b.round, b.version, b.reply)


@pytest.fixture
def store(tmp_path: Path) -> NodeStore:
    return NodeStore(tmp_path, "lineage", "node")


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


def test_a_state_of_another_version_is_left_alone(store: NodeStore) -> None:
    store.save(state(1))
    (folder,) = store.folder.iterdir()
    manifest = folder / "state.json"
    manifest.write_text(manifest.read_text().replace('"format": 4', '"format": 3'))
    with pytest.raises(StateError, match=rf"{folder} has format 3, this version reads 4: go on with .* or remove"):
        store.load()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [
            "state.json",
            "reply",
            *(f"{part}.safetensors" for part in ("student", "private", "lent", "moments", "residual", "bases")),
        ]
    )


def test_a_kill_at_any_step_of_a_write_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    outcomes = []
    for step in range(1, 200):
        store = NodeStore(tmp_path / str(step), "lineage", "node")
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


def test_prune_keeps_the_newest_lineages_and_other_nodes(tmp_path: Path) -> None:
    stores = {name: NodeStore(tmp_path, name, "node") for name in ("a", "b", "c", "d")}
    other = NodeStore(tmp_path, "a", "other")
    other.save(state(1))
    for age, store in enumerate(stores.values()):
        store.save(state(1))
        os.utime(store.folder, (1000 + age, 1000 + age))
    stores["d"].prune(keep=2)
    assert [name for name, store in stores.items() if store.load()] == ["c", "d"]
    assert other.load() is not None
    assert not (tmp_path / "b").exists()


def test_a_disk_that_refuses_keeps_the_old_state(store: NodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(state(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StateError, match=r"No space left.*state-dir"):
        store.save(state(2))
    loaded = store.load()
    assert loaded is not None and same(loaded, state(1))
