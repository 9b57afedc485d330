"""News recommendation from files to exported models, and the recommender alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.federation import Config, history, nodes, silo, student
from support.loopback import LoopbackGrid, run_server
from support.mind import write_mind
from transformers import AutoModel, AutoTokenizer

from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, load_examples
from fedkd_flwr.data.impressions import LABELS
from fedkd_flwr.models.build import build_pair
from fedkd_flwr.models.export import load_classifier
from fedkd_flwr.models.modeling_news import NewsRecommender
from fedkd_flwr.tracking.summary import as_table, read_summary

METRICS = {"auc", "mrr", "ndcg@5", "ndcg@10", "loss"}
NESTED = {"architecture": "nested"}
BATCH = {
    "input_ids": torch.tensor([[2, 759, 208, 3], [2, 759, 3, 0], [2, 202, 200, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]),
    "history": torch.tensor([[0, 2], [1, -1], [-1, -1]]),
    "candidates": torch.tensor([[1, 2, 0], [2, 0, -1], [0, 2, -1]]),
}


@pytest.fixture(scope="module")
def tweets_as_news(tmp_path_factory: pytest.TempPathFactory, defaults: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("mind")
    titles = load_examples("tweets", DataSettings.of(RunConfig.parse(defaults)))["text"][:6000:100]
    for part, each in (("train", 4), ("dev", 1)):
        write_mind(folder / part, titles, 9, each, len(part))
    return folder


@pytest.fixture
def news(run_config: Config, tweets_as_news: Path) -> Config:
    """The tiny run on impressions of tweets."""

    def build(**changes: Any) -> dict[str, Any]:
        own = {"task": "news-recommendation", "dataset": f"mind:{tweets_as_news}", "partition": "natural"}
        return run_config(**own | {"energy_end": 0.95, "max_length": 16, "max_history": 8} | changes)

    return build


@pytest.mark.parametrize(
    "changes",
    [
        NESTED,
        {"architecture": "separate", "hidden": 1.0, "attention": 1.0},
        {"method": "fedavg"},
        {"shared_head": "never"},
    ],
    ids=["nested", "separate, matched", "fedavg", "private head"],
)
def test_a_federation_on_impressions(
    news: Config, tweets_as_news: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = run_server(LoopbackGrid(news(**changes), nodes(3)))
    found = history(folder)
    last = found["rounds"][-1]
    assert [entry["trained"] for entry in found["rounds"]] == [3, 3]
    assert all(scores["student"].keys() == METRICS for scores in (last, *last["nodes"].values()))
    assert all(0 <= value <= 1 for name, value in last["student"].items() if name != "loss")
    shared = changes.get("shared_head") != "never"
    for name in ("news.weight", "newcomer", "user_attention.keys.weight", "title_attention.query.weight"):
        assert (name in student(folder)) == shared
    assert as_table(read_summary(folder)).title.startswith("AUC and nDCG@10")  # type: ignore[union-attr]
    assert found["shared-head"] == shared


def test_nodes_with_folders_of_their_own(news: Config, tweets_as_news: Path, tmp_path: Path) -> None:
    places = [silo(part, f"mind:{tweets_as_news / part}", tmp_path / "state") for part in ("train", "dev")]
    found = history(run_server(LoopbackGrid(news(num_rounds=1, dataset="tweets"), places)))
    assert found["rounds"][0]["trained"] == 2 and set(found["rounds"][0]["nodes"]) == {"train", "dev"}


def test_every_exported_folder_is_read_back(news: Config, tmp_path: Path) -> None:
    folder = run_server(LoopbackGrid(news(**NESTED), nodes(3)))
    encoder = AutoModel.from_pretrained(folder / "student")
    assert type(encoder).__name__ == "BertModel" and encoder.config.num_hidden_layers == 2
    lineage = tmp_path / "state" / history(folder)["lineage"]
    for place, layers in ((folder / "student", 2), (lineage / "partition-1" / "teacher", 4)):
        model = AutoModel.from_pretrained(place, trust_remote_code=True).eval()
        assert (type(model).__name__, model.config.num_hidden_layers) == ("NewsRecommender", layers)
        ours = load_classifier(place)
        assert type(ours) is NewsRecommender
        torch.testing.assert_close(ours(**BATCH).logits, model(**BATCH).logits)
        sent = student(folder)
        assert all(
            torch.equal(tensor, sent[name])
            for name, tensor in load_file(place / "model.safetensors").items()
            if name in sent and (layers == 2 or "layer.1." in name)
        )
        assert AutoTokenizer.from_pretrained(place)("hello")["input_ids"]


def test_the_code_of_the_documentation_scores_news(news: Config) -> None:
    folder = run_server(LoopbackGrid(news(num_rounds=1, **NESTED), nodes(3)))
    text = (Path(__file__).parent.parent.parent / "docs" / "tasks" / "news-recommendation.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    place = str(folder / "student")
    names: dict[str, Any] = {}
    exec(code.replace("runs/NAME/student", place), names)
    assert names["scores"].shape == (2,)
    model = names["model"]
    titles = names["titles"]
    logits = model(**titles, history=torch.tensor([[0]]), candidates=torch.tensor([[0, 1]])).logits[0]
    torch.testing.assert_close(names["scores"], logits)
    torch.testing.assert_close(model.encode_user(names["news"][None, []])[0], model.newcomer)


def test_the_server_scores_its_student(news: Config, tweets_as_news: Path) -> None:
    found = history(run_server(LoopbackGrid(news(server_test_data=f"mind:{tweets_as_news}"), nodes(2))))
    assert all(entry["server"].keys() == METRICS for entry in found["rounds"])


def test_resumed_runs_end_as_straight_ones(news: Config) -> None:
    """The drawn candidates are those of the round, too."""
    straight = run_server(LoopbackGrid(news(run_name="straight", **NESTED), nodes(3)))
    folder = run_server(LoopbackGrid(news(num_rounds=1, **NESTED), nodes(3)))
    run_server(LoopbackGrid(news(resume=str(folder), **NESTED), nodes(3), first_id=900))
    one, other = student(straight), student(folder)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert history(straight)["rounds"][-1]["nodes"] == history(folder)["rounds"][-1]["nodes"]


@pytest.mark.parametrize("changes", [NESTED, NESTED | {"shared_layers": 4}, {"architecture": "separate"}])
def test_one_pass_scores_for_both_models(news: Config, changes: dict[str, Any]) -> None:
    """Teacher and student on a batch together are what each is alone; every parameter travels or is private."""
    models = build_pair(RunConfig.parse(news(**changes)), LABELS)
    pair = models.pair.eval()
    teacher, learner = pair(BATCH)
    assert models.student is not None and models.teacher is not None
    torch.testing.assert_close(learner.logits, models.student(**BATCH).logits)
    torch.testing.assert_close(teacher.logits, models.teacher(**BATCH).logits)
    assert teacher.logits.shape == learner.logits.shape == (3, 3)
    groups = pair.groups()
    shared, private = ({id(p) for p in part.values()} for part in (groups.shared, groups.private))
    assert not shared & private and shared | private == {id(p) for p in pair.parameters() if p.requires_grad}


@pytest.fixture
def recommender(news: Config) -> NewsRecommender:
    model = build_pair(RunConfig.parse(news()), LABELS).student
    assert isinstance(model, NewsRecommender)
    with torch.no_grad():
        model.newcomer.normal_(generator=torch.Generator().manual_seed(0))
    return model.eval()


def test_a_score_is_the_product_of_news_and_user(recommender: NewsRecommender) -> None:
    logits = recommender(**BATCH).logits
    vectors = recommender.encode_news(BATCH["input_ids"], BATCH["attention_mask"])
    assert vectors.shape == (3, 64)
    users = [recommender.encode_user(vectors[clicked].unsqueeze(0))[0] for clicked in ([0, 2], [1], [])]
    torch.testing.assert_close(users[2], recommender.newcomer)
    for row, user in enumerate(users):
        for place, news in enumerate(BATCH["candidates"][row]):
            expected = vectors[news] @ user if news >= 0 else torch.tensor(-torch.inf)
            torch.testing.assert_close(logits[row, place], expected)


def test_padding_and_the_place_of_a_title_do_not_matter(recommender: NewsRecommender) -> None:
    logits = recommender(**BATCH).logits
    order = torch.tensor([2, 0, 1])
    place = torch.tensor([1, 2, 0, -1])
    wider = {
        "input_ids": torch.nn.functional.pad(BATCH["input_ids"][order], (0, 2), value=5),
        "attention_mask": torch.nn.functional.pad(BATCH["attention_mask"][order], (0, 2)),
        "history": torch.nn.functional.pad(place[BATCH["history"]], (0, 3), value=-1),
        "candidates": torch.nn.functional.pad(place[BATCH["candidates"]], (0, 1), value=-1),
    }
    torch.testing.assert_close(recommender(**wider).logits[:, :3], logits)


def test_users_without_clicks_learn_a_vector_of_their_own(recommender: NewsRecommender) -> None:
    logits = recommender(**BATCH | {"history": torch.full((3, 0), -1)}).logits
    torch.testing.assert_close(logits[2], recommender(**BATCH).logits[2])
    logits[logits.isfinite()].square().sum().backward()
    assert recommender.newcomer.grad is not None and recommender.newcomer.grad.abs().sum() > 0
