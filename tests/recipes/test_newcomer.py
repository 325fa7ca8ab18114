"""A newcomer's path: lines of one's own with a score, a few labels, and a certificate.

The lines are sums, so whether one is true can be read off it. Labels are filled in by a program, as
a person would with a spreadsheet.
"""

from __future__ import annotations

import csv
import json
import random
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from tests.recipes.command_line import Done, symdistill

from symdistill.datafiles import write_rows

pytestmark = pytest.mark.world

README = Path(__file__).parents[2] / "README.md"
ASKED = ("--score", "score", "--precision", "0.8")
BEST = 0.6  # of the lines are drawn from
LABELS = 250


def is_true(text: str) -> bool:
    one, other, made = map(int, re.findall(r"\d+", text))
    return one + other == made


def write_lines(place: Path, *, auc: float, lines: int = 1000) -> list[dict[str, Any]]:
    """`lines.csv`: 45 % of the sums are right, and the score knows it as well as `auc` says."""
    rng = random.Random(1)
    distance = 2**0.5 * NormalDist().inv_cdf(auc)
    rows = []
    for number in range(lines):
        one, other = divmod(number, 40)
        right = rng.random() < 0.45
        made = one + other + (0 if right else rng.choice([-2, -1, 1, 2]))
        score = round(rng.gauss(distance if right else 0.0, 1.0), 6)
        rows.append({"text": f"{one} and {other} make {made}.", "score": score})
    write_rows(place / "lines.csv", rows)
    return rows


def fill_in(sheet: Path) -> int:
    """Label every row of an exported file; gives how many there are."""
    with sheet.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert not any("score" in row for row in rows)
    write_rows(sheet, [{**row, "label": "yes" if is_true(row["text"]) else "no"} for row in rows])
    return len(rows)


def done(place: Path, *command: str, code: int = 0) -> Done:
    ended = symdistill(place, *command)
    assert ended.code == code, ended.said
    assert "Traceback" not in ended.err
    return ended


def labelled_column(place: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Label lines drawn at random from the best ones in the user's own table."""
    best = sorted(rows, key=lambda row: -row["score"])[: round(BEST * len(rows))]
    for row in random.Random(2).sample(best, LABELS):
        row["human"] = "valid" if is_true(row["text"]) else "invalid"
    write_rows(place / "lines.csv", rows)


def certified_texts(place: Path) -> list[str]:
    """The lines whose ids lie beside the certificate."""
    from symdistill.critic.kept_certificates import read_certificates
    from symdistill.pool import read_pool

    pool = read_pool(place / "lines.csv", score="score")
    ((_, certificate),) = read_certificates(pool.home)
    assert certificate.kept == len(certificate.line_ids)
    return [line.text for line in pool.lines if certificate.holds(line.id)]


def test_from_a_csv_to_a_certificate(tmp_path: Path) -> None:
    write_lines(tmp_path, auc=0.9)
    planned = done(tmp_path, "plan", "lines.csv", *ASKED, "--auc", "0.9").said
    assert "1,000 lines" in planned and "80 % chance" in planned
    size = ("--labels", str(LABELS), "--max-share", str(BEST))
    frozen = done(tmp_path, "plan", "lines.csv", *ASKED, *size, "--freeze").said
    assert "250 drawn at random from the best 600" in frozen

    early = done(tmp_path, "certify", "lines.csv", code=2)
    assert "labels" in early.err
    done(tmp_path, "label", "lines.csv", "--export", "sheet.csv")
    assert fill_in(tmp_path / "sheet.csv") == LABELS
    taken = done(tmp_path, "label", "lines.csv", "--import", "sheet.csv", "--annotator", "Ada").said
    assert "Ada: 250 of 250" in taken

    told = done(tmp_path, "certify", "lines.csv", "--score", "score").said
    kept = certified_texts(tmp_path)
    assert f"Of these {len(kept):,} frozen lines" in told
    assert 'at least 80 % would be marked valid by this labelling procedure (by "Ada"' in told
    assert "errs in at most 5 % of its uses" in told
    assert sum(map(is_true, kept)) >= 0.8 * len(kept) and len(kept) > 200

    write_rows(tmp_path / "kept.csv", [{"text": text} for text in kept])
    done(tmp_path, "audit", "kept.csv", "--n", "100", "--export", "audit.csv")
    fill_in(tmp_path / "audit.csv")
    audited = done(tmp_path, "audit", "kept.csv", "--import", "audit.csv").said
    assert f"Of these {len(kept)} lines an estimated" in audited
    found = json.loads(done(tmp_path, "audit", "kept.csv", "--json").out)
    assert found["low"] <= sum(map(is_true, kept)) / len(kept) <= found["high"]


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    rows = write_lines(tmp_path, auc=0.9, lines=200)
    size = ("--labels", "50", "--max-share", "0.5")
    done(tmp_path, "plan", "lines.csv", *ASKED, *size, "--freeze")
    done(tmp_path, "label", "lines.csv", "--export", "sheet.csv")
    fill_in(tmp_path / "sheet.csv")
    done(tmp_path, "label", "lines.csv", "--import", "sheet.csv")
    write_rows(tmp_path / "lines.csv", rows[1:])
    assert "1 line was removed" in done(tmp_path, "certify", "lines.csv", code=2).err


def test_labels_in_a_column_of_the_table(tmp_path: Path) -> None:
    labelled_column(tmp_path, write_lines(tmp_path, auc=0.9))
    asked = ("certify", "lines.csv", *ASKED, "--label", "human", "--max-share", str(BEST))
    found = json.loads(done(tmp_path, *asked, "--json").out)
    assert found["certified"] is True and found["precision_target"] == 0.8
    assert found["labels_used"] == LABELS and found["kept"] > 200
    assert f"Of these {found['kept']:,} frozen lines" in found["sentence"]
    kept = certified_texts(tmp_path)
    assert len(kept) == found["kept"] and sum(map(is_true, kept)) >= 0.8 * len(kept)
    assert found["sentence"] in done(tmp_path, *asked).said


def test_a_useless_score_ends_with_4(tmp_path: Path) -> None:
    labelled_column(tmp_path, write_lines(tmp_path, auc=0.5))
    asked = ("certify", "lines.csv", *ASKED, "--label", "human", "--max-share", str(BEST))
    ended = done(tmp_path, *asked, "--json", code=4)
    found = json.loads(ended.out)
    assert found["certified"] is False and found["kept"] == 0
    assert "Nothing is certified" in found["sentence"]
    assert "not certified at precision 0.8" in done(tmp_path, *asked, code=4).said


def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    """One after another as they stand; labels are filled in where the page says so."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (shown,) = (block for block in blocks if "symdistill plan" in block)
    lines = [line[2:].split("#")[0] for line in shown.splitlines() if line.startswith("$ ")]
    write_lines(tmp_path, auc=0.9)
    told = ""
    for name, *words in map(shlex.split, lines):
        assert name == "symdistill"
        told = done(tmp_path, *words).said
        if "--export" in words:
            fill_in(tmp_path / words[words.index("--export") + 1])
    assert "certified: " in told and "frozen lines" in told
