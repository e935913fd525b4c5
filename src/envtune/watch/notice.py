"""One notice at the end, to whoever wants to be told: Slack, Discord, ntfy, or JSON for any other.

The address is a secret: no line shows it, not even its host. It has a few seconds in all, and
whatever becomes of it changes nothing else.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from envtune.errors import Exit
from envtune.events import printable
from envtune.machine import rendezvous
from envtune.redaction import Secret, redact, secrets
from envtune.runs import folders
from envtune.settings.own.place import NOTIFY
from envtune.supervise.finish import End, given
from envtune.supervise.signals import StopSignals
from envtune.supervise.stage import LOG
from envtune.transfer.deadline import answers
from envtune.watch import story

# Seconds for all tries, which a stop leaves less of; tries, and the pause before the next.
_PATIENCE, _STOPPED, _TRIES, _PAUSE = 9.0, 3.0, 3, 1.0
# Characters of the line, and of all that Discord takes.
_LINE, _DISCORD = 500, 2000
_NO_RUN = "it ended before there was a run; its log says why"
_TOLD = re.compile(r"(slack|discord|ntfy)\+(.*)")
_WORDS = {
    Exit.DONE: "done", Exit.STOPPED: "stopped", Exit.INTERRUPTED: "stopped",
    Exit.BUDGET: "budget used up",
}  # fmt: skip


@dataclass(frozen=True)
class Notice:
    """What is told. `first` and `last` are losses, `artifact` a folder."""

    outcome: str
    run: str
    exit: int
    line: str
    first: float | None = None
    last: float | None = None
    artifact: str = ""

    @property
    def title(self) -> str:
        return f"envtune: {self.run or 'no run'}: {self.outcome}"

    @property
    def text(self) -> str:
        """Everything, for people, on a few lines."""
        known = self.first is not None and self.last is not None
        loss = [f"loss {self.first:.4f} -> {self.last:.4f}"] if known else []
        artifact = [self.artifact] if self.artifact else []
        told = "\n".join([self.line, *loss, *artifact])
        return f"{self.title} (exit {self.exit})\n{told}"

    @property
    def fields(self) -> dict[str, Any]:
        """Everything, for programs; `text` is what many of them show."""
        return {
            "text": self.text, "outcome": self.outcome, "run": self.run, "exit": self.exit,
            "line": self.line, "first_loss": self.first, "last_loss": self.last,
            "artifact": self.artifact,
        }  # fmt: skip


def tell(end: End, arguments: Sequence[str]) -> None:
    """Tells of an end, where SFT_NOTIFY_URL says whom and this is node 0. Never raises."""
    try:
        environ = given(arguments)[0].environ
        address = environ.get(NOTIFY, "")
        url = (address.reveal() if isinstance(address, Secret) else address).strip()
        if url and not rendezvous.read(environ)[0].rank:
            _send(url, made(end, secrets(environ)))
    except Exception as error:  # a notice is worth no exit code
        LOG.warning("%s: no notice: %s", NOTIFY, type(error).__name__)


def made(end: End, hidden: tuple[str, ...] = ()) -> Notice:
    """The notice of an end, with what the run's folder knows."""
    record = folders.read_record(end.folder) if end.folder else {}
    told = story.of(end.folder) if end.folder else story.Story()
    losses = [step["loss"] for _, step in sorted(told.steps.items()) if "loss" in step]
    trained = record.get("stages", {}).get("train", {})
    artifact = trained.get("artifact") if trained.get("outcome") == "done" else None
    lines = redact(end.message or _NO_RUN, hidden).splitlines()
    more = f" (and {len(lines) - 1} more lines)" if len(lines) > 1 else ""
    return Notice(
        outcome=_WORDS.get(end.exit, "failed"),
        run=str(record.get("name", "")),
        exit=int(end.exit),
        line=printable(lines[0])[:_LINE] + more,
        first=losses[0] if losses else None,
        last=losses[-1] if losses else None,
        artifact=str(end.folder / artifact) if end.folder and artifact else "",
    )


def request(url: str, notice: Notice) -> dict[str, Any]:
    """What is sent, by the address's shape: a known host, or `slack+https://`, `discord+...`,
    `ntfy+...` for one of another name."""
    told = _TOLD.match(url)
    kind, plain = (told[1], told[2]) if told else (_kind(url), url)
    if kind == "slack":
        escaped = notice.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return _json(plain, {"text": escaped})
    if kind == "discord":
        silent: dict[str, list[str]] = {"parse": []}  # nobody is called by a loss line
        return _json(plain, {"content": notice.text[:_DISCORD], "allowed_mentions": silent})
    if kind == "ntfy":
        urgency = {"Priority": "default" if notice.exit == 0 else "high"}
        title = notice.title.encode("ascii", "replace").decode()
        return {
            "url": plain,
            "content": notice.text.encode(),
            "headers": {"Title": title, **urgency},
        }
    return _json(plain, notice.fields)


def _json(url: str, told: Any) -> dict[str, Any]:
    return {
        "url": url,
        "content": json.dumps(told).encode(),
        "headers": {"Content-Type": "application/json"},
    }


def _kind(url: str) -> str:
    host = urlsplit(url).hostname or ""
    if host in ("hooks.slack.com", "hooks.slack-gov.com"):
        return "slack"
    if host in ("discord.com", "discordapp.com", "canary.discord.com", "ptb.discord.com"):
        return "discord"
    return "ntfy" if host.startswith("ntfy.") else ""


def _send(url: str, notice: Notice) -> None:
    patience = _STOPPED if StopSignals.came else _PATIENCE
    late = f"no answer in {patience:.0f} s"
    asked = request(url, notice)
    [why] = answers([(lambda: _tried(asked, patience), lambda: late)], patience)
    if why:
        LOG.warning("%s: the notice was not taken: %s", NOTIFY, why)
    else:
        LOG.info("%s: told that the run is %s", NOTIFY, notice.outcome)


def _tried(asked: Mapping[str, Any], patience: float) -> str:
    """Why nobody has taken it after some tries, or nothing."""
    deadline, why = time.monotonic() + patience, ""
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE)
        again, why = _posted(asked, max(0.1, deadline - time.monotonic()))
        if not again or time.monotonic() + _PAUSE > deadline:
            break
    return why


def _posted(asked: Mapping[str, Any], seconds: float) -> tuple[bool, str]:
    """Whether to try again, and what is wrong, or nothing."""
    import httpx

    try:
        answer = httpx.post(**asked, timeout=seconds)
    except httpx.HTTPError as error:
        return True, f"it cannot be reached ({type(error).__name__})"
    except (httpx.InvalidURL, UnicodeError, ValueError):
        return False, "it is no address"
    if answer.is_success:
        return False, ""
    again = answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS
    return again, f"it answers with status {answer.status_code}"
