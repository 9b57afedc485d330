from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.mind import line, write_behaviors, write_mind, write_news

from fedkd_flwr.data import DataSettings, load_node_data, load_test_data
from fedkd_flwr.data.impressions import LABELS, as_dataset
from fedkd_flwr.data.mind import find, read
from fedkd_flwr.errors import ConfigError, DataError

Configure = Callable[..., DataSettings]

TITLES = ['Good "news', "bad news", "Straße", "", "a, b", "five"]
TRAIN = [
    line(1, "U1", [0, 2], [(1, 0), (2, 1)]),
    line(2, "U2", [], [(3, 1), (4, 0), (0, 1)]),
    line(3, "U1", [4], [(0, 1)]),
    line(4, "U3", [4], [(0, 0), (5, 0)]),
    line(5, "U3", [4, 4, 1], [(0, 0), (5, 1)]),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, lines in (("train", TRAIN), ("dev", [line(1, "U1", [0, 2, 3], [(5, 0), (4, 1)])])):
        write_news(tmp_path / "mind" / part, TITLES)
        write_behaviors(tmp_path / "mind" / part, lines)
    return tmp_path / "mind"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mind")
    titles = [f"title {number}" for number in range(80)]
    for part, each in (("train", 6), ("dev", 2)):
        write_mind(folder / part, titles, 20, each, len(part))
    return folder


def configure_news(configure: Configure, folder: Path, **changes: Any) -> DataSettings:
    return configure(**{"task": "news-recommendation", "data.dataset": f"mind:{folder}"} | changes)


def readable(impressions: pa.Table, titles: list[str]) -> list[tuple[list[str], list[tuple[str, int]]]]:
    """History and offers of each impression, in titles."""
    return [
        (
            [titles[news] for news in row["history"]],
            [(titles[news], click) for news, click in zip(row["candidates"], row["clicked"], strict=True)],
        )
        for row in impressions.to_pylist()
    ]


def test_impressions_say_what_was_clicked_and_what_was_not(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        mind = read(find(f"mind:{folder}"))
    titles = mind.titles.to_pylist()
    assert titles[: len(TITLES)] == TITLES
    assert readable(mind.train, titles) == [
        (['Good "news', "Straße"], [("bad news", 0), ("Straße", 1)]),
        ([], [("", 1), ("a, b", 0), ('Good "news', 1)]),
        (["a, b", "a, b", "bad news"], [('Good "news', 0), ("five", 1)]),
    ]
    assert mind.test is not None
    assert readable(mind.test, titles) == [(['Good "news', "Straße", ""], [("five", 0), ("a, b", 1)])]
    assert "train/behaviors.tsv: 2 of 5 lines are left out: none or all of the offered news were clicked" in caplog.text


def test_a_data_set_holds_each_title_once_and_the_same_impressions(many: Path) -> None:
    mind = read(find(str(many)))
    some = mind.train.take([3, 40, 41])
    table = as_dataset(some, mind.titles).with_format("arrow")[:]
    titles = table["titles"].to_pylist()
    assert [len(part) for part in titles[1:]] == [0, 0] and len(set(titles[0])) == len(titles[0])
    assert readable(table, titles[0]) == readable(some, mind.titles.to_pylist())


@pytest.mark.parametrize("partition", ["natural", "iid"])
def test_nodes_share_all_impressions(configure: Configure, many: Path, partition: str) -> None:
    config = configure_news(configure, many, partition=partition, max_test_examples=0)
    mind = read(find(str(many)))
    assert mind.test is not None
    nodes = [load_node_data(config, {"partition-id": i, "num-partitions": 3}) for i in range(3)]
    for parts, whole in (([n.train for n in nodes], mind.train), ([n.test for n in nodes], mind.test)):
        shared = []
        for part in parts:
            table = part.with_format("arrow")[:]
            shared += readable(table, table["titles"][0].as_py())
        assert sorted(shared) == sorted(readable(whole, mind.titles.to_pylist()))
    assert [n.name for n in nodes] == ["partition-0", "partition-1", "partition-2"]
    assert all(n.labels == LABELS for n in nodes)


def test_naturally_a_user_is_at_one_node(configure: Configure, many: Path) -> None:
    """20 users with 6 impressions each: 7, 7 and 6 of them."""
    config = configure_news(configure, many)
    nodes = [load_node_data(config, {"partition-id": i, "num-partitions": 3}) for i in range(3)]
    assert [len(node.train) for node in nodes] == [42, 42, 36]


def test_at_most_so_many_held_out_impressions_the_same_each_time(configure: Configure, many: Path) -> None:
    """At a node with data of its own whatever the seed is: runs that differ in it do not tell examples apart."""
    place = {"partition-id": 0, "num-partitions": 1}
    simulated, again, reseeded = (
        load_node_data(configure_news(configure, many, max_test_examples=5, **more), place)
        for more in ({}, {"num_rounds": 9}, {"seed": 1})
    )
    assert len(simulated.test) == 5 and len(simulated.train) == 120
    assert simulated.test["candidates"][:] == again.test["candidates"][:] != reseeded.test["candidates"][:]
    owned, other_seed = (
        load_node_data(configure_news(configure, many, max_test_examples=5, **more), {"data-path": str(many)})
        for more in ({}, {"seed": 1})
    )
    assert len(owned.test) == 5 and owned.test["candidates"][:] == other_seed.test["candidates"][:]


def test_of_one_folder_the_latest_impressions_are_held_out(configure: Configure, many: Path) -> None:
    """Each user's six impressions lie a minute apart."""
    data = load_node_data(
        configure_news(configure, many, test_fraction=1 / 3, max_test_examples=0),
        {"data-path": f"mind:{many / 'train'}", "name": "north"},
    )
    table = read(find(str(many / "train"))).train
    minutes = np.array([time.minute for time in table["time"].to_pylist()])
    expected = [row["candidates"] for row, minute in zip(table.to_pylist(), minutes, strict=True) if minute >= 4]
    assert (len(data.train), len(data.test), data.name) == (80, 40, "north")
    test = data.test.with_format("arrow")[:]
    found, titles = readable(test, test["titles"][0].as_py()), read(find(str(many / "train"))).titles
    assert [[title for title, _ in offers] for _, offers in found] == [
        [titles[news].as_py() for news in row] for row in expected
    ]


def test_the_server_scores_on_the_held_out_impressions(configure: Configure, many: Path) -> None:
    config = configure_news(configure, many)
    assert len(load_test_data(f"mind:{many}", config, LABELS)) == 40
    assert len(load_test_data(f"mind:{many / 'train'}", config, LABELS)) == 120


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "behaviors.tsv",
            "1\tU1\t11/15/2019 8:55:22 AM\tN0\n",
            r"behaviors.tsv: line 1 has 4 columns, expected an imp",
        ),
        (
            "behaviors.tsv",
            f"{TRAIN[0]}\n2\tU1\tN0\n",
            r"behaviors.tsv: line 2 has 3 columns where the first line has 5",
        ),
        (
            "news.tsv",
            "N0\tsports\n",
            r"news.tsv: line 1 has 2 columns, expected a news id, a category, a subcategory and",
        ),
        (
            "behaviors.tsv",
            f"{TRAIN[0]}\n{line(2, 'U', [0, 77], [(0, 1), (1, 0)])}",
            r"line 2 has among its clicked news one that n",
        ),
        (
            "behaviors.tsv",
            f"{TRAIN[0]}\n{line(2, 'U', [], [(0, 1), (77, 0)])}",
            r"line 2 has among its offered news one that ",
        ),
        (
            "behaviors.tsv",
            f"{TRAIN[0]}\n2\tU\t11/15/2019 8:55:22 AM\t\tN0-1 N1",
            r"line 2 offers a news without saying",
        ),
        (
            "behaviors.tsv",
            line(1, "U", [], [(0, 0), (1, 0)]),
            r"behaviors.tsv: in no line is one of the offered news cli",
        ),
        ("behaviors.tsv", "", r"behaviors.tsv: line 1 has 1 columns, expected an impression id, a user id, a time"),
        (
            "behaviors.tsv",
            f"{TRAIN[0]}\n2\tU\tnoon\t\tN0-1 N1-0",
            r"line 2 has no time as 11/15/2019 8:55:22 AM in its th",
        ),
        ("news.tsv", b"N0\ta\tb\t\xff\xfe\n", r"news.tsv: cannot be read as tab-separated text \(UTF-8\)"),
    ],
)
def test_what_does_not_fit_is_one_line(folder: Path, file: str, content: str | bytes, words: str) -> None:
    path = folder / "train" / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words) as caught:
        read(find(str(folder / "train")))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and "N77" not in str(caught.value)


def test_missing_files_and_folders(folder: Path, configure: Configure) -> None:
    with pytest.raises(DataError, match=r"mind data .*/nowhere: no such folder, correct the path in 'mind:/nowhere'"):
        find("mind:/nowhere")
    (folder / "dev" / "news.tsv").unlink()
    with pytest.raises(DataError, match=r"there is no dev/news.tsv, expected news.tsv and behaviors.tsv in it"):
        find(str(folder))


def test_nodes_that_cannot_share(folder: Path, configure: Configure) -> None:
    config = configure_news(configure, folder)
    with pytest.raises(DataError, match="4 nodes cannot share 3 users: run at most 3 nodes"):
        load_node_data(config, {"partition-id": 0, "num-partitions": 4})
    with pytest.raises(DataError, match="node 1 has 1 impressions to train on and 0 to test on"):
        load_node_data(config, {"partition-id": 1, "num-partitions": 3})
    with pytest.raises(DataError, match="dataset 'tweets' has no clicks"):
        load_node_data(configure(task="news-recommendation"), {"partition-id": 0, "num-partitions": 2})


def test_a_changed_file_is_read_again(folder: Path) -> None:
    before = read(find(str(folder)))
    write_behaviors(folder / "train", TRAIN[:1])
    assert len(before.train) == 3 and len(read(find(str(folder))).train) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "csv:a.csv"}, "set it to mind:PATH"),
        ({"dataset": "mind:/a", "task": "text-classification"}, "set it to csv:PATH or json:PATH or parquet:PATH"),
        ({"dataset": "mind:/a", "labels": "a,b"}, "data.labels is 'a,b' but task 'news-recommendation' does not"),
        ({"dataset": "mind:/a", "partition": "dirichlet"}, "'dirichlet' needs one class an example"),
        ({"dataset": "mind:/a", "partition": "shard"}, "'shard' needs one class an example, task is 'news-recomm"),
    ],
)
def test_settings_that_do_not_fit(configure: Configure, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        configure(**{"task": "news-recommendation"} | changes)
