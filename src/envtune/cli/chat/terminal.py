"""The conversation itself: lines and commands in, answers out as they come."""

import sys
from collections.abc import Callable
from contextlib import closing, suppress

from envtune.cli.chat.voices import BASE, CUT, TUNED, Conversation, Turn, Voice, written
from envtune.cli.console import harmless
from envtune.errors import Exit, Refused

_PROMPT = "> "
# Shows the base as /base does; what was typed before it comes back with Ctrl-Y.
_KEY = r'"\C-t": "\C-a\C-k/base\C-m"'
_NO_CHAT = "This is no chat: {}. What is asked is continued as text."
_HELP = """\
/base          show the base's answers too, or no more (Ctrl-T)
/reset         forget what was said
/quit          end; Ctrl-D does too, and Ctrl-C ends an answer alone"""


def tell(line: str) -> None:
    """Says something that is no answer: on standard error."""
    print(harmless(line), file=sys.stderr, flush=True)


class Terminal:
    """Asks a voice what is typed, and shows what it says."""

    def __init__(self, voice: Voice, name: str, *, beside: bool, system: str) -> None:
        self.voice, self.name, self.beside = voice, name, beside
        self.said = Conversation(system=system)
        self.commands: dict[str, Callable[[str], None]] = {
            "base": self._base, "reset": self._reset, "help": self._help, "system": self._system,
            **{name: self._column(name) for name in voice.about.columns},
        }  # fmt: skip

    @property
    def sides(self) -> tuple[str, ...]:
        return (BASE, TUNED) if self.beside else (TUNED,)

    def once(self, question: str) -> Exit:
        """Answers one question on standard output, and nothing else there."""
        if self.voice.about.reason:
            tell(_NO_CHAT.format(self.voice.about.reason))
        answers = {side: self._whole(side, question) for side in self.sides}
        for side, text in answers.items():
            print(f"{self._title(side)}{harmless(text)}")
        sys.stdout.flush()
        return Exit.DONE

    def _whole(self, side: str, question: str) -> str:
        about, said = self.voice.about, self.said
        pieces = list(self.voice.answer(side, said.messages(side, question, about), said.columns))
        if pieces and pieces[-1][1] == CUT:
            tell(f"{side}: the answer is cut off at its longest (SFT_EVAL_GENERATION)")
        return "".join(text for text, _ in pieces)

    def _title(self, side: str) -> str:
        return f"{side}:\n" if self.beside else ""

    def converse(self) -> Exit:
        """Goes on until /quit, or the end of the input. Raises Refused where nobody is left."""
        self._introduce()
        ask = _asking()
        while True:
            try:
                line = written(ask()).strip()
            except EOFError:
                return Exit.DONE
            except KeyboardInterrupt:
                tell("\n(Ctrl-D or /quit ends the chat)")
                continue
            if line in ("/quit", "/exit"):
                return Exit.DONE
            if line.startswith("/") and self._command(line[1:]):
                continue
            if line:
                self._turn(line)

    def _introduce(self) -> None:
        about = self.voice.about
        tell(f"{self.name}\nanswered by {about.place}")
        if about.reason:
            tell(_NO_CHAT.format(about.reason))
        elif not about.several:
            tell("One question with one answer was trained: each question stands alone.")
        if sys.stdin.isatty():
            tell("/base shows the base's answers too, /help all else; Ctrl-D ends.")

    def _command(self, line: str) -> bool:
        """Does a command. False for what is none, which may be a question."""
        name, _, rest = line.partition(" ")
        if (command := self.commands.get(name)) is None:
            known = name.isalpha() and not rest
            if known:
                tell(f"there is no /{name}; /help tells what there is")
            return known
        command(rest.strip())
        return True

    def _turn(self, question: str) -> None:
        turn = Turn(question)
        for side in self.sides:
            try:
                self._answer(side, turn)
            except KeyboardInterrupt:
                tell("\n(interrupted)")
                break
            except Refused as refused:
                if refused.exit in (Exit.BUG, Exit.MEMORY, Exit.HARDWARE):
                    raise
                tell(refused.line)
        if any(turn.answers.values()):
            self.said.turns.append(turn)

    def _answer(self, side: str, turn: Turn) -> None:
        asked = self.said.messages(side, turn.question, self.voice.about)
        print(self._title(side), end="", flush=True)
        cut = False
        with closing(self.voice.answer(side, asked, self.said.columns)) as pieces:
            for text, end in pieces:
                cut = end == CUT
                turn.answers[side] = turn.answers.get(side, "") + written(text)
                print(harmless(text), end="", flush=True)
        print("\n", flush=True)
        if cut:
            tell("(cut off at its longest)\n")

    def _base(self, _: str) -> None:
        if why := self.voice.about.base:
            tell(f"there is no base to ask: {why}; `envtune chat --local` has both")
            return
        self.beside = not self.beside
        tell(f"the base is {'shown' if self.beside else 'not shown any more'}")

    def _reset(self, _: str) -> None:
        self.said.turns.clear()
        tell("forgotten")

    def _system(self, text: str) -> None:
        if not self.voice.about.system:
            tell("no system message was trained")
            return
        self.said.system = text
        tell(f"the system message is {'set' if text else 'empty'}")

    def _column(self, name: str) -> Callable[[str], None]:
        def told(text: str) -> None:
            self.said.columns[name] = text
            tell(f"{name} is {'set' if text else 'empty'}")

        return told

    def _help(self, _: str) -> None:
        tell(_HELP)
        more = [*(["system"] if self.voice.about.system else []), *self.voice.about.columns]
        for name in more:
            tell(f"/{f'{name} TEXT'.ljust(13)} what the next questions have as {name}")


def _asking() -> Callable[[], str]:
    """Reads a line: with readline at a terminal, which keeps what was typed in memory alone."""
    if not sys.stdin.isatty():
        return input
    with suppress(ImportError):
        import readline

        readline.parse_and_bind(_KEY)
    return lambda: input(_PROMPT)
