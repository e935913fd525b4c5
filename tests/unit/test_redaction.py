"""What is a secret by its name and in an address, and a text in which no form of it is left."""

import base64
import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from envtune import redaction

SECRET_NAMES = """
HF_TOKEN HF_TOKEN_READ HUGGING_FACE_HUB_TOKEN GITHUB_PAT GH_PAT PAT_OF_CI DB_PASS PGPASS PGPASSWORD
MYSQL_PWD DB_PASSWORD DB_PASSWORD_OLD SSH_PASSPHRASE SLACK_WEBHOOK_URL TEAMS_WEBHOOK WEBHOOKS
OTEL_EXPORTER_OTLP_HEADERS HTTP_HEADERS AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
GOOGLE_CREDENTIALS AZURE_CREDENTIALS_JSON CREDENTIALS OPENAI_API_KEY OPENAI_API_KEYS OPENAI_APIKEY
SECRET CLIENT_SECRET_V2 DOCKER_SECRETS SENTRY_DSN AZURE_STORAGE_CONNECTION_STRING wandb_api_key
SFT_X_TOKEN AXOLOTL_SWANLAB_LARK_WEBHOOK_URL AXOLOTL_COMET_API_KEY REGISTRY_AUTH SESSION_COOKIE
""".split()  # noqa: SIM905
PLAIN_NAMES = """
PATH PWD OLDPWD HOME TOKENIZERS_PARALLELISM AXOLOTL_MAX_TOKENS AXOLOTL_MAX_SAMPLE_TOKENS
AXOLOTL_SPECIAL_TOKENS__PAD_TOKEN AXOLOTL_SPECIAL_TOKENS__EOS_TOKEN AXOLOTL_EOT_TOKENS
AXOLOTL_POSE_SPLIT_ON_TOKEN_IDS AXOLOTL_TOKENIZER_TYPE AXOLOTL_LIGER_USE_TOKEN_SCALING
AXOLOTL_PEFT_TRAINABLE_TOKEN_INDICES STOP_TOKEN_IDS PAD_TOKEN_ID EOS_TOKEN_ID MAX_NEW_TOKENS
AWS_WEB_IDENTITY_TOKEN_FILE HF_TOKEN_PATH SSH_KEY_FILE SFT_SERVE_LONG_PREFILL_TOKEN_THRESHOLD
KEYBOARD_LAYOUT MONKEY_SPECIES PATTERN COMPASS BYPASS PASSES HEADERS_SEEN AUTHOR GIT_AUTHOR_NAME
PIP_REQUIRE_HASHES AXOLOTL_BASE_MODEL AXOLOTL_TEMPLATE_THINKING_KEY SORT_KEY SECRETARY TOKENIZER
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_name_tells_of_a_secret(name: str) -> None:
    assert redaction.is_secret(name)
    assert redaction.hidden({name: "Pl4nt-0123456789"})[name].__repr__() == "[secret]"


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_a_name_tells_of_none(name: str) -> None:
    assert not redaction.is_secret(name)
    assert redaction.secrets({name: "Pl4nt-0123456789"}) == ()


VALUE = "Pl4nt@se/c#r?e+t'\"\\&=%41é-0123"
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON with its own letters": lambda v: json.dumps(v, ensure_ascii=False),
    "JSON in JSON": lambda v: json.dumps(json.dumps({"a": v})),
    "repr": repr,
    "repr of an environment": lambda v: repr({"a": v}),
    "bytes": lambda v: repr(v.encode()),
    "YAML": lambda v: "'" + v.replace("'", "''") + "'",
    "shell": lambda v: "'" + v.replace("'", "'\"'\"'") + "'",
    "HTML": html.escape,
    "a URL's path": quote,
    "a URL's part": lambda v: quote(v, safe=""),
    "a form": quote_plus,
    "hexadecimal": lambda v: v.encode().hex(),
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64 for URLs": lambda v: base64.urlsafe_b64encode(v.encode()).decode(),
    "Basic with a user": lambda v: base64.b64encode(f"ada:{v}".encode()).decode(),
    "Basic with another user": lambda v: base64.b64encode(f"adam:{v}".encode()).decode(),
    "Basic with a third": lambda v: base64.b64encode(f"admin:{v}:x".encode()).decode(),
}


def pieces(value: str) -> set[str]:
    """What of a value must be in no text: parts that no way of writing changes."""
    return {value[-8:], value.encode()[-8:].hex(), base64.b64encode(value.encode())[12:24].decode()}


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_a_secret_is_left(form: str) -> None:
    said = FORMS[form](VALUE)
    left = redaction.redact(f"before {said} after", redaction.secrets({"DB_PASS": VALUE}))
    assert "[secret]" in left, left
    assert left.startswith("before ") and left.endswith(" after")
    assert not [piece for piece in pieces(VALUE) if piece in left], left
    assert len(left) < 40


def test_every_line_of_a_secret_is_one() -> None:
    lines = [f"Pl4nt{number}-{'x1y2' * number}" for number in range(2, 6)]
    secrets = redaction.secrets({"TLS_KEY": "\n".join(lines)})
    for said in (*lines, "\n".join(lines), "\r\n".join(lines), json.dumps("\n".join(lines))):
        assert "Pl4nt" not in redaction.redact(f"a {said} b", secrets)


# An environment, and what may not be seen of it.
PARTS: tuple[tuple[dict[str, str], str], ...] = (
    ({"HTTPS_PROXY": "http://ada:Pl4nt-123456@proxy:80"}, "Pl4nt-123456"),
    ({"HTTPS_PROXY": "http://ada:Pl4nt%2F12%4056@proxy:80"}, "Pl4nt%2F12%4056"),
    ({"HTTPS_PROXY": "http://ada:Pl4nt%2F12%4056@proxy:80"}, "Pl4nt/12@56"),
    ({"HTTPS_PROXY": "http://ada:Pl4nt@1234@proxy:80"}, "Pl4nt@1234"),
    ({"HTTPS_PROXY": "http://ada:Pl4nt/1234@proxy:80"}, "Pl4nt/1234"),
    ({"HTTPS_PROXY": "http://ada:Pl4nt#1234@proxy:80"}, "Pl4nt#1234"),
    ({"HTTPS_PROXY": "http://ada:Pl4nt?1234@proxy:80"}, "Pl4nt?1234"),
    ({"HTTPS_PROXY": "http://ada:1234/Pl4nt@proxy:80"}, "1234/Pl4nt"),
    ({"HTTPS_PROXY": "http://ada:Pl4nt[12]34@proxy:80"}, "Pl4nt[12]34"),
    ({"PIP_INDEX_URL": "https://Pl4nt-token-9@pypi.example/simple"}, "Pl4nt-token-9"),
    ({"X": '{"url": "https://ada:Pl4nt-123456@h/x"}'}, "Pl4nt-123456"),
    ({"X": "a https://h/x?sig=Pl4nt%2B123456&a=b"}, "Pl4nt+123456"),
    ({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20Pl4nt-123456"}, "Pl4nt-123456"),
    ({"MY_HEADERS": "x-a=1,x-api-key=Pl4nt-123456"}, "Pl4nt-123456"),
    ({"MY_HEADERS": "Authorization: Bearer Pl4nt-123456"}, "Pl4nt-123456"),
    ({"GOOGLE_CREDENTIALS": json.dumps({"private_key": "BEGIN-ab\nPl4nt-123456\nEND"})},
     "Pl4nt-123456"),
    ({"SLACK_WEBHOOK_URL": "https://hooks.example/T0/Pl4nt"}, "https://hooks.example/T0/Pl4nt"),
)  # fmt: skip


@pytest.mark.parametrize(("environ", "part"), PARTS)
def test_a_part_of_a_value_is_hidden_too(environ: dict[str, str], part: str) -> None:
    assert part not in redaction.redact(f"<{part}>", redaction.secrets(environ))
    shown = redaction.redact(str(dict(environ)), redaction.secrets(environ))
    assert "Pl4nt" not in shown


@pytest.mark.parametrize(
    "value", ["1", "true", "password", "xxxxxxxx", "--------", "changeme", "", "12", "localhost"]
)
def test_a_trivial_value_blanks_no_log(value: str) -> None:
    assert redaction.secrets({"API_KEY": value}) == ()


@pytest.mark.parametrize(
    "url",
    ["https://host/a@b", "https://host:8080/pkg@1.2/x", "http://host/?q=a@b", "http://[::1]:80/a",
     "s3://bucket/key", "file:///a/b@c", "https://h/x?page=3", "nothing", "http://h:bad/x"],
)  # fmt: skip
def test_an_address_without_a_user_has_none(url: str) -> None:
    assert not redaction.has_user_in_url(url)
    assert redaction.without_user(url) == url


def test_the_user_goes_and_the_address_stays() -> None:
    said = "to http://ada:p/w#1@h:80/x and https://h2/y, and s3://k@b"
    assert redaction.without_user(said) == "to http://h:80/x and https://h2/y, and s3://b"


@pytest.mark.parametrize("count", [1, 60])
def test_a_megabyte_is_searched_in_a_moment(count: int) -> None:
    secrets = redaction.secrets({f"K{n}_TOKEN": f"Pl4nt{n}-0123456789/+'\"" for n in range(count)})
    text = "train: step 12/3000, loss 1.2345, 12,345 tokens/s, Pl4n Pl4nt /a/b/c.py:12\n" * 13_000
    redaction.redact("", secrets)  # the expression is made once
    started = time.process_time()
    assert redaction.redact(text, secrets) == text
    assert time.process_time() - started < 3


def test_a_webhooks_path_is_a_secret_of_its_own() -> None:
    """A client that fails names the path, or what it was redirected to."""
    url = "https://hooks.slack.com/services/T0/B0/Xq9ZkPw2aa"
    for name in ("SFT_NOTIFY_URL", "SLACK_WEBHOOK_URL"):
        found = redaction.secrets({name: url})
        for text in (url, "POST /services/T0/B0/Xq9ZkPw2aa", "no hook Xq9ZkPw2aa"):
            assert "Xq9ZkPw2aa" not in redaction.redact(text, found)
    assert (
        redaction.redact("hooks.slack.com", redaction.secrets({"SFT_NOTIFY_URL": url}))
        == "hooks.slack.com"
    )
