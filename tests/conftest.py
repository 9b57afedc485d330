"""A tiny BERT with the words of a few hundred real tweets, and the default run config."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import settings
from support.config import keys

from fedkd_flwr.config.methods import METHODS
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, load_examples
from fedkd_flwr.models.hub import load_tokenizer

# Hypothesis' deadline is an assertion on time; a first call that imports a library may take longer.
settings.register_profile("fedkd", deadline=None)
settings.load_profile("fedkd")

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-golden", action="store_true", help="record tests/federations/golden.json anew")


@pytest.fixture(scope="session", autouse=True)
def _flower_identity() -> None:
    """Messages can only be made inside a Flower task."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def defaults() -> dict[str, Any]:
    """The run config without any change."""
    return RunConfig.defaults()


@pytest.fixture(scope="session")
def vocabulary(tweets_csv: Path) -> list[str]:
    """The pieces of MiniLM's vocabulary that the tweets need, and all letters: every node reads it at each message."""
    tokenizer = load_tokenizer("minilm-l6")
    with tweets_csv.open(newline="") as file:
        used = set().union(*tokenizer([row["text"] for row in csv.DictReader(file)])["input_ids"])
    used |= set(tokenizer.all_special_ids)
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda piece: piece[1])
    return [piece for piece, number in pieces if number in used or re.fullmatch(r"(##)?[!-~]", piece)]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, vocabulary: list[str]) -> Path:
    """A random BERT without dropout: 4 layers, 16 wide."""
    return _tiny_bert(tmp_path_factory.mktemp("tiny-bert"), vocabulary, dropout=0.0)


@pytest.fixture(scope="session")
def tiny_bert_with_dropout(tmp_path_factory: pytest.TempPathFactory, vocabulary: list[str]) -> Path:
    """The same with dropout."""
    return _tiny_bert(tmp_path_factory.mktemp("tiny-bert-dropout"), vocabulary, dropout=0.1)


@pytest.fixture(scope="session")
def wide_bert(tmp_path_factory: pytest.TempPathFactory, vocabulary: list[str]) -> Path:
    """The same, 256 wide, without dropout: matrices of which the codec takes the leading singular values only."""
    return _tiny_bert(tmp_path_factory.mktemp("wide-bert"), vocabulary, dropout=0.0, width=256)


def _tiny_bert(folder: Path, vocabulary: list[str], dropout: float, width: int = 16) -> Path:
    from support.checkpoints import save
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=width,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=64,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    )
    return Path(save(model, folder, vocabulary))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with a small random encoder for each of a few families."""
    from support.checkpoints import FAMILIES, save

    torch.manual_seed(1)
    return {name: save(build(), tmp_path_factory.mktemp(name)) for name, build in FAMILIES.items()}


@pytest.fixture(scope="session")
def tweets_csv(tmp_path_factory: pytest.TempPathFactory, defaults: dict[str, Any]) -> Path:
    """Every 100th tweet: some 380 rows of text, label."""
    path = tmp_path_factory.mktemp("tweets") / "tweets.csv"
    dataset = load_examples("tweets", DataSettings.of(RunConfig.parse(defaults)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(dataset["text"][::100], dataset["label"][::100], strict=True))
    return path


@pytest.fixture(scope="session")
def tiny_run(defaults: dict[str, Any], tiny_bert: Path, tweets_csv: Path) -> dict[str, Any]:
    """The default run on the tiny BERT and few tweets, with no folders yet to write to."""
    return defaults | {
        "model.teacher": str(tiny_bert),
        "model.student-layers": 2,
        "data.dataset": f"csv:{tweets_csv}",
        "data.partition": "iid",
        "num-rounds": 2,
        "train.local-steps": 3,
        "train.batch-size": 8,
        "train.learning-rate": 5e-3,
        "train.teacher-learning-rate": 5e-3,
        "model.architecture": "separate",
        "distillation.loss": "stable",
        "train.logit-adjustment": "never",
        "train.linear-probe": "never",
        "train.learning-rate-warm-up": 0,
        "train.learning-rate-decay": "never",
        "distillation.teacher-kl": 1.0,
        "codec.kind": "energy",
        "codec.error-feedback": "none",
        "data.max-test-examples": 16,
        "federation.node-wait-seconds": 1,
        "run.name": "run",
        "run.threads": 1,
    }


@pytest.fixture
def run_config(tiny_run: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The tiny run in this test's folder, with changes given as keywords (`num_rounds=3`)."""
    folders = {"run.runs-dir": str(tmp_path / "runs"), "run.state-dir": str(tmp_path / "state")}

    def build(**changes: Any) -> dict[str, Any]:
        new = keys(**changes)
        return tiny_run | folders | dict(METHODS[str(new.get("method", "fedkd"))].fixes) | new

    return build
