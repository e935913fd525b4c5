"""A template of the user's through the real command: it lays out, and can do no harm."""

import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.harness import ROOT, Result, clean_environ, envtune, execute

MINE = "# mine\n{% for key, value in values.items() %}\n{{ key | plain }}: {{ value.value }}\n{% endfor %}\n"

HOSTILE = {
    "a loop in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a range without end": "{% for a in range(10**12) %}{% endfor %}",
    "a long text": "{{ 'x' * 10**10 }}",
    "a text that fits memory": "{{ 'x' * (2 * 10**6) }}",
    "a number": "{{ (10 ** (10 ** 8)) | string }}",
    "a number while compiling": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "a text that doubles": "{% set n = namespace(t='x') %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
    "a padded format": "{{ '%10000000000d' % 1 }}",
    "a recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "deep YAML": "a: {{ ('[' * 5000) | plain }}",
    "aliases": "a: &a [1]\n{% for i in range(40) %}\nx{{ i }}: &x{{ i }} [*a, *a]\n{% endfor %}",
    "another file": "{% include '/etc/passwd' %}",
    "an attribute of Python's": "{{ values.__class__.__mro__[1].__subclasses__() }}",
}

# The peak memory of a command, in KiB. Its own process is small: a child's peak counts from
# before it became another program, when it was a copy of its parent.
_MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def make(folder: Path, template: str, environ: dict[str, str]) -> Result:
    (folder / "mine.j2").write_text(template)
    full = clean_environ(**environ, SFT_TEMPLATE="mine.j2")
    return envtune("configure", "--output", "made.yaml", cwd=folder, environ=full)


def test_a_template_lays_out_by_its_variable_and_by_its_flag(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    done = make(tmp_path, MINE, {**settings, "AXOLOTL_WANDB_NAME": "é: #1 - \n'x'"})
    assert done.code == 0, done.err
    made = (tmp_path / "made.yaml").read_text()
    assert made.startswith("# mine\nbase_model: /")
    assert yaml.safe_load(made)["wandb_name"] == "é: #1 - \n'x'"
    arguments = ("configure", "--template", "mine.j2", "--output", "again.yaml")
    environ = clean_environ(**settings, AXOLOTL_WANDB_NAME="é: #1 - \n'x'", SFT_TEMPLATE="none")
    done = envtune(*arguments, cwd=tmp_path, environ=environ)
    assert done.code == 0, done.err
    assert (tmp_path / "again.yaml").read_text() == made


def test_a_plain_yaml_gives_defaults_by_the_flag_too(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    (tmp_path / "mine.yaml").write_text("lora_r: 7\n")
    environ = clean_environ(**settings)
    arguments = ("configure", "--template", "mine.yaml", "--output", "made.yaml")
    done = envtune(*arguments, cwd=tmp_path, environ=environ)
    assert done.code == 0, done.err
    assert yaml.safe_load((tmp_path / "made.yaml").read_text())["lora_r"] == 7


def test_a_run_and_a_check_take_the_template_too(tmp_path: Path, settings: dict[str, str]) -> None:
    (tmp_path / "mine.j2").write_text(MINE + "lora_r: 1\n")
    environ = clean_environ(**settings, SFT_TEMPLATE="mine.j2")
    for verb in ("check", "run"):
        done = envtune(verb, cwd=tmp_path, environ=environ)
        assert done.code == 1
        assert done.lines[-1].endswith("mine.j2 loses or changes lora_r"), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.j2"]


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_template_is_refused_in_little_time_and_memory(
    tmp_path: Path, settings: dict[str, str], template: str
) -> None:
    (tmp_path / "mine.j2").write_text(MINE + template)
    environ = clean_environ(**settings, SFT_TEMPLATE="mine.j2")
    command = [str(ROOT / ".venv" / "bin" / "envtune"), "configure", "--output", "made.yaml"]
    started = time.monotonic()
    done = execute([sys.executable, "-c", _MEASURE, *command], tmp_path, environ)
    seconds, mebibytes = time.monotonic() - started, int(done.out) >> 10
    print(f"{seconds:.1f} s, {mebibytes} MiB: {done.err}")
    assert done.code == 1, done.err
    [line] = done.err.splitlines()
    assert "mine.j2 " in line
    assert seconds < 60
    assert mebibytes < 300
    assert not (tmp_path / "made.yaml").exists()


def test_a_template_sees_no_secret(tmp_path: Path, settings: dict[str, str]) -> None:
    done = make(tmp_path, MINE + "{{ environ }}", {**settings, "HF_TOKEN": "hf_planted_1"})
    assert done.code == 1
    assert "'environ' is undefined" in done.err
    assert "hf_planted_1" not in done.err
