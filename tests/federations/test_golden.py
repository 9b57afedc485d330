"""The final models of small federations, held against a recording: a change of structure changes none of them.

After a change that is meant to change them, this records them anew:
`python -m pytest tests/federations/test_golden.py --record-golden`.
Where this machine computes as the recording one did, models are equal to the last bit; elsewhere (another CPU, another
build of torch) their norms are, within a hundredth.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.federation import Config, nodes, student, teachers
from support.images import save_digits, tiny_vit
from support.loopback import LoopbackGrid, run_server
from support.mind import write_mind
from torch import Tensor, nn

from fedkd_flwr import tensors
from fedkd_flwr.config.schema import RunConfig
from fedkd_flwr.data import DataSettings, load_examples

RECORDING = Path(__file__).parent / "golden.json"
Changes = dict[str, Any]

DEFAULTS = {
    "architecture": "nested", "codec": "auto", "budget": "16x", "error_feedback": "both", "logit_adjustment": "auto",
    "linear_probe": "auto", "learning_rate_warm_up": 4, "learning_rate_decay": "staged", "loss": "adaptive",
}  # fmt: skip
"""A default run, as far as a tiny model can take it."""

FEDERATIONS: dict[str, Changes] = {
    "fedkd": DEFAULTS,
    "fedkd both ways, shared layers": DEFAULTS | {"shared_layers": 3, "teacher_kl": 1.0, "fraction_train": 0.5},
    "fedkd separate, two teachers": DEFAULTS
    | {"architecture": "separate", "teachers": "TINY,DISTILBERT", "max_length": 32},
    "fedkd-paper": {"method": "fedkd-paper"},
    "fml, clipped": {"method": "fml", "codec": "energy", "bits": 8, "max_update_norm": 1.5},
    "fedavg, budget": {"method": "fedavg", "codec": "budget", "budget": "2kB", "error_feedback": "up"},
    "fedavg-student, median": {"method": "fedavg-student", "codec": "dense", "aggregation": "median"},
    "fedavg-lora, images": DEFAULTS | {"method": "fedavg-lora", "task": "image-classification"},
    "fedprox, tags, heads of their own": DEFAULTS | {"method": "fedprox", "task": "token-classification"},
    "local": {"method": "local"},
    "rotated, dirichlet": {"codec": "rotated", "bits": 2, "error_feedback": "both", "partition": "dirichlet"},
    "own classification head": {"pooling": "model", "codec": "budget", "budget": "8x"},
    "tags, heads of their own": DEFAULTS | {"task": "token-classification"},
    "several labels": DEFAULTS | {"task": "multi-label"},
    "numbers": {"task": "regression", "architecture": "separate", "hidden": 1.0},
    "images": DEFAULTS | {"task": "image-classification"},
    "news": DEFAULTS | {"task": "news-recommendation", "partition": "natural"},
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, tweets_csv: Path, defaults: Changes) -> dict[str, Changes]:
    """The data of each task, and what names them."""
    folder = tmp_path_factory.mktemp("golden")
    tweets = load_examples("tweets", DataSettings.of(RunConfig.parse(defaults)))["text"][:24000:100]
    words = ("the", "to", "http")
    rows = [{"text": t, "words": [w for w in words if w in t.lower()], "length": len(t)} for t in tweets]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for corpus, kind in (("north", "Drug"), ("south", "Disease")):
        (folder / "iob" / corpus).mkdir(parents=True)
        sentences = [
            "".join(f"{w}\t{f'B-{kind}' if w.istitle() else 'O'}\n" for w in t.split())
            for t in tweets[:40]
            if t.split()
        ]
        (folder / "iob" / corpus / "train.tsv").write_text("\n".join(sentences[:32]))
        (folder / "iob" / corpus / "test.tsv").write_text("\n".join(sentences[32:]))
    save_digits(folder / "digits" / "train", 120)
    write_mind(folder / "mind" / "train", tweets[:60], 9, 4, 0)
    write_mind(folder / "mind" / "dev", tweets[:60], 9, 1, 1)
    rows_of = f"json:{folder / 'rows.jsonl'}"
    return {
        "text-classification": {},
        "token-classification": {"dataset": f"iob:{folder / 'iob'}", "partition": "natural"},
        "multi-label": {"dataset": rows_of, "label_column": "words"},
        "regression": {"dataset": rows_of, "label_column": "length"},
        "image-classification": {
            "dataset": f"imagefolder:{folder / 'digits'}",
            "teacher": tiny_vit(tmp_path_factory.mktemp("vit")),
        },
        "news-recommendation": {"dataset": f"mind:{folder / 'mind'}", "max_length": 16, "max_history": 8},
    }


@pytest.mark.parametrize("name", FEDERATIONS)
def test_models_are_as_recorded(
    name: str,
    run_config: Config,
    sources: Mapping[str, Changes],
    tiny_bert: Path,
    checkpoints: Mapping[str, str],
    request: pytest.FixtureRequest,
) -> None:
    changes = FEDERATIONS[name]
    if "teachers" in changes:
        own = changes["teachers"].replace("TINY", str(tiny_bert)).replace("DISTILBERT", checkpoints["distilbert"])
        changes = changes | {"teachers": own}
    source = sources[changes.get("task", "text-classification")]
    folder = run_server(LoopbackGrid(run_config(**source | changes), nodes(2)))
    found = {
        model: {"digest": tensors.digest(values), "norms": _norms(values)}
        for model, values in {"student": student(folder), **teachers(folder)}.items()
    }
    recording = json.loads(RECORDING.read_text()) if RECORDING.exists() else {}
    if request.config.getoption("record_golden"):
        recording = {**recording, "arithmetic": _arithmetic(), name: found}
        RECORDING.write_text(json.dumps(recording, indent=1, sort_keys=True) + "\n")
    expected = recording[name]
    assert found.keys() == expected.keys()
    for model, values in found.items():
        assert values["norms"] == pytest.approx(expected[model]["norms"], rel=0.01), model
        if recording["arithmetic"] == _arithmetic():
            assert values["digest"] == expected[model]["digest"], model


def _norms(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The Frobenius norm of each model part: the first two words of a tensor's name."""
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in values.items():
        parts.setdefault(".".join(name.split(".")[:2]), []).append(tensor.flatten().double())
    return {part: float(torch.cat(found).norm()) for part, found in sorted(parts.items())}


def _arithmetic() -> str:
    """What differs between machines that round otherwise: a digest of products, a softmax, an eigendecomposition."""
    generator = torch.Generator().manual_seed(0)
    sha = hashlib.sha256()
    steps: list[Callable[[Tensor], Tensor]] = [
        lambda x: x @ x.T,
        lambda x: nn.functional.gelu(x @ x.T[:, :16]),
        lambda x: nn.functional.layer_norm(x, x.shape[-1:]).softmax(-1),
        lambda x: torch.linalg.eigh(x @ x.T)[0],
        lambda x: nn.functional.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
    ]
    for rows, columns in ((16, 16), (64, 24), (33, 7), (200, 64)):
        for step in steps:
            sha.update(step(torch.randn(rows, columns, generator=generator)).contiguous().numpy().data)
    return sha.hexdigest()
