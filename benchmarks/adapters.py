"""Memory and disk of a node whose large teacher learns by adapters only.

    python benchmarks/adapters.py OUT [--layers 16] [--rank 8] [--precision bf16]

The teacher is a random Llama, 1,536 wide, with the tokens of MiniLM-L6; the student, apart from it, the first three
layers of MiniLM-L6. Two nodes take turns in one process: two rounds of one step of 4 tweets.
"""

import argparse
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from common import in_one_process

from fedkd_flwr.live.channel import listening
from fedkd_flwr.live.events import Answered, Event, Joined, Working
from fedkd_flwr.models.hub import load_tokenizer

SETTINGS = {
    "model.architecture": "separate",
    "model.student": "minilm-l6",
    "data.dataset": "tweets",
    "data.partition": "iid",
    "num-rounds": 2,
    "federation.evaluate-every": 2,
    "train.local-steps": 1,
    "train.batch-size": 4,
    "model.max-length": 32,
    "data.max-test-examples": 4,
    "run.threads": 1,
}


def llama(folder: Path, layers: int) -> int:
    """Write the teacher as bf16; how many numbers it has."""
    from transformers import LlamaConfig, LlamaModel

    tokenizer = load_tokenizer("minilm-l6")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=1536,
        intermediate_size=6144,
        num_hidden_layers=layers,
        num_attention_heads=16,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaModel(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def federate(out: Path, settings: dict[str, object]) -> dict[str, int]:
    """Bytes by what they are."""
    from fedkd_flwr.simulation import run_federation

    torch.set_num_threads(1)
    places = {"run.runs-dir": str(out / "runs"), "run.name": "adapters", "run.state-dir": str(out / "state")}
    peaks: dict[str, int] = {}

    work = ""

    def watch(event: Event) -> None:
        nonlocal work
        if isinstance(event, Working):
            work = event.work
        elif isinstance(event, Joined | Answered):
            peaks[f"memory, at most, up to and with {work}"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            peaks["memory, after the last message"] = (
                int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
            )

    with listening(watch):
        run_federation(in_one_process(SETTINGS | settings | places, nodes=2))
    (node,) = (out / "state").glob("*/partition-0")
    return {
        **peaks,
        "disk, private tensors": _size(node, "0*/private.safetensors"),
        "disk, moments": _size(node, "0*/moments.safetensors"),
        "disk, teacher/": _size(node, "teacher/*"),
    }


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--precision", default="bf16")
    arguments = parser.parse_args()
    teacher = arguments.out / f"llama-{arguments.layers}"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        numbers = pool.submit(llama, teacher, arguments.layers).result()
    settings = {
        "model.teacher": str(teacher),
        "model.lora-rank": arguments.rank,
        "run.precision": arguments.precision,
    }
    print(f"a teacher of {numbers:,} numbers, rank {arguments.rank}, {arguments.precision}")
    for what, size in federate(arguments.out, settings).items():
        print(f"{what:44}{size / 1e9:8.3f} GB")


if __name__ == "__main__":
    main()
