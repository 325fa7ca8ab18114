"""People label lines: what is drawn, what they say of it, and how far they agree.

    lines -> draw -> page, terminal or file -> store -> certificate, audit, critic

`store` keeps draws and answers and loses none; `draw` makes draws; `formats` reads and writes
answers as files of this and other tools; `agreement` says how far people agree with each other and
with themselves; `page` and `terminal` ask for answers.

Lines for a certificate or an audit are drawn at random and shown blind to their scores. Lines for
training may be drawn in any way; no line is drawn for both.
"""

from __future__ import annotations

from symdistill.labelling.store import Draw, Given, LabelStore, Purpose, Shown

__all__ = ["Draw", "Given", "LabelStore", "Purpose", "Shown"]
