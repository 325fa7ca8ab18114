"""`critic fit` and `critic score`: from a user's table to a critic, and to the table with scores.

A tiny random BERT, made here, stands in for an encoder.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from symdistill.commands import critic
from symdistill.critic import EncoderCritic
from symdistill.errors import InputError
from symdistill.labelling.store import Draw, LabelStore, Shown
from symdistill.pool import home_of, read_pool

pytestmark = pytest.mark.unit

NOUNS = [f"noun{i}" for i in range(24)]
GOOD, BAD = ["fly", "swim", "grow"], ["melt", "rust", "explode"]
Call = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = [*NOUNS, *GOOD, *BAD, "can", "?", "."]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={w: i for i, w in enumerate(vocab)}).save_pretrained(folder)
    return folder


@pytest.fixture
def call(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in this process; gives what it printed, or raises what went wrong."""
    monkeypatch.setattr(critic, "_prepare_torch", lambda: None)

    def run(command: str, *arguments: str | Path) -> str:
        quick = ["--encoder", str(encoder), "--learning-rate", "0.003", "--epochs", "8"]
        words = [command, *map(str, arguments), *(quick if command == "fit" else [])]
        done = CliRunner().invoke(critic.app, words)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run


def table() -> list[dict[str, Any]]:
    return [
        {
            "text": f"{noun} can {verb} .",
            "concept": noun,
            "ok": "yes" if verb in GOOD else "no",
            "q": f"can {noun} ?",
            "note": f"<b>{i}</b>",
        }
        for i, noun in enumerate(NOUNS)
        for verb in GOOD + BAD
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            out = csv.DictWriter(stream, list(rows[0]))
            out.writeheader()
            out.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_from_labels_to_scores(call: Call, tmp_path: Path) -> None:
    rows = table()
    rows[0]["ok"] = ""
    rows[1]["ok"] = "?"
    lines = write(tmp_path / "lines.csv", [{**row, "empty": ""} for row in rows])
    said = call("fit", lines, "--label", "ok", "--group", "concept", "--seeds", "1,2")
    folder = home_of(lines) / "critic"
    assert "142 labelled lines" in said and "Rows left out: 1 without a label, 1 unsure." in said
    assert "AUC of TF-IDF" in said and "(2); the first is kept" in said
    assert f"Wrote {folder}" in said

    assert "the critic's lead in AUC is" in said

    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert report["test"]["auc"]["value"] > 0.9
    assert report["parts"]["train"]["groups"] + report["parts"]["test"]["groups"] < 24
    card = (folder / "README.md").read_text("utf-8")
    assert "| test |" in card and "taken as given" in card and report["version"] in card

    assert "144 of 144 lines have a score, in the column score." in call("score", lines)
    scored = read(tmp_path / "lines.scored.csv")
    assert [{k: v for k, v in row.items() if k not in ("score", "empty")} for row in scored] == rows
    assert "empty" in scored[0]
    right = [(float(row["score"]) > 0.5) == (row["text"].split()[2] in GOOD) for row in scored]
    assert sum(right) / len(right) > 0.9
    again = EncoderCritic.load(folder).score([row["text"] for row in rows])
    assert [float(row["score"]) for row in scored] == again.tolist()
    with pytest.raises(InputError, match="has 'score' already"):
        call("score", tmp_path / "lines.scored.csv", "--critic", folder)


def test_questions_numbers_and_no_groups(call: Call, tmp_path: Path) -> None:
    rows = [{**row, "p": i % 7} for i, row in enumerate(table())]
    lines = write(tmp_path / "lines.jsonl", rows)
    said = call("fit", lines, "--label", "ok", "--question", "q", "--number", "p",
                "--trainable", "top", "--out", tmp_path / "c")  # fmt: skip
    assert "every line is its own group" in said and "AUC of p alone" in said
    rows[3] |= {"q": "", "text": "\u202e<script>مرحبا"}
    rows[4] |= {"p": None}
    rows[5] |= {"text": "\u202e<script>مرحبا \x1b[31m"}
    other = write(tmp_path / "other.jsonl", rows)
    with other.open("a", encoding="utf-8") as stream:
        stream.write("{broken\n")
    said = call("score", other, "--critic", tmp_path / "c", "--out", tmp_path / "o.jsonl",
                "--column", "valid")  # fmt: skip
    assert (
        "142 of 144 lines have a score, in the column valid." in said
        and "Lines without one: 2;" in said
    )
    assert "Rows left out: 1 that could not be read; the first is not JSON." in said
    scored = read(tmp_path / "o.jsonl")
    assert scored[3]["valid"] is None and 0 < scored[5]["valid"] < 1
    assert scored[5]["text"] == rows[5]["text"]


def test_labels_of_the_store(call: Call, tmp_path: Path) -> None:
    lines = write(tmp_path / "lines.jsonl", [{**row, "ok": None} for row in table()])
    with pytest.raises(InputError, match="none that were drawn for training"):
        call("fit", lines)
    pool = read_pool(lines)
    items = tuple(Shown(one.id, one.text) for one in pool.lines[:120])
    with LabelStore(pool.home) as store:
        store.add_draw(Draw("d", "train", "2026-01-01T00:00:00Z", 0, pool.hash, {}, items))
        for item in items:
            word = "valid" if item.text.split()[2] in GOOD else "invalid"
            store.answer("d", item.line_id, "ann", word)
    assert "120 labelled lines" in call("fit", lines, "--group", "concept")
    with pytest.raises(InputError, match="none of the 120 is there"):
        call("fit", lines, "--question", "q")


def test_what_it_learnt_from_is_told_of_the_scores(call: Call, tmp_path: Path) -> None:
    """Every labelled line, unsure ones too, by whatever ids the scored table is read."""
    rows = [{**row, "key": f"k{i}"} for i, row in enumerate(table())]
    rows[0]["ok"] = "unsure"
    lines = write(tmp_path / "lines.csv", rows[:100])
    call("fit", lines, "--label", "ok", "--group", "concept", "--id", "key")
    folder = home_of(lines) / "critic"
    kept = json.loads((folder / "learnt.json").read_text("utf-8"))
    assert set(kept["ids"]) >= {one.id for one in read_pool(lines).lines}
    assert {f"k{i}" for i in range(100)} <= set(kept["ids"])

    other = write(tmp_path / "other.jsonl", [{**row, "ok": None} for row in rows[60:] + rows[:1]])
    said = call("score", other, "--critic", folder, "--id", "key", "--column", "s")
    assert "Lines that the critic learnt from: 41; a certificate" in said
    scored = tmp_path / "other.scored.jsonl"
    known = json.loads((home_of(scored) / "learnt.json").read_text("utf-8"))
    assert known["column"] == "s" and known["critic"] == kept["critic"]
    for key in (None, "key"):
        taught = {one.number for one in read_pool(scored, id=key).lines if one.id in known["ids"]}
        assert taught == {*range(1, 41), 85}
    assert not list(home_of(scored).glob("*.jsonl"))  # the table is in its place


def test_withdrawn_lines_are_neither_learnt_nor_scored(call: Call, tmp_path: Path) -> None:
    lines = write(tmp_path / "lines.jsonl", table())
    gone = [one.id for one in read_pool(lines).lines[:3]]
    home_of(lines).mkdir()
    write(home_of(lines) / "withdrawn.jsonl", [{"id": id, "why": "rude"} for id in gone])
    said = call("fit", lines, "--label", "ok", "--group", "concept")
    assert "141 labelled lines" in said and "3 withdrawn" in said
    said = call("score", lines)
    assert "141 of 144 lines" in said and "Withdrawn lines: 3; they stay" in said
    assert "Lines without one" not in said
    scored = tmp_path / "lines.scored.jsonl"
    assert [row["score"] for row in read(scored)[:3]] == [None] * 3
    assert len(read_pool(scored, score="score").ranked()) == 141


def test_the_learning_curve_is_told(call: Call, tmp_path: Path) -> None:
    lines = write(tmp_path / "lines.jsonl", table())
    said = call("fit", lines, "--label", "ok", "--group", "concept", "--curve")
    assert "AUC by labels" in said and "more labels would" in said


def test_triples_are_worded_the_same_when_scored(call: Call, tmp_path: Path) -> None:
    words = tmp_path / "relations.yaml"
    words.write_text(
        "version: 1\nrelations:\n  can:\n    verbaliser: '{head} can {tail} .'\n"
        "    frame: '{head} can {tail}'\n",
        encoding="utf-8",
    )
    rows = [
        {"head": noun, "relation": "can", "tail": verb, "ok": str(verb in GOOD).lower()}
        for noun in NOUNS
        for verb in GOOD + BAD
    ]
    lines = write(tmp_path / "triples.csv", rows)
    call("fit", lines, "--label", "ok", "--head", "head", "--relations", words)
    words.unlink()  # the critic has them
    call("score", lines)
    scored = read(tmp_path / "triples.scored.csv")
    right = [(float(row["score"]) > 0.5) == (row["tail"] in GOOD) for row in scored]
    assert sum(right) / len(right) > 0.9
    other = write(tmp_path / "other.csv", [{**rows[0], "relation": "eats"}])
    with pytest.raises(InputError, match="got 'eats' on row 1"):
        call("score", other, "--critic", home_of(lines) / "critic")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--label", "okk"], "'okk'.*the nearest is 'ok'"),
        (["--label", "concept"], "got 'noun0' on row 1"),
        (["--label", "ok", "--text", "body"], "a column 'body'"),
        (["--label", "ok", "--seeds", "1,x"], "--seeds, e.g. 1,2,3; got '1,x'"),
        (["--label", "ok", "--trainable", "most"], "full, top or lora; got 'most'"),
        (["--label", "ok", "--form", "poem"], "got 'poem'"),
        (["--label", "ok", "--number", "note"], "without a number in note"),
        (["--label", "ok", "--out", "taken"], "taken holds other things"),
    ],
)
def test_bad_usage_is_one_sentence(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lines.csv", table())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "novel.txt").write_text("x")
    with pytest.raises(InputError, match=says) as told:
        call("fit", tmp_path / "lines.csv", *options)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "lines.csv.symdistill").exists()


@pytest.fixture
def run_folder(call: Call, encoder: Path, tmp_path: Path) -> Path:
    """A run whose newest critic reads two numbers a line."""
    rows = table()
    run = tmp_path / "run"
    for number, wide in (("9", False), ("10", True)):
        judge = EncoderCritic.fit(
            [row["text"] for row in rows], np.ones((144, 2)) if wide else None,
            [row["ok"] == "yes" for row in rows], [row["concept"] for row in rows],
            encoder=encoder, epochs=1,
        )  # fmt: skip
        judge.save(run / "critics" / number)
    labels = write(tmp_path / "labels.jsonl", rows[:5])
    (run / "config.yaml").write_text(f"model: embedded:x\ncritic:\n  labels: ['{labels}']\n")
    return run


def test_a_runs_own_critic_reads_the_likelihoods_of_the_rows(
    call: Call, run_folder: Path, tmp_path: Path
) -> None:
    rows = [{**row, "logprob": -3.0 - i, "tokens": 2} for i, row in enumerate(table())]
    rows[7]["logprob"] = None
    lines = write(tmp_path / "lines.jsonl", rows)
    said = call("score", lines, "--critic", run_folder)
    assert "143 of 144 lines have a score" in said and "learnt from: 5;" in said
    nats = np.array([[-3.5 / 2 + 0.25, -3.0], [-4.0 / 2, -4.0]])
    judge = EncoderCritic.load(run_folder / "critics" / "10")  # 10 is newer than 9
    found = [row["score"] for row in read(tmp_path / "lines.scored.jsonl")[:2]]
    assert found == pytest.approx(judge.score([row["text"] for row in rows[:2]], nats))

    plain = write(tmp_path / "plain.jsonl", table())
    with pytest.raises(InputError, match=r"no logprob and no tokens.*--likelihood embedded:x"):
        call("score", plain, "--critic", run_folder)
    assert critic._critic_folder(run_folder, None).name == "10"  # of `critic score RUN`


def test_what_a_critic_learnt_from_may_not_be_known(
    call: Call, run_folder: Path, tmp_path: Path
) -> None:
    lines = write(tmp_path / "lines.jsonl", table())
    (tmp_path / "labels.jsonl").unlink()
    said = call("score", lines, "--critic", run_folder / "critics" / "9")
    assert "is not kept with it: a certificate of this table must not use labels" in said
    with pytest.raises(InputError, match="learnt with 0 numbers a line"):
        call("score", lines, "--critic", run_folder / "critics" / "9", "--likelihood", "x")


def test_scores_and_numbers_that_are_all_alike_are_told(call: Call, tmp_path: Path) -> None:
    lines = write(tmp_path / "lines.jsonl", [{**row, "p": 1} for row in table()])
    said = call("fit", lines, "--label", "ok", "--group", "concept", "--number", "p")
    assert "All lines have the same p: it says nothing" in said
    same = write(tmp_path / "same.jsonl", [{"text": "noun1 can fly .", "p": 1}] * 3)
    said = call("score", same, "--critic", home_of(lines) / "critic")
    assert "All have the same score, " in said and "tells no line from another" in said
    assert "All have" not in call("score", lines)


def test_a_long_wait_is_told_once_its_length_is_known() -> None:
    said: list[str] = []
    times = iter([0.0, 1.0, 4.0, 8.0])
    step = critic.paced(lambda done: None, 50_000, said.append, clock=lambda: next(times))
    for _ in range(3):
        step(1000)
    assert said == ["About 500 lines a second: 1.6 min or more for the 48,000 lines left."]
    step = critic.paced(lambda done: None, 50, said.append, clock=iter([0.0, 4.0]).__next__)
    step(40)
    assert len(said) == 1


def test_warnings_of_the_libraries_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        critic._prepare_torch()
        warnings.warn_explicit("x", FutureWarning, "f.py", 1, module="transformers.modeling_utils")
        warnings.warn_explicit("y", FutureWarning, "f.py", 1, module="mine")
    assert [str(one.message) for one in caught] == ["y"]


def test_a_changed_critic_is_refused(call: Call, tmp_path: Path) -> None:
    lines = write(tmp_path / "lines.csv", table())
    with pytest.raises(InputError, match="expected a saved critic"):
        call("score", lines)
    call("fit", lines, "--label", "ok")
    folder = home_of(lines) / "critic"
    for name, old, new in (("form.json", '"text"', '"note"'), ("critic.json", "0.1", "0.2")):
        path = folder / name
        before = path.read_text("utf-8")
        path.write_text(before.replace(old, new, 1), "utf-8")
        with pytest.raises(InputError, match="changed after saving"):
            call("score", lines)
        path.write_text(before, "utf-8")
    with pytest.raises(InputError, match="another file to write"):
        call("score", lines, "--out", lines)
