import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from fedkd_flwr.cli.installed_app import installed_app
from fedkd_flwr.cli.run_arguments import gather, gather_for_check, parse_overrides, resume_command
from fedkd_flwr.errors import ConfigError, StateError
from fedkd_flwr.privacy.approved import app_hash
from fedkd_flwr.tracking.past_run import FORMAT

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_overrides_are_toml_values() -> None:
    text = """a=1 b=2.5 c=true d="x y=z" e='q "r"'  f=1e-3"""
    assert parse_overrides(text) == {"a": 1, "b": 2.5, "c": True, "d": "x y=z", "e": 'q "r"', "f": 1e-3}


def test_overrides_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('seed = 3\nteacher = "x"\n')
    assert parse_overrides("mine.toml") == {"seed": 3, "teacher": "x"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num-rounds", "'num-rounds' is not key=value"),
        ("seed = 3", "is not key=value"),
        ("seed=3 rounds", "'rounds' is not key=value"),
        ("model.teacher=bert", "strings need double quotes"),
        ("seed=1 seed=2", "is not TOML"),
        ("missing.toml", "cannot be read"),
    ],
)
def test_bad_overrides(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_overrides(text)


def test_later_overrides_win(tmp_path: Path) -> None:
    first = gather(REPOSITORY, ["seed=3", "seed=4 num-rounds=2"])
    assert (first.config.seed, first.config.num_rounds) == (4, 2)
    assert first.folder == tmp_path / "runs" / first.config.run.name
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}-[0-9a-f]{6}", first.config.run.name)


def test_without_a_folder_the_app_is_the_installed_one(tmp_path: Path) -> None:
    """Its doors and its config are those of the repository."""
    name = 'run.name="a"'
    assert gather(None, [name]) == gather(REPOSITORY, [name])
    with installed_app() as app:
        assert gather(app, [name]) == gather(None, [name])
        assert re.fullmatch("[0-9a-f]{64}", app_hash(app))
    assert not app.exists()
    command = shlex.split(resume_command(None, tmp_path / "runs" / "a"))
    assert command == ["fedkd", "run", "--resume", str(tmp_path / "runs" / "a")]


def test_what_a_method_fixes_is_refused_also_where_it_is_the_default_of_others() -> None:
    """Flower's own run config does not tell a default from what a user has typed; a command line does."""
    words = "run-config: model.architecture is 'nested' but method 'fedkd-paper' fixes it to 'separate': leave it out"
    with pytest.raises(ConfigError, match=words):
        gather(REPOSITORY, ['method="fedkd-paper" model.architecture="nested"'])
    assert gather(REPOSITORY, ['method="fedkd-paper" model.architecture="separate"']).config.codec.bits == 32


EXAMPLES = {path.parent.name: path for path in sorted(REPOSITORY.glob("examples/*/config.toml"))}


@pytest.mark.parametrize("method", ["fedkd", "fml", "fedavg", "fedavg-student", "local"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_methods_are_compared_with_one_switch(example: str, method: str) -> None:
    config = gather(REPOSITORY, [str(EXAMPLES[example]), f'method="{method}"']).config
    assert config.method == method


def test_runs_of_the_same_second_have_names_of_their_own() -> None:
    """Though neither has made its folder when the other is named."""
    assert len({gather(REPOSITORY, []).folder for _ in range(20)}) == 20


def test_for_a_check_wrong_keys_are_told_and_left_as_the_app_has_them(tmp_path: Path) -> None:
    config, mistakes = gather_for_check(
        REPOSITORY, ['num-rounds=0 sead=1 data.dataset="csv:a.csv"', "train.batch-size=3"]
    )
    assert config is not None
    assert (config.data.dataset, config.train.batch_size) == (f"csv:{tmp_path}/a.csv", 3)
    assert config.num_rounds == gather(REPOSITORY, []).config.num_rounds
    assert len(mistakes) == 2
    assert gather_for_check(REPOSITORY, ["seed=3"])[1] == []


def test_for_a_check_keys_that_do_not_fit_together_leave_no_config() -> None:
    config, mistakes = gather_for_check(REPOSITORY, ["model.shared-layers=1"])
    assert config is None
    assert len(mistakes) == 1 and "model.shared-layers is 1" in mistakes[0]


def test_relative_paths_are_the_users(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    config = gather(
        REPOSITORY,
        [
            'data.dataset="csv:data/a.csv" data.server-test-data="json:t.json" run.state-dir="s" model.teacher="bert"',
            'model.student="org/name" model.architecture="separate"',
        ],
    ).config
    assert config.data.dataset == f"csv:{tmp_path}/data/a.csv"
    assert config.data.server_test_data == f"json:{tmp_path}/t.json"
    assert (config.run.runs_dir, config.run.state_dir) == (f"{tmp_path}/runs", f"{tmp_path}/s")
    assert (config.model.teacher, config.model.student) == (f"{tmp_path}/bert", "org/name")
    assert gather(REPOSITORY, ['data.dataset="csv:/data/a.csv"']).config.data.dataset == "csv:/data/a.csv"


def past_run(folder: Path, finished: bool = False, done: int = 1, **changes: object) -> Path:
    """A run of three rounds, `done` of them finished, shared out among four nodes."""
    config = gather(REPOSITORY, ["num-rounds=3 seed=7", f'run.name="{folder.name}"']).config.as_run_config() | changes
    lineage = 16 * "0"
    state = {"format": FORMAT, "lineage": lineage, "round": done, "partitions": 4, "taken": {"partition-0": 1}}
    (folder / "checkpoints" / "00000001").mkdir(parents=True)
    (folder / "checkpoints" / "00000001" / "state.json").write_text(json.dumps(state))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "history.json").write_text(json.dumps({"finished": finished, "rounds": [{}] * done}))
    (Path(str(config["run.state-dir"])) / lineage / "partition-0").mkdir(parents=True, exist_ok=True)
    return folder


def test_of_several_teachers_and_saved_data_sets_the_folders_are_the_users(tmp_path: Path) -> None:
    for folder in ("large", "reviews"):
        (tmp_path / folder).mkdir()
    config = gather(REPOSITORY, ['model.teachers="minilm-l6, large,org/name" data.dataset="hf:reviews"']).config
    assert config.model.teacher_names == ("minilm-l6", str(tmp_path / "large"), "org/name")
    assert config.data.dataset == f"hf:{tmp_path / 'reviews'}"
    assert gather(REPOSITORY, ['data.dataset="hf:org/name:en"']).config.data.dataset == "hf:org/name:en"
    assert gather(REPOSITORY, []).config.model.teachers == ""


def test_resume_takes_the_runs_config_and_lets_overrides_apply(tmp_path: Path) -> None:
    past_run(tmp_path / "runs" / "old")
    for overrides, resume in ((["num-rounds=8"], Path("runs/old")), (['num-rounds=8 run.resume="runs/old"'], None)):
        arguments = gather(REPOSITORY, overrides, resume)
        assert (arguments.config.seed, arguments.config.num_rounds, arguments.nodes) == (7, 8, 4)
        assert arguments.config.run.resume == str(arguments.folder) == f"{tmp_path}/runs/old"


def test_what_changes_nothing_may_be_said_again(tmp_path: Path) -> None:
    past_run(tmp_path / "runs" / "old")
    said = ['run.name="old" run.runs-dir="runs" num-rounds=3']
    assert gather(REPOSITORY, said, Path("runs/old"), 4) == gather(REPOSITORY, [], Path("runs/old"))


@pytest.mark.parametrize(
    ("overrides", "nodes", "words"),
    [
        ("train.learning-rate=0.1", None, "train.learning-rate was 0.0005, is 0.1"),
        ('run.name="new"', None, "run.name changes nothing where a run is resumed"),
        ('run.resume="runs/another"', None, "but run-config key 'run.resume' is 'runs/another'"),
        ('run.runs-dir="elsewhere"', None, "run.runs-dir changes nothing where a run is resumed"),
        ('run.state-dir="elsewhere"', None, "elsewhere has nothing of"),
        ("num-rounds=1", None, "'num-rounds' is 1 but"),
        ("", 5, "--nodes is 5 but"),
    ],
)
def test_resume_refuses_what_makes_another_run_or_no_difference(
    tmp_path: Path, overrides: str, nodes: int | None, words: str
) -> None:
    folder = past_run(tmp_path / "runs" / "old", done=2)
    with pytest.raises(ConfigError, match=re.escape(words)):
        gather(REPOSITORY, [overrides], folder, nodes)


def test_a_finished_run_can_only_be_lengthened(tmp_path: Path) -> None:
    folder = past_run(tmp_path / "runs" / "old", finished=True, done=3)
    with pytest.raises(ConfigError, match=r"old is finished, after round 3.* set num-rounds to more than 3"):
        gather(REPOSITORY, [], folder)
    assert gather(REPOSITORY, ["num-rounds=4"], folder).config.num_rounds == 4


def test_a_run_of_another_version_cannot_be_resumed(tmp_path: Path) -> None:
    folder = past_run(tmp_path / "runs" / "old", **{"a-key-of-then": 1})
    (state,) = folder.glob("checkpoints/*/state.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"format": FORMAT - 1}))
    with pytest.raises(StateError, match=rf"has format {FORMAT - 1}, this version reads {FORMAT}"):
        gather(REPOSITORY, [], folder)
    with pytest.raises(StateError, match=r"config.json is not one of this version \(.*'a-key-of-then' is unknown"):
        gather(REPOSITORY, [], past_run(tmp_path / "runs" / "older", **{"a-key-of-then": 1}))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "holds no run to resume: .*No such file"),
        ("config.json", "{", "holds no run to resume: .*is not JSON"),
        ("config.json", "[]", "holds no run to resume: .*no keys and values"),
        ("checkpoints/00000001/state.json", "{", "is damaged, remove it"),
        ("checkpoints/00000001/state.json", f'{{"format": {FORMAT}}}', "is damaged .*: remove it"),
        ("checkpoints", None, "has no checkpoint to go on from: start a new run"),
    ],
)
def test_resume_of_what_is_no_run(tmp_path: Path, file: str, content: str | None, words: str) -> None:
    path = past_run(tmp_path / "old") / file
    if content is not None:
        path.write_text(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(StateError, match=rf"{tmp_path}/old.* {words}"):
        gather(REPOSITORY, [], tmp_path / "old")


def test_a_taken_run_name_comes_with_a_way_to_go_on_where_there_is_one(tmp_path: Path) -> None:
    past_run(tmp_path / "runs" / "stopped")
    past_run(tmp_path / "runs" / "over", finished=True, done=3)
    (tmp_path / "runs" / "mine").mkdir()
    command = f"fedkd run {REPOSITORY} --resume {tmp_path}/runs/stopped"
    for name, hint in (("stopped", f", or continue that run with: {command}"), ("over", ""), ("mine", "")):
        with pytest.raises(ConfigError, match=rf"^run.name '{name}' is taken: choose another{re.escape(hint)}$"):
            gather(REPOSITORY, [f'run.name="{name}"'])


def test_commands_to_resume_can_be_pasted() -> None:
    command = resume_command(Path("/my apps/fedkd"), Path("/r/it's"), "--cpus-per-node", "2")
    assert shlex.split(command) == [
        "fedkd", "run", "/my apps/fedkd", "--resume", "/r/it's", "--cpus-per-node", "2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"), [(None, "is no Flower app"), ("[", "is not TOML"), ("a = 1", "no \\[tool.flwr.app.config\\]")]
)
def test_folder_that_is_no_app(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content)
    with pytest.raises(ConfigError, match=words):
        gather(tmp_path, [])
