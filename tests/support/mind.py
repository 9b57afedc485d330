"""Small folders in the format of MIND: the titles are tweets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_news(folder: Path, titles: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = (
        f"N{number}\tnews\tworld\t{' '.join(title.split())}\tno abstract\t\t[]\t[]"
        for number, title in enumerate(titles)
    )
    (folder / "news.tsv").write_text("\n".join(lines) + "\n")


def write_behaviors(folder: Path, lines: Sequence[str]) -> None:
    (folder / "behaviors.tsv").write_text("\n".join(lines) + "\n")


def line(number: int, user: str, history: Sequence[int], offered: Sequence[tuple[int, int]], minute: int = 0) -> str:
    clicked = " ".join(f"N{news}" for news in history)
    candidates = " ".join(f"N{news}-{click}" for news, click in offered)
    return f"{number}\t{user}\t11/15/2019 8:{minute:02}:22 AM\t{clicked}\t{candidates}"


def write_mind(folder: Path, titles: Sequence[str], users: int, each: int, seed: int) -> None:
    """So many impressions of so many users; every third user has not clicked anything before."""
    rng, lines = np.random.default_rng(seed), []
    for user in range(users):
        for number in range(each):
            size = 0 if user % 3 == 0 else int(rng.integers(1, 60))
            offered = rng.permutation(len(titles))[: int(rng.integers(2, 9))]
            clicks = 1 + (rng.permutation(len(offered)) == 0)
            if len(offered) > 4:
                clicks[rng.integers(len(offered))] = 2
            history = [int(news) for news in rng.integers(len(titles), size=size)]
            pairs = [(int(news), int(click) - 1) for news, click in zip(offered, clicks, strict=True)]
            lines.append(line(len(lines) + 1, f"U{user}", history, pairs, minute=number))
    write_news(folder, titles)
    write_behaviors(folder, lines)
