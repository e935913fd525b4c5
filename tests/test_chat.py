"""A conversation in the terminal: with the model itself, and with a server of it."""

import json
import os
import pty
import random
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from envtune import channel
from envtune.cli.chat import served as served_as
from envtune.cli.chat.voices import About, Conversation, Turn
from envtune.cli.console import harmless
from tests import forks
from tests.harness import ROOT, Quiet, Result, clean_environ, execute, read, serving

ENVTUNE = str(ROOT / ".venv" / "bin" / "envtune")
LIMIT = {"max_new_tokens": 24}
FIRST, NEXT, LAST = "What is the capital of France?", "And of Italy?", "What is 3 plus 4?"
SECRET = "planted-5e1f0c77aa"


def chat(run: Path | str, *options: str, cwd: Path, typed: str = "", **environ: str) -> Result:
    """The real command, its input a file and not a terminal."""
    command = [ENVTUNE, "chat", str(run), *options]
    done = subprocess.run(
        command, cwd=cwd, env=clean_environ(**environ), input=typed, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


def evaluated(run: Path, into: Path, prompts: list[Any], forking: Mapping[str, str]) -> list[Any]:
    """What the evaluation of a run has its two sides answer."""
    order = {
        "config": "config/axolotl.yaml", "artifact": str(run / "adapter"),
        "results": str(into / "results.json"), "prompts": prompts, "pairs": [],
        "generation": LIMIT, "dataset": None, "tasks": [], "tasks_path": None, "tasks_limit": None,
    }  # fmt: skip
    (into / "order.json").write_text(json.dumps(order))
    command = [sys.executable, "-m", "envtune.engine.evaluate.evaluate", str(into / "order.json")]
    done = execute(command, run, clean_environ(**forks.ENVIRON, **forking))
    assert done.code == 0, done.err
    samples: list[Any] = read(into / "results.json")["samples"]
    return samples


def test_a_chat_answers_what_the_evaluation_answers(
    lora: Path, tmp_path: Path, forking: dict[str, str]
) -> None:
    """Question by question, with what was said before, and the base beside the tuned model."""
    given = f"SFT_EVAL_GENERATION={json.dumps(LIMIT)}"
    lines = f"{FIRST}\n{NEXT}\n/reset\n/base\n{LAST}\n"
    talked = chat(lora, given, cwd=tmp_path, typed=lines, **forking)
    assert talked.code == 0, talked.err
    shown = talked.out.split("\n\n")[0]
    said = re.sub(r"\\x(..)", lambda found: chr(int(found[1], 16)), shown)
    before = [("user", FIRST), ("assistant", said), ("user", NEXT)]
    several = {"messages": [{"role": role, "content": text} for role, text in before]}
    prompts = [{"instruction": FIRST}, several, {"instruction": LAST}]
    samples = evaluated(lora, tmp_path, prompts, forking)
    alone, went_on, last = ({s: x[s]["text"] for s in ("base", "tuned")} for x in samples)
    both = "".join(f"{side}:\n{last[side]}\n\n" for side in ("base", "tuned"))
    assert talked.out == harmless(f"{alone['tuned']}\n\n{went_on['tuned']}\n\n{both}")
    assert "transformers on this machine's CPU" in talked.err
    once = chat(lora, given, "--once", FIRST, cwd=tmp_path, **forking)
    assert (once.code, once.out) == (0, harmless(f"{alone['tuned']}\n")), once.err


LAYOUTS: list[tuple[dict[str, Any], str, bool]] = [
    ({"reason": "raw text was trained, and no chat"}, "This is no chat: raw text was trained", False),
    ({"template": "{%- if messages | length > 1 -%}{{- raise_exception('one was trained') -}}"
                  "{%- endif -%}{{- messages[0]['content'] ~ input -}}", "columns": ["input"]},
     "One question with one answer was trained: each question stands alone.", True),
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_not_trained_as_a_conversation_is_none(
    layout: tuple[dict[str, Any], str, bool],
    lora: Path,
    tmp_path: Path,
    forking: dict[str, str],
) -> None:
    """The run's own model and tokenizer, in another layout."""
    (told, line, column), run = layout, copied(lora, tmp_path)
    path = run / "config" / "layout.json"
    path.write_text(json.dumps(read(path) | told))
    given = f"SFT_EVAL_GENERATION={json.dumps(LIMIT)}"
    lines = f"{FIRST}\n{LAST}\n/reset\n{LAST}\n/input 7\n{LAST}\n"
    talked = chat(run, given, cwd=tmp_path, typed=lines, **forking)
    assert talked.code == 0, talked.err
    assert line in talked.err
    answers = talked.out.split("\n\n")
    assert answers[1] == answers[2], "it heard what was said before"
    assert (answers[-2] != answers[2]) is column


def copied(run: Path, folder: Path) -> Path:
    """A run that may be changed."""
    shutil.copytree(run, folder / "run", symlinks=True)
    return folder / "run"


class Screen:
    """A command at a terminal of 80 columns, which a test types into."""

    def __init__(self, command: list[str], cwd: Path, environ: dict[str, str]) -> None:
        self.shown = ""
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(cwd)
            os.execve(command[0], command, {**environ, "TERM": "xterm", "COLUMNS": "80"})
        self.pid = pid

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, pattern: str) -> str:
        """What is shown up to a pattern, which is taken away."""
        deadline = time.monotonic() + 600
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < deadline, self.shown
            if select.select([self.fd], [], [], 1)[0]:
                try:
                    self.shown += os.read(self.fd, 1 << 16).decode(errors="replace")
                except OSError:  # nobody is left
                    assert re.search(pattern, self.shown), self.shown
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def end(self) -> None:
        os.close(self.fd)


@contextmanager
def screen(command: list[str], cwd: Path, environ: dict[str, str]) -> Iterator[Screen]:
    made = Screen(command, cwd, environ)
    try:
        yield made
    finally:
        made.end()


def test_at_a_terminal_ctrl_c_ends_an_answer_and_ctrl_d_the_chat(
    lora: Path, tmp_path: Path, forking: dict[str, str]
) -> None:
    """The base, which never stops, is interrupted; the half question comes back."""
    environ = clean_environ(**forking)
    with screen([ENVTUNE, "chat", str(lora)], tmp_path, environ) as shown:
        shown.until("answered by transformers on this machine's CPU")
        shown.until("> ")
        shown.type(f"{FIRST}\r")
        first = shown.until("\r\n\r\n(?:\x1b\\S*)?> ")
        assert "base:" not in first
        shown.type("half a qu")
        shown.type("\x14")  # Ctrl-T
        shown.until("the base is shown")
        shown.until("> ")
        shown.type("\x19estion\r")  # Ctrl-Y
        shown.until("half a question\r\n")
        for _ in range(20):  # a tiny model may be at its limit before the key is there
            shown.until("base:\r\n")
            shown.type("\x03")
            if "interrupted" in shown.until("\\(interrupted\\)|/quit ends the chat"):
                break
            shown.until("> ")
            shown.type(f"{FIRST}\r")
        else:
            pytest.fail("no answer of twenty was interrupted")
        shown.until("> ")
        shown.type("/base\r")
        shown.until("not shown any more")
        shown.type(f"/reset\r{FIRST}\r")
        shown.until("forgotten")
        again = shown.until("\r\n\r\n(?:\x1b\\S*)?> ")
        assert (
            again.split("?\r\n")[-1].split("\r\n")[0] == first.split("?\r\n")[-1].split("\r\n")[0]
        )
        shown.type("\x03")
        shown.until("/quit ends the chat")
        shown.type("\x04")
        assert shown.code() == 0


EVIL = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\x9b31m\r\x08\x7f\u202egpj.exe\ud83d\x00 caf\u00e9 \U0001f469\u200d\U0001f4bb"


class Model(Quiet):
    """Stands in for a server whose model says what no model should."""

    said: str
    asked: list[tuple[str, dict[str, Any]]]

    def do_GET(self) -> None:
        parents = {"base": None, "other": "base", "mine": "base"}
        self._send(200, {"data": [{"id": n, "parent": p} for n, p in parents.items()]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, body))
        if self.headers.get("Authorization") != f"Bearer {SECRET}":
            self._send(401, {"error": "Unauthorized"})
        elif self.path == "/tokenize":
            self._send(200, {"count": 10, "max_model_len": 512})
        else:
            self._send(200, "".join(map(self._event, self._pieces())) + "data: [DONE]\n\n")

    def _pieces(self) -> Iterator[str]:
        step = max(1, len(self.said) // 20)
        return (self.said[at : at + step] for at in range(0, len(self.said), step))

    def _event(self, piece: str) -> str:
        chat = self.path == "/v1/chat/completions"
        told = {"delta": {"content": piece}} if chat else {"text": piece}
        return f"data: {json.dumps({'choices': [told]})}\n\n"

    def _send(self, code: int, told: Any) -> None:
        data = (told if isinstance(told, str) else json.dumps(told)).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def served(run: Path, said: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """A server of the run that is announced as ours are; gives what it was asked."""
    asked: list[tuple[str, dict[str, Any]]] = []
    with serving(type("Saying", (Model,), {"said": said, "asked": asked})) as url:
        stamp = channel.process_stamp(os.getpid())
        (run / "server.json").write_text(json.dumps({"url": url, "stamp": stamp}))
        yield asked


def tokens(count: int, dice: random.Random) -> str:
    """Characters of every kind, those that a terminal obeys among them."""
    kinds = [(0, 0x20), (0x20, 0x7F), (0x7F, 0xA0), (0x200B, 0x2070), (0x1F600, 0x1F640)]
    return "".join(chr(dice.randrange(*dice.choice(kinds))) for _ in range(count))


OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_nothing_that_a_model_says_is_obeyed(
    lora: Path, tmp_path: Path, dice: random.Random
) -> None:
    """Escapes, what hides words, and a megabyte; letters and pictures stay what they are."""
    run, key = copied(lora, tmp_path), {"VLLM_API_KEY": SECRET}
    for said in (EVIL, tokens(2000, dice), f"{EVIL}x" * 40_000):
        with served(run, said) as asked:
            once = chat(run, "--once", "a\x1b[2Jb", cwd=tmp_path, **key)
            talked = chat(run, cwd=tmp_path, typed=f"{FIRST}\n/base\n{NEXT}\n", **key)
        assert (once.code, talked.code) == (0, 0), once.err + talked.err
        assert once.out == f"{harmless(said)}\n"
        assert not OBEYED.search(once.out + once.err + talked.out + talked.err)
        assert SECRET not in once.out + once.err + talked.out + talked.err
        told = [body["messages"] for path, body in asked if path == "/v1/chat/completions"]
        assert [len(messages) for messages in told] == [1, 1, 3, 3]
    assert "\\x1b]52;c;cm0gLXJm\\x07" in harmless(EVIL)
    assert harmless(EVIL).endswith("caf\u00e9 \U0001f469\u200d\U0001f4bb")
    left = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert not [p for p, data in left.items() if b"cm0gLXJm" in data or NEXT.encode() in data]


def test_text_is_asked_for_as_text_where_no_chat_was_trained(lora: Path, tmp_path: Path) -> None:
    run = copied(lora, tmp_path)
    path = run / "config" / "layout.json"
    path.write_text(json.dumps(read(path) | {"reason": "raw text was trained, and no chat"}))
    with served(run, "and so on") as asked:
        more = ['SFT_EVAL_GENERATION={"temperature": 0.5, "do_sample": true}']
        once = chat(run, *more, "--once", "-", cwd=tmp_path, typed="Once ", VLLM_API_KEY=SECRET)
        refused = chat(run, "--once", "a", "--system", "b", cwd=tmp_path, VLLM_API_KEY=SECRET)
    assert (once.code, once.out) == (0, "and so on\n")
    assert (
        once.err
        == "This is no chat: raw text was trained, and no chat. What is asked is continued as text.\n"
    )
    (path_, body) = asked[-1]
    assert (path_, body["prompt"]) == ("/v1/completions", "Once")
    assert (body["max_tokens"], body["temperature"], body["model"]) == (502, 0.5, "other")
    assert (refused.code, refused.out) == (1, "")
    assert refused.said == ["--system: no system message was trained"]


Broken = Callable[[Path], object]
REFUSALS: list[tuple[str, Broken, dict[str, str], int, str]] = [
    ("no run", lambda run: shutil.move(run, f"{run}-gone"), {}, 1,
     "{run} holds no run (run.json is missing or damaged)"),
    ("no artifact", lambda run: shutil.rmtree(run / "adapter"), {}, 6,
     "chat: {run} holds neither adapter/ nor model/ any more"),
    ("a damaged one", lambda run: os.truncate(run / "adapter" / "adapter_model.safetensors", 999),
     {}, 6, "chat: {run}/adapter/adapter_model.safetensors is"),
    ("not trained", lambda run: untrained(run), {}, 1,
     "{name}: is not trained to its end; start it again with the settings that it was made with"),
    ("at work", lambda run: at_work(run), {}, 1,
     "{name}: is still at work (step 12 of 38); chat once it is trained"),
    ("another key", lambda run: announced(run), {"VLLM_API_KEY": f"{SECRET}-not"}, 4,
     "VLLM_API_KEY: the server at"),
    ("a server that is gone", lambda run: announced(run, "http://127.0.0.1:9"), {}, 201,
     "the server at http://127.0.0.1:9 does not answer: ConnectError"),
]  # fmt: skip


def untrained(run: Path) -> None:
    told = read(run / "run.json")
    del told["stages"]["train"]
    (run / "run.json").write_text(json.dumps(told))


def at_work(run: Path) -> None:
    untrained(run)
    (run / "lease").write_text(json.dumps({"stamp": channel.process_stamp(os.getpid())}))
    lines = (run / "events.jsonl").read_text().splitlines()
    twelfth = next(n for n, line in enumerate(lines) if '"step": 12' in line and "loss" in line)
    (run / "events.jsonl").write_text("\n".join(lines[: twelfth + 1]) + "\n")


def announced(run: Path, url: str = "") -> None:
    told = {"url": url or "STAND-IN", "stamp": channel.process_stamp(os.getpid())}
    (run / "server.json").write_text(json.dumps(told))


@pytest.mark.parametrize("row", REFUSALS, ids=[row[0] for row in REFUSALS])
def test_what_cannot_be_talked_with_is_told_on_one_line(
    row: tuple[str, Broken, dict[str, str], int, str], lora: Path, tmp_path: Path
) -> None:
    (_, broken, environ, code, line), run = row, copied(lora, tmp_path)
    name = read(run / "run.json")["name"]
    with served(run, "a"):
        url = read(run / "server.json")["url"]
        (run / "server.json").unlink()
        broken(run)
        if (run / "server.json").exists():
            text = (run / "server.json").read_text().replace("STAND-IN", url)
            (run / "server.json").write_text(text)
        told = chat(run, "--once", FIRST, cwd=tmp_path, **environ)
    assert (told.code, told.out) == (code, ""), told.err
    [said] = told.said
    assert said.startswith(line.format(run=run, name=name))
    assert SECRET not in told.err


def test_the_newest_of_no_runs_and_an_empty_question_are_told(tmp_path: Path) -> None:
    none = chat(".", "--once", FIRST, cwd=tmp_path)
    assert (none.code, none.out) == (1, "")
    newest = execute([ENVTUNE, "chat"], tmp_path, clean_environ())
    assert "there is no run below" in newest.said[0]
    empty = chat("any", "--once", " ", cwd=tmp_path)
    assert (empty.code, empty.said) == (1, ["--once: the question is empty"])


def test_each_side_hears_its_own_answers_and_the_others_where_it_has_none() -> None:
    said = Conversation(
        "s", {}, [Turn("1", {"tuned": "t1"}), Turn("2", {"base": "b2", "tuned": "t2"})]
    )
    about = About("here")
    heard = {
        side: [m["content"] for m in said.messages(side, "3", about)] for side in ("base", "tuned")
    }
    assert heard == {
        "base": ["s", "1", "t1", "2", "b2", "3"],
        "tuned": ["s", "1", "t1", "2", "t2", "3"],
    }
    alone = said.messages("tuned", "3", About("here", several=False))
    assert [m["role"] for m in alone] == ["system", "user"]
    assert said.messages("tuned", "3", About("here", "raw")) == [{"role": "user", "content": "3"}]


def test_a_server_answers_greedily_as_the_evaluation_does_where_nobody_says() -> None:
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"temperature": 0, "max_tokens": 1024}),
        (
            {"do_sample": False, "temperature": 0.7, "top_p": 0.5},
            {"temperature": 0, "max_tokens": 1024},
        ),
        ({"temperature": 0.7, "num_beams": 2}, {"temperature": 0.7, "max_tokens": 1024}),
        ({"do_sample": True, "max_new_tokens": 9}, {"max_tokens": 9}),
    ]
    for given, sent in rows:
        assert served_as._sampling(given) == sent
    assert served_as.unheard({"num_beams": 2, "top_p": 0.5, "do_sample": True}) == ["num_beams"]
