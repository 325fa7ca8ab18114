"""The labelling page: one line to a screen, answered by a key, in a browser on this machine.

Takes a `LabelStore` and the ids of its draws; gives a web application (FastAPI, HTML made on the
server), and serves it. Every answer is one request and is on disk before the next line is shown, so
a killed server loses none and goes on where it was when it is started again. Scores are not in a
draw, so they cannot be shown.

Who may use it: only this machine (a loopback address, and a `Host` header that says so, against
rebound names), and only with the token in the printed address. The token is taken once: a cookie
that scripts cannot read and other sites cannot send stands for it from then on, so the token does
not stay in the address bar, where it would be seen over a shoulder or on a shared screen. Every
form carries a value made for that cookie, and a request from another origin is refused. It is no
protection against other programs of the same user, who can read the labels anyway.

Without JavaScript everything works; with it, keys answer and the next line comes without a page
load. It draws no lines and decides nothing: see `draw` and `store`.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the functions below
# while they are made, and could not find the names imported beside them.

import contextlib
import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
import threading
import time
import webbrowser
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from symdistill.errors import InputError, SymdistillError
from symdistill.labelling.agreement import agreement, told
from symdistill.labelling.instructions import packaged_instructions, question_of
from symdistill.labelling.store import Draw, LabelStore, Shown, answers_to, name_of
from symdistill.records import content_hash
from symdistill.visible import visible

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

LONGEST_NAME = 60  # characters
LONGEST_NOTE = 2_000
_QUICK = 10_000  # answers of which the agreement is worked out while someone waits: a few seconds
_LOOPBACK_HOST = r"(127(\.\d{1,3}){3}|localhost|\[::1\])(:\d+)?"  # as a Host header
_FORM_LENGTH = r"\d{1,5}"  # as a Content-Length header: below 100 kB, five times the longest form

# Each answer: its word, what stands on its button, and its keys, of which the first is shown there.
_BUTTONS = (
    ("valid", "Valid", "v 1"),
    ("invalid", "Invalid", "i 2"),
    ("unsure", "Unsure", "u 3"),
)
_BUTTONS_FOR_TWO = (
    ("first", "First", "1 f ArrowLeft"),
    ("second", "Second", "2 s ArrowRight"),
    ("both", "Both", "3 b"),
    ("neither", "Neither", "4 x"),
    ("unsure", "Unsure", "5 u"),
)

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not "no-referrer": with it, browsers send the page's own forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def serve(
    store: LabelStore,
    draw_ids: Sequence[str],
    *,
    annotator: str | None = None,
    instructions: str | None = None,
    next_command: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    open_browser: bool = False,
    on_ready: Callable[[str], object] = print,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        store: where answers go.
        draw_ids: the draws to be answered, one after the other.
        annotator: who answers; None: the page asks for a name first.
        instructions: what stands beside the lines, plain text; None: the packaged ones.
        next_command: what to do when all is answered, shown at the end.
        host: an address of this machine that others cannot reach.
        port: 0 takes a free one.
        token: the secret in the address; None: a new one.
        open_browser: open the page in this machine's browser.
        on_ready: gets the page's whole address, once, when it can be opened.

    Raises:
        InputError: a host that others can reach, a port that is taken, an unknown draw, or the
            extra `label` is not installed.
    """
    token = token or secrets.token_urlsafe(24)
    app = build_app(
        store, draw_ids, token, instructions, annotator=annotator, next_command=next_command
    )
    import uvicorn

    with _listening(host, port) as listener:
        at = listener.getsockname()
        name = f"[{at[0]}]" if ":" in at[0] else at[0]
        url = f"http://{name}:{at[1]}/?token={quote(token)}"
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # it would show the token
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,  # seconds
        )
        with contextlib.suppress(KeyboardInterrupt):
            on_ready(url)
            if open_browser:
                webbrowser.open(url)
            uvicorn.Server(settings).run(sockets=[listener])


def build_app(
    store: LabelStore,
    draw_ids: Sequence[str],
    token: str,
    instructions: str | None = None,
    *,
    annotator: str | None = None,
    next_command: str | None = None,
) -> "FastAPI":
    """The web application; arguments as `serve` has them.

    Raises:
        InputError: no draw or an unknown one, a blank name, or the extra `label` is not installed.
    """
    try:
        from fastapi import Depends, FastAPI, Form, Request
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import HTMLResponse, RedirectResponse, Response
        from fastapi.staticfiles import StaticFiles
        from starlette.exceptions import HTTPException
    except ImportError as error:
        raise InputError(
            f"expected FastAPI for the labelling page; it is not installed ({error}); run "
            "`pip install 'symdistill[label]'`, or label with --terminal"
        ) from error

    door = _Door(token)
    work = _Work(store, [draw_ids] if isinstance(draw_ids, str) else draw_ids)
    fixed_name = None if annotator is None else _name(annotator)
    if fixed_name == "":
        raise InputError("expected the annotator's name; got a blank one; give a name or leave it")
    pages = _templates()

    def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(pages.get_template(template).render(values), status)

    def refused(status: int, why: str) -> HTMLResponse:
        return page("refused.html.j2", status, why=why)

    def label_page(name: str) -> str:
        return f"/label?name={quote(name)}"

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(packages=[("symdistill.labelling", "static")]))

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        length = request.headers.get("content-length", "")
        if why := door.refuses(request):
            response: Response = refused(403, why)
        elif request.method == "POST" and not re.fullmatch(_FORM_LENGTH, length):
            response = refused(413, "This form is too long, so nothing was saved.")
        else:
            response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    @app.exception_handler(HTTPException)
    def no_such_page(request: Request, error: HTTPException) -> Response:
        return refused(error.status_code, "There is no such page here.")

    @app.exception_handler(RequestValidationError)
    def broken_form(request: Request, error: RequestValidationError) -> Response:
        return refused(400, "This form was not whole, so nothing was saved.")

    @app.exception_handler(SymdistillError)
    def not_saved(request: Request, error: SymdistillError) -> Response:
        status = 400 if isinstance(error, InputError) else 500
        return refused(status, f"Nothing was saved: {error}.")

    def session(request: Request) -> str:
        return door.session(request) or ""

    def own_form(request: Request, proof: Annotated[str, Form()] = "") -> None:
        if not door.made_form(session(request), proof):
            raise _ForeignForm

    @app.exception_handler(_ForeignForm)
    def foreign_form(request: Request, error: _ForeignForm) -> Response:
        return refused(403, "This form is from another start of the program; nothing was saved.")

    @app.get("/")
    def names(request: Request) -> Response:
        start = "/" if fixed_name is None else label_page(fixed_name)
        if "token" in request.query_params:
            # A page that goes on by itself, and no redirect: after a click on another site a
            # browser would hold a strict cookie back from the page it is redirected to.
            opened = page("open.html.j2", start=start)
            opened.set_cookie(*door.cookie(request), httponly=True, samesite="strict")
            return opened
        if fixed_name is not None:
            return RedirectResponse(start, 303)
        return page("names.html.j2", people=work.people(), longest=LONGEST_NAME)

    @app.get("/label")
    def label(request: Request, name: str = "") -> Response:
        name = _name(name)
        if not name:
            return RedirectResponse("/", 303)
        name = store.known_as(name)
        here = work.place(name)
        shared: dict[str, Any] = {
            "name": name,
            "here": here,
            "proof": door.form_proof(session(request)),
            "may_rename": fixed_name is None,
        }
        if here.shown is None:
            return page("done.html.j2", ends=work.ends(name), next_command=next_command, **shared)
        return page(
            "label.html.j2",
            buttons=_BUTTONS_FOR_TWO if here.draw.purpose == "compare" else _BUTTONS,
            asked=question_of(here.draw),
            instructions=_paragraphs(instructions or packaged_instructions(here.draw)),
            longest_note=LONGEST_NOTE,
            now=time.time(),
            **shared,
        )

    @app.post("/answer", dependencies=[Depends(own_form)])
    def answer(
        name: Annotated[str, Form()],
        key: Annotated[str, Form()],
        shown_at: Annotated[float, Form()],
        answer: Annotated[str, Form()],
        note: Annotated[str, Form(max_length=2 * LONGEST_NOTE)] = "",
    ) -> Response:
        note = note.replace("\r\n", "\n").strip()  # as the browser counted it
        if len(note) > LONGEST_NOTE:
            raise InputError(f"expected a note of at most {LONGEST_NOTE:,} characters; got "
                             f"{len(note):,}; shorten it")  # fmt: skip
        work.answer(_name(name), key, answer, time.time() - shown_at, note)
        return RedirectResponse(label_page(_name(name)), 303)

    @app.post("/undo", dependencies=[Depends(own_form)])
    def undo(name: Annotated[str, Form()], key: Annotated[str, Form()]) -> Response:
        work.undo(_name(name), key)
        return RedirectResponse(label_page(_name(name)), 303)

    return app


# -- where an annotator is ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """What an annotator sees now. `done` and `total` count the lines of all draws."""

    draw: Draw  # the one under way, or the last
    shown: Shown | None  # None: all is answered
    again: bool
    done: int
    total: int
    undo_in: str | None  # the draw whose last answer can be taken back
    before: tuple[str, str] | None  # the line before and what was said of it, while it is known

    @property
    def key(self) -> str:
        """Changes with every answer: a form that was sent twice does not answer the next line."""
        line_id = self.shown.line_id if self.shown else ""
        return content_hash([self.draw.id, line_id, self.again, self.done])


class _Work:
    """The draws to be answered, one after the other, by any number of people."""

    def __init__(self, store: LabelStore, draw_ids: Sequence[str]) -> None:
        if not draw_ids:
            raise InputError("expected a draw to label; got none; draw lines first")
        self._store = store
        self._draws = [store.draw(id) for id in draw_ids]
        self._before: dict[str, tuple[str, str]] = {}
        self._looking_and_writing = threading.Lock()

    def place(self, name: str) -> _Place:
        done = total = 0
        now: tuple[Draw, Shown | None, bool] = (self._draws[-1], None, False)
        undo_in = None
        for draw in self._draws:
            of_this, in_this = self._store.progress(draw.id, name)
            done, total = done + of_this, total + in_this
            if now[1] is not None:
                continue
            if of_this:
                undo_in = draw.id
            found = self._store.next(draw.id, name)
            if found:
                now = (draw, *found)
        return _Place(*now, done, total, undo_in, self._before.get(name))

    def answer(self, name: str, key: str, answer: str, seconds: float, note: str) -> None:
        """Keep an answer to the line that is next; a form that was sent before changes nothing."""
        with self._looking_and_writing:
            here = self.place(name)
            if here.shown is None or here.key != key:
                return
            self._store.answer(
                here.draw.id,
                here.shown.line_id,
                name,
                answer,
                again=here.again,
                seconds=round(seconds, 1) if 0 <= seconds < 86_400 else None,
                note=note,
            )
            self._before[name] = (here.shown.text, answer)

    def undo(self, name: str, key: str) -> None:
        with self._looking_and_writing:
            here = self.place(name)
            if here.undo_in is not None and here.key == key:
                self._store.undo(here.undo_in, name)
                self._before.pop(name, None)

    def people(self) -> list[tuple[str, int, int]]:
        """Who has answered any of it: name, lines done, lines in all."""
        names = {one.annotator for draw in self._draws for one in self._store.given(draw.id)}
        return [(name, *self._counts(name)) for name in sorted(names)]

    def _counts(self, name: str) -> tuple[int, int]:
        counts = [self._store.progress(draw.id, name) for draw in self._draws]
        return sum(done for done, _ in counts), sum(total for _, total in counts)

    def ends(self, name: str) -> list[dict[str, Any]]:
        """For each draw: what this annotator said how often, and how far people agree."""
        ends = []
        for draw in self._draws:
            given = self._store.given(draw.id)
            said = Counter(one.answer for one in given if one.annotator == name and not one.again)
            ends.append(
                {
                    "counts": [(word, said[word]) for word in answers_to(draw.purpose)],
                    "agreement": told(agreement(given)) if len(given) <= _QUICK else [],
                }
            )
        return ends


def _name(text: str) -> str:
    return name_of(text)[:LONGEST_NAME].strip()


# -- who may come in ----------------------------------------------------------------------------


class _ForeignForm(Exception):
    """A form that this page did not make for this browser."""


class _Door:
    """Lets in who has the token, from this machine, by this page's own forms."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def refuses(self, request: "Request") -> str | None:
        """Why a request is refused, in one sentence; None: it is not."""
        path, host = request.url.path, request.headers.get("host", "")
        if not re.fullmatch(_LOOPBACK_HOST, host):
            return "This page is for this machine only; open it as http://127.0.0.1 with its port."
        if path.startswith("/static/"):
            return None
        if request.headers.get("origin", f"http://{host}") != f"http://{host}":
            return "This request came from another page, so nothing was done."
        given = request.query_params.get("token") if path == "/" else None
        if given is not None and not hmac.compare_digest(given.encode(), self._token):
            return "The token in this address is wrong; open the address that the program printed."
        if given is None and self.session(request) is None:
            return "This page needs its token; open the address that the program printed."
        return None

    def session(self, request: "Request") -> str | None:
        """The session that the request's cookie proves."""
        session, _, proof = request.cookies.get(_cookie_name(request), "").partition(".")
        return session if self._is(proof, f"cookie {session}") else None

    def cookie(self, request: "Request") -> tuple[str, str]:
        """Name and value of the cookie of the browser's session, or of a new one."""
        session = self.session(request) or secrets.token_urlsafe(16)
        return _cookie_name(request), f"{session}.{self._proof(f'cookie {session}')}"

    def form_proof(self, session: str) -> str:
        """What the forms of a session carry."""
        return self._proof(f"form {session}")

    def made_form(self, session: str, proof: str) -> bool:
        """Whether a form was made for this session."""
        return self._is(proof, f"form {session}")

    def _proof(self, of: str) -> str:
        return hmac.new(self._token, of.encode(), hashlib.sha256).hexdigest()

    def _is(self, proof: str, of: str) -> bool:
        return hmac.compare_digest(proof.encode(), self._proof(of).encode())


def _cookie_name(request: "Request") -> str:
    """One name for each port: browsers keep cookies by host alone, and two pages may be open."""
    return f"symdistill-{request.headers['host'].rpartition(':')[2]}"


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket on a loopback address, to which connections can be made at once."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise InputError(
            f"expected an address of this machine alone, such as 127.0.0.1; got {host!r}; to label "
            "from elsewhere, forward the port: ssh -L PORT:127.0.0.1:PORT THIS_MACHINE"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((str(address), port))
            listener.listen(128)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"expected a free port; got {port} on {address} ({error}); choose another, or "
                "leave it out to get a free one"
            ) from error
        yield listener


# -- templates ----------------------------------------------------------------------------------


def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("symdistill", "labelling/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _paragraphs(text: str) -> list[tuple[str, str]]:
    """Plain text as (term, text) for each paragraph: wrapped lines are joined, lists stay lists.

    A term is a first line whose further lines are set in.
    """
    found = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip()):
        first, *rest = block.split("\n")
        has_term = bool(rest) and all(line.startswith((" ", "\t")) for line in rest)
        lines = "\n".join(rest) if has_term else block
        joined = re.sub(r"\n(?!\s*([-*•]|\d+[.)])\s)\s*", " ", lines.strip())
        found.append((first if has_term else "", joined))
    return found


def _finalize(value: Any) -> Any:
    """Text as it is shown: line breaks stay, nothing else acts."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return "\n".join(visible(line) for line in value.replace("\r\n", "\n").split("\n"))
    return value
