"""A critic's folder is replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from symdistill.critic import EncoderCritic, card
from symdistill.critic.forms import Form

pytestmark = pytest.mark.unit


class Named:
    """Stands in for a critic: saves its version."""

    def __init__(self, version: str) -> None:
        self.version = version

    def save(self, folder: Path) -> None:
        (folder / "critic.json").write_text(self.version)


def save(target: Path, version: str) -> None:
    card.save_critic(
        target, cast(EncoderCritic, Named(version)), Form.of({}), {}, texts=["a"], ids=["x"]
    )


@pytest.mark.parametrize("killed_at", [0, 1])
def test_killed_at_any_moment_a_critic_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(card, "write_card", lambda folder, report: None)
    save(tmp_path / "critic", "old")
    steps = iter(range(9))
    replace = os.replace

    def replace_or_die(*paths: Any) -> None:
        if next(steps) == killed_at:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "replace", replace_or_die)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "critic", "new")
    left = {path.parent.name: path.read_text() for path in tmp_path.glob("*/critic.json")}
    assert list(left.values()) == ["old"]
    monkeypatch.setattr(os, "replace", replace)
    save(tmp_path / "critic", "newest")
    assert (tmp_path / "critic" / "critic.json").read_text() == "newest"


def test_nothing_is_left_beside_a_new_critic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "write_card", lambda folder, report: None)
    for version in ("one", "two"):
        save(tmp_path / "critic", version)
    assert [path.name for path in tmp_path.iterdir()] == ["critic"]
