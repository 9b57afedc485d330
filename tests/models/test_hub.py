import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import WORDS, about, batch, build, save
from support.families import tiny_text_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fedkd_flwr.errors import ConfigError, ModelError
from fedkd_flwr.models.export import export, load_classifier
from fedkd_flwr.models.hub import load_tokenizer, read_config, reading

_REFUSED = r"cannot be read: it needs code of its own \(auto_map\), and no code of a checkpoint is ever run"
_SPM = r"its tokenizer is a SentencePiece model.*fedkd-flwr\[sentencepiece\]"
_CODE = "from pathlib import Path\nPath({place!r}).touch()\n"


class _OddError(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        AssertionError(), NotImplementedError("no"), IndexError("a\nb"), TypeError("odd"), StopIteration(),
        KeyError("key"), AttributeError(), ZeroDivisionError(), MemoryError(), RecursionError(), OSError("gone"),
        _OddError(),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_a_library_raises_is_one_line_about_the_model(error: Exception) -> None:
    with pytest.raises(ModelError, match=r"^model 'x' cannot be read: .+") as found, reading("x"):
        raise error
    assert "\n" not in str(found.value)
    assert type(error).__name__ in str(found.value) or str(error) in str(found.value)


def test_a_line_of_ours_stays_as_it_is() -> None:
    with pytest.raises(ConfigError, match=r"^mine$"), reading("x"):
        raise ConfigError("mine")


def test_code_of_a_checkpoint_is_never_run_and_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a family that `transformers` has the folder is read without its code, of another it is refused."""
    reference, ran = save(tiny_text_model("bert"), tmp_path), tmp_path / "ran"
    (tmp_path / "own.py").write_text(_CODE.format(place=str(ran)))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    _change(tmp_path / "config.json", auto_map={"AutoConfig": "own.C", "AutoModel": "own.M"})
    _change(
        tmp_path / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", None]}, tokenizer_class="OwnTokenizer"
    )
    load_tokenizer(reference)
    assert not hasattr(read_config(reference), "auto_map")
    build(reference)

    _change(tmp_path / "config.json", model_type="own")
    for read in (read_config, load_tokenizer):
        with pytest.raises(ModelError, match=_REFUSED) as error:
            read(reference)
        assert "\n" not in str(error.value)
    assert not ran.exists()


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("pooling", ["mean", "model", "none"])
def test_what_a_run_exports_is_a_checkpoint_of_another(pooling: str, tmp_path: Path) -> None:
    """Its folder carries our code, which is not run; another export of it does not point to code that it lacks."""
    reference = save(tiny_text_model("bert"), tmp_path / "first")
    first = build(reference).eval()
    export(first, load_tokenizer(reference), tmp_path / "exported", about())
    exported = str(tmp_path / "exported")
    again = build(exported, pooling=pooling).eval()
    inputs = batch(exported)
    for mine, theirs in zip(again.base_model.parameters(), first.base_model.parameters(), strict=False):
        assert torch.equal(mine, theirs)
    export(again, load_tokenizer(exported), tmp_path / "again", about())
    assert torch.equal(load_classifier(tmp_path / "again")(**inputs).logits, again(**inputs).logits)
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    for place in written.get("auto_map", {}).values():
        assert (tmp_path / "again" / f"{place.split('.')[0]}.py").exists()


def test_a_sentencepiece_file_alone_names_what_it_needs(tmp_path: Path) -> None:
    tiny_text_model("deberta-v2").save_pretrained(tmp_path)
    (tmp_path / "spm.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(ModelError, match=_SPM) as error:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.fixture
def without_padding(tmp_path: Path) -> Callable[..., str]:
    """A checkpoint of a family whose tokenizer has an end of text and no padding token."""

    def make(family: str, **changes: Any) -> str:
        words = {word: number for number, word in enumerate(["<end>", *WORDS[1:]])}
        backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="<end>").save_pretrained(
            tmp_path
        )
        tiny_text_model(family, pad_token_id=None, **changes).save_pretrained(tmp_path)
        return str(tmp_path)

    return make


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen3", "gemma3_text", "opt"])
def test_padding_of_a_decoder_without_a_token_for_it_changes_nothing(
    family: str, pooling: str, without_padding: Callable[..., str]
) -> None:
    reference = without_padding(family)
    tokenizer = load_tokenizer(reference)
    assert tokenizer.pad_token == "<end>"
    model = build(reference, num_layers=2, pooling=pooling).eval()
    ids = [[5, 6, 7, 8, 9, 10, 11], [6, 5]]
    padded = torch.tensor([ids[0], ids[1] + [tokenizer.pad_token_id] * 5])
    together = model(input_ids=padded, attention_mask=torch.tensor([[1] * 7, [1] * 2 + [0] * 5])).logits
    for row, tokens in enumerate(ids):
        torch.testing.assert_close(model(input_ids=torch.tensor([tokens])).logits[0], together[row])
