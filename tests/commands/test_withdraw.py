"""`symdistill withdraw` as a user runs it: on a run, on a file, and back."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from symdistill.commands.withdraw import withdraw
from symdistill.critic.certificate import Labelling, certify, freeze, ids_text
from symdistill.critic.kept_certificates import (
    keep_pool,
    read_certificates,
    void_outdated,
    write_certificate,
)
from symdistill.errors import InputError, RunError
from symdistill.history import find_line, history, newest_run, students_trained_on
from symdistill.labelling.store import LabelStore
from symdistill.ledger import Ledger
from symdistill.pool import LabelWord, Line, read_pool, withdrawn_ids
from symdistill.records import Item, Knowledge, Lineage, Verdict, View
from symdistill.tables import write_records

pytestmark = pytest.mark.unit

DOG = Item.make("concept", "dog")
LINES = [
    Knowledge.make("statement", text, DOG.id, lineage=(Lineage("w", "k", "p", "{}", 1, round),))
    for round, text in enumerate(("Dogs bark.", "Dogs <b>bite</b> \x1b[31mmen.", "Dogs sleep."))
]
BARK, BITE, SLEEP = LINES


def said(*command: object) -> str:
    """What the command prints; its errors are raised."""
    app = typer.Typer()
    app.command()(withdraw)
    done = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two students: the first two lines were kept in the rounds 0 and 1."""
    folder = tmp_path / "runs" / "demo"
    tables = folder / "tables"
    write_records(tables / "items.parquet", Item, [DOG])
    write_records(tables / "knowledge.parquet", Knowledge, LINES)
    kept = [(BARK, 0, 1.0), (BITE, 1, 1.0), (SLEEP, 2, 0.0)]
    words = [Verdict(line.id, "selection", score, round=round) for line, round, score in kept]
    write_records(tables / "verdicts.parquet", Verdict, words)
    views = [
        View("Dogs", line.text, 1.0, DOG.id, (line.id,), round)
        for line, round, score in kept
        if score
    ]
    write_records(tables / "views.parquet", View, views)
    marked = [Verdict(BITE.id, "screen", 0.0, reason="phrase: “bite”", round=1)]
    write_records(tables / "review.parquet", Verdict, marked)
    for number in (1, 2):
        (folder / "students" / str(number)).mkdir(parents=True)
    (folder / "config.yaml").write_text("recipe: i2d2\n")
    Ledger(folder / "ledger.sqlite").close()
    return folder


def issue(run: Path, *held: Knowledge) -> Path:
    """A certificate that holds these lines of the run; gives its path."""
    lines = [Line(str(n), n, f"other {n}", 1 / n) for n in range(1, 13)]
    frozen = freeze(lines, "", precision=[0.5], max_share=1.0, delta=0.5, labels=len(lines))
    labels: list[tuple[str, LabelWord]] = [(line.id, "valid") for line in lines]
    (found,) = certify(lines, frozen, labels, source="demo", labelling=Labelling())
    assert found.certified
    pool, ids = read_pool(run), tuple(sorted(one.id for one in held))
    keep_pool(pool)
    mark = hashlib.sha256(ids_text(ids).encode()).hexdigest()
    found = replace(found, pool_hash=pool.hash, line_ids=ids, line_ids_hash=mark, labels_hash=mark)
    return write_certificate(run, found)


def voided(run: Path) -> dict[str, str]:
    """Why certificates of the run were voided, by file name."""
    return {path.name: c.voided["why"] for path, c in read_certificates(run) if c.voided}


def test_a_line_is_marked_and_told_with_what_to_do(run: Path) -> None:
    told = said(BARK.id[:8], "--why", "  a dog\n lay  ", "--run", run)
    (entry,) = [json.loads(line) for line in (run / "withdrawn.jsonl").read_text().splitlines()]
    assert (entry["id"], entry["why"], entry["undone"]) == (BARK.id, "a dog lay", False)
    assert entry["at"].endswith("+00:00")
    assert "students/1" in told and "students/2" in told
    assert f"symdistill run {run}/config.yaml" in told
    assert "no certificate" in told
    assert [line.id for line in read_pool(run).lines] == [BITE.id]


def test_only_students_of_later_rounds_were_trained_on_it(run: Path) -> None:
    assert [one.name for one in students_trained_on(run, BARK.id)] == ["1", "2"]
    assert [one.name for one in students_trained_on(run, BITE.id)] == ["2"]
    assert students_trained_on(run, SLEEP.id) == []
    told = said(SLEEP.id, "--why", "no", "--run", run)
    assert "trained on" not in told and "config.yaml" not in told


def test_certificates_that_hold_the_line_are_voided_once(run: Path) -> None:
    both, other = issue(run, BARK, BITE), issue(run, BITE)
    told = said(BARK.id, "--why", "false", "--run", run)
    assert both.name in told and other.name not in told
    assert f"  symdistill plan {run} --precision 0.5 --max-share 1" in told
    assert voided(run) == {both.name: f"line {BARK.id} was withdrawn: false"}
    assert both.name not in said(BARK.id, "--why", "false", "--run", run)


def test_a_certificate_that_does_not_hold_the_line_goes_on_standing(run: Path) -> None:
    issue(run, BITE)
    assert "no certificate" in said(BARK.id, "--why", "false", "--run", run)
    assert void_outdated(run) == ([], [])
    said(BARK.id, "--undo", "--run", run)
    assert void_outdated(run) == ([], []) and not voided(run)


def test_certificates_are_voided_before_anything_else(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = issue(run, BARK)

    def killed(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("symdistill.commands.withdraw._record", killed)
    with pytest.raises(MemoryError):
        said(BARK.id, "--why", "false", "--run", run)
    assert list(voided(run)) == [held.name]


def test_a_certificate_that_cannot_be_read_does_not_save_the_others(run: Path) -> None:
    held, broken = issue(run, BARK), run / "certificates" / "0.json"
    broken.write_text("{")
    with pytest.raises(RunError, match=r"could not read .*0\.json; trust none"):
        said(BARK.id, "--why", "false", "--run", run)
    broken.unlink()
    assert list(voided(run)) == [held.name] and withdrawn_ids(run) == {BARK.id: "false"}


def test_a_withdrawal_that_was_cut_off_spoils_no_later_one(run: Path) -> None:
    (run / "withdrawn.jsonl").write_text('{"id": "ab')
    said(BARK.id, "--why", "false", "--run", run)
    assert withdrawn_ids(run) == {BARK.id: "false"}


def test_a_run_that_ends_voids_before_it_tells_and_though_nothing_is_kept(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from symdistill import recipes
    from symdistill.recipes.i2d2 import I2D2Config
    from symdistill.run import Run

    issue(run, BARK)

    def ended(*_: object) -> dict[str, object]:
        none = [Verdict(line.id, "selection", 0.0) for line in LINES]
        write_records(run / "tables" / "verdicts.parquet", Verdict, none)
        return {}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "recipe", lambda name: (I2D2Config, ended))
    monkeypatch.setattr(Run, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        recipes.run_recipe(I2D2Config(), run)
    assert len(voided(run)) == 1


def test_what_was_cut_off_before_voiding_is_made_up_for(run: Path) -> None:
    said(BARK.id, "--why", "false", "--run", run)
    late = issue(run, BARK, BITE)
    said(BARK.id, "--why", "false", "--run", run)
    assert list(voided(run)) == [late.name]
    assert len((run / "withdrawn.jsonl").read_text().splitlines()) == 1  # it was known already


def test_it_can_be_undone(run: Path) -> None:
    held = issue(run, BARK, BITE)
    said(BARK.id, "--why", "false", "--run", run)
    told = said(BARK.id[:6], "--undo", "--run", run)
    assert "`symdistill certify` makes another" in told and list(voided(run)) == [held.name]
    assert withdrawn_ids(run) == {}
    assert BARK.id in {line.id for line in read_pool(run).lines}
    with pytest.raises(InputError, match="a withdrawn line"):
        said(BARK.id, "--undo", "--run", run)
    said(BARK.id, "--why", "again", "--run", run)
    assert withdrawn_ids(run) == {BARK.id: "again"}


def test_its_history_says_so_and_why(run: Path) -> None:
    said(BITE.id, "--why", "<b>bites</b> \x1b[31m", "--run", run)
    stream = io.StringIO()
    Console(file=stream, width=200).print(history(run, BITE.id))
    told = stream.getvalue()
    assert "withdrawn" in told and "<b>bites</b>" in told and "\x1b" not in told
    assert "for review  phrase: “bite”" in told


def test_what_a_model_wrote_does_not_drive_the_terminal(run: Path) -> None:
    told = said(BITE.id, "--why", "it bites", "--run", run)
    assert "<b>bite</b>" in told and "\x1b" not in told


def test_a_line_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    file.write_text("said,topic\nDogs bark.,dog\nCats bark.,cat\n", encoding="utf-8")
    lines = read_pool(file, text="said").lines
    told = said(lines[1].id[:10], "--why", "false", "--file", file, "--text", "said")
    assert "Cats bark." in told and "students" not in told
    assert (tmp_path / "lines.csv.symdistill" / "withdrawn.jsonl").is_file()
    assert [line.text for line in read_pool(file, text="said").lines] == ["Dogs bark."]
    said(lines[1].id, "--undo", "--file", file)
    assert len(read_pool(file, text="said").lines) == 2


def test_a_line_of_a_file_is_named_by_its_row_or_its_text(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    file.write_text("text\nDogs bark.\nCats bark.\nDogs bark.\n", encoding="utf-8")
    assert "Cats bark." in said("--row", 2, "--why", "false", "--file", file)
    assert [line.text for line in read_pool(file).lines] == ["Dogs bark."] * 2
    said("Cats bark.", "--undo", "--file", file)
    said("Cats bark.", "--why", "false", "--file", file)
    said("--row", 2, "--undo", "--file", file)
    assert len(read_pool(file).lines) == 3
    for words, message in (
        (("Dogs bark.", "--why", "x"), "rows 1 and 3 of .* hold this text; give --row N"),
        (("--row", 4, "--why", "x"), "row 4 holds none"),
        (("abc", "--row", 1, "--why", "x"), "got both"),
        (("--why", "x"), "got neither"),
    ):
        with pytest.raises(InputError, match=message):
            said(*words, "--file", file)


def test_labels_that_a_withdrawal_costs_are_told(tmp_path: Path) -> None:
    from symdistill.commands.plan import plan

    file = tmp_path / "lines.csv"
    file.write_text("text,score\n" + "".join(f"Line {n}.,{n}\n" for n in range(100)))
    plan(file, [0.5], score="score", max_share=0.5, labels=20, freeze=True)
    with LabelStore(tmp_path / "lines.csv.symdistill") as store:
        (draw,) = store.draws()
        store.answer(draw.id, draw.items[0].line_id, "ann", "valid")
    told = said("--row", 1, "--why", "false", "--file", file)
    assert "its labels no longer count (1)" in told


def test_ids_of_a_file_may_come_from_a_column(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    rows = [{"n": "a", "text": "x"}, {"n": "ab", "text": "y"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said("a", "--why", "no", "--file", file, "--id", "n")  # it also begins another
    assert withdrawn_ids(tmp_path / "lines.jsonl.symdistill") == {"a": "no"}


def test_the_newest_run_is_meant_where_none_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert newest_run() == Path("runs/demo")
    said(BARK.id, "--why", "no")
    assert withdrawn_ids(run) == {BARK.id: "no"}
    monkeypatch.chdir(run)
    with pytest.raises(InputError, match="expected a run under runs/"):
        said(BARK.id, "--why", "no")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["0000", "--why", "x", "--run", "RUN"], "found none that begins with '0000'"),
        (["", "--why", "x", "--run", "RUN"], "expected the id of a line"),
        ([BARK.id, "--run", "RUN"], "give --why TEXT"),
        ([BARK.id, "--why", "  ", "--run", "RUN"], "give --why TEXT"),
        ([BARK.id, "--why", "x", "--run", "RUN", "--file", "f.csv"], "expected --run or --file"),
        ([BARK.id, "--why", "x", "--run", "absent"], "expected a finished run"),
        ([BARK.id, "--why", "x", "--file", "absent.csv"], "absent.csv"),
        ([BARK.id, "--undo", "--run", "RUN"], "a withdrawn line"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    run: Path, command: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        said(*[str(run) if word == "RUN" else word for word in command])
    assert not (run / "withdrawn.jsonl").exists()


def test_several_lines_that_begin_so(run: Path) -> None:
    alike = [
        Knowledge("ab12", DOG.id, "statement", "x"),
        Knowledge("ab34", DOG.id, "statement", "y"),
    ]
    write_records(run / "tables" / "knowledge.parquet", Knowledge, alike)
    with pytest.raises(InputError, match="several ids begin with 'ab'"):
        find_line(run, "ab")
    assert find_line(run, "ab3") == ("ab34", "y")


def test_a_list_that_cannot_be_read(run: Path) -> None:
    (run / "withdrawn.jsonl").mkdir()
    with pytest.raises(InputError, match=r"list of withdrawn lines at .*withdrawn\.jsonl"):
        said(BARK.id, "--why", "x", "--run", run)
