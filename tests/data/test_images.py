from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset
from support.images import save_digits

from fedkd_flwr.data import DataSettings, NodeData, data_fingerprint, load_node_data, load_test_data, node_name
from fedkd_flwr.errors import DataError

Configure = Callable[..., DataSettings]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """100 digits, not split."""
    return save_digits(tmp_path / "plain", 100)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """100 digits to learn from and 40 to test on."""
    save_digits(tmp_path / "split" / "test", 40, start=100)
    save_digits(tmp_path / "split" / "train", 100)
    return tmp_path / "split"


@pytest.fixture
def configured(configure: Configure) -> Configure:
    def build(folder: Path, **changes: object) -> DataSettings:
        own = {"task": "image-classification", "dataset": f"imagefolder:{folder}", "partition": "iid"}
        return configure(**own | changes)

    return build


def node(config: DataSettings, partition: int = 0, partitions: int = 1) -> NodeData:
    return load_node_data(config, {"partition-id": partition, "num-partitions": partitions})


def files(dataset: Dataset) -> list[str]:
    return list(dataset["image"][:])


def test_labels_are_the_folders_of_the_images(plain: Path, configured: Configure) -> None:
    data = node(configured(plain))
    assert data.labels == tuple("0123456789")
    for part in (data.train, data.test):
        assert [Path(path).parent.name for path in part["image"]] == [data.labels[label] for label in part["label"]]


ALPHA = {"dirichlet": {"dirichlet_alpha": 2.0}}


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "shard"])
def test_nodes_share_all_images_once(plain: Path, split: Path, configured: Configure, partition: str) -> None:
    for folder, count in ((plain, 100), (split, 140)):
        config = configured(folder, partition=partition, **ALPHA.get(partition, {}))
        shares = [node(config, i, 3) for i in range(3)]
        found = [path for data in shares for part in (data.train, data.test) for path in files(part)]
        assert len(found) == len(set(found)) == count == len(list(folder.rglob("*.png")))


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "shard"])
def test_a_folders_own_split_stays(split: Path, configured: Configure, partition: str) -> None:
    for i in range(3):
        data = node(configured(split, partition=partition, **ALPHA.get(partition, {})), i, 3)
        assert all("/train/" in path for path in files(data.train)) and len(data.train) > 1
        assert all("/test/" in path for path in files(data.test)) and len(data.test) > 1


def test_a_skewed_node_is_tested_on_the_classes_that_it_learns(split: Path, configured: Configure) -> None:
    """With few classes at a node, those of its test images are nearly all among those of its training images."""
    shares = [node(configured(split, partition="dirichlet", dirichlet_alpha=0.3, seed=1), i, 3) for i in range(3)]
    common = sum(label in set(data.train["label"]) for data in shares for label in data.test["label"])
    assert common >= 0.8 * sum(len(data.test) for data in shares)


def test_without_a_split_a_share_of_each_class_is_held_out(plain: Path, configured: Configure) -> None:
    data = node(configured(plain, test_fraction=0.2, max_test_examples=0))
    assert (len(data.train), len(data.test)) == (80, 20)
    for label in range(10):
        members = [list(part["label"]).count(label) for part in (data.train, data.test)]
        assert abs(members[1] - 0.2 * sum(members)) < 1


def test_at_most_so_many_images_are_tested_on(plain: Path, split: Path, configured: Configure) -> None:
    for folder in (plain, split):
        whole = node(configured(folder, test_fraction=0.5, max_test_examples=0))
        few = node(configured(folder, test_fraction=0.5, max_test_examples=7))
        assert len(few.test) == 7 and set(files(few.test)) < set(files(whole.test))
        assert files(few.train) == files(whole.train)


def test_a_node_has_a_folder_of_its_own(split: Path, configured: Configure, configure: Configure) -> None:
    config = configure(task="image-classification")
    for reference in (str(split), f"imagefolder:{split}"):
        place = {"data-path": reference}
        data = load_node_data(config, place)
        assert data.name == "split" and node_name(config, place).startswith("node-"), "its path stays at the node"
        assert (len(data.train), len(data.test)) == (100, 40)


def test_server_test_data_are_the_held_out_ones(plain: Path, split: Path, configured: Configure) -> None:
    labels = tuple("0123456789")
    for folder, count in ((plain, 100), (split, 40)):
        assert len(load_test_data(f"imagefolder:{folder}", configured(folder), labels)) == count


def test_the_fingerprint_tells_a_changed_file(plain: Path, configured: Configure) -> None:
    config, place = configured(plain), {"partition-id": 0, "num-partitions": 2}
    seen = {data_fingerprint(config, place)}
    assert data_fingerprint(config, place) in seen
    image = next((plain / "4").iterdir())
    image.write_bytes(image.read_bytes())
    seen.add(data_fingerprint(config, place))
    image.unlink()
    seen.add(data_fingerprint(config, place))
    assert len(seen) == 3


def test_other_files_are_left_out_with_a_note(
    plain: Path, configured: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    (plain / "3" / "notes.txt").write_text("a three")
    (plain / "3" / ".hidden").write_text("")
    data = node(configured(plain))
    assert len(data.train) + len(data.test) == 100
    assert "1 files are no images and are left out, such as" in caplog.text and "notes.txt" in caplog.text


def test_errors_name_the_folder(plain: Path, split: Path, tmp_path: Path, configured: Configure) -> None:
    def fails(folder: Path, message: str, partitions: int = 1, **changes: object) -> None:
        with pytest.raises(DataError, match=message):
            node(configured(folder, **changes), 0, partitions)

    fails(tmp_path / "none", "image folder .*/none: no such folder, correct the path in 'imagefolder:")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "empty: it has no images to learn from, expected CLASS/\\*.png, or train/CLASS/\\*.png")
    fails(save_digits(tmp_path / "one", 20, classes=1), "one: expected at least two different labels, found 1")
    fails(plain, "/2/[0-9]+.png has a label that is none of 0, 1", labels="0,1")
    fails(plain, "leaves one of 60 nodes", 60, partition="dirichlet", dirichlet_alpha=0.01)
    for image in sorted((split / "test").rglob("*.png"))[1:]:
        image.unlink()
    with pytest.raises(DataError, match="images to train on and 0 to test on, expected at least one of each"):
        for partition in range(3):
            node(configured(split), partition, 3)
    next((split / "test").rglob("*.png")).unlink()
    fails(split, "test: it has no images, expected CLASS/\\*.png: fill or remove it")
    settings = configured(plain)
    with pytest.raises(DataError, match=r"data.dataset 'tweets' has no images: set run-config key 'data.dataset'"):
        node(replace(settings, data=settings.data.model_copy(update={"dataset": "tweets"})))


@pytest.mark.parametrize("train", ["train", "Training"])
@pytest.mark.parametrize("held", ["test", "Testing", "val", "valid", "Validation", "dev"])
def test_a_part_by_any_of_its_names_is_held_out(train: str, held: str, tmp_path: Path, configured: Configure) -> None:
    save_digits(tmp_path / held, 40, start=100)
    save_digits(tmp_path / train, 100)
    data = node(configured(tmp_path, max_test_examples=0))
    assert (len(data.train), len(data.test)) == (100, 40)
    assert all(f"/{held}/" in path for path in files(data.test))
    assert len(load_test_data(f"imagefolder:{tmp_path}", configured(tmp_path), data.labels)) == 40


def test_folders_that_are_not_read_are_named_once(
    split: Path, configured: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    save_digits(split / "val", 30, start=200)
    save_digits(split / "train" / "3" / "more", 10)
    data = node(configured(split, max_test_examples=0))
    assert all("/test/" in path for path in files(data.test)) and len(data.train) == 100
    lines = [record.getMessage() for record in caplog.records if "not read" in record.getMessage()]
    assert lines == [f"{split}: these of its folders are not read: val, train/3/more"]


def test_a_class_may_be_called_train(tmp_path: Path, configured: Configure) -> None:
    save_digits(tmp_path, 40, classes=2)
    (tmp_path / "0").rename(tmp_path / "train")
    assert node(configured(tmp_path)).labels == ("1", "train")


def test_what_systems_leave_in_folders_is_no_image_and_no_class(
    plain: Path, configured: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    before = node(configured(plain))
    image = next((plain / "3").iterdir()).read_bytes()
    for name in ("3/._1.png", "3/.hidden.png", "3/Thumbs.db", "3/.DS_Store", "__MACOSX/3/1.png", ".cache/1.png"):
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        (plain / name).write_bytes(image)
    after = node(configured(plain))
    assert (after.labels, files(after.train), files(after.test)) == (
        before.labels,
        files(before.train),
        files(before.test),
    )
    assert caplog.text == ""


def test_a_report_counts_images_and_says_which_are_held_out(split: Path, configured: Configure) -> None:
    shares = [node(configured(split, max_test_examples=0), i, 3).report for i in range(3)]
    assert sum(report.rows for report in shares) == sum(sum(report.classes) for report in shares) == 140
    assert sorted(number for report in shares for number in report.held_out) == list(range(101, 141))
