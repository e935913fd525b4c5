"""The settings of the place where a run works: how it ends there, what it may cost, its network."""

from envtune.machine.certificates import CA_BUNDLE, INSECURE
from envtune.settings.own.setting import FLAG, TEXT, Own

ON_FINISH, ON_FAIL = "SFT_ON_FINISH", "SFT_ON_FAIL"
NOTIFY = "SFT_NOTIFY_URL"
MAX_HOURS, MAX_USD, PRICE = "SFT_MAX_HOURS", "SFT_MAX_USD", "SFT_USD_PER_HOUR"

STATUS_PORT, STATUS_HOST, STATUS_TOKEN = "SFT_STATUS_PORT", "SFT_STATUS_HOST", "STATUS_TOKEN"

_ACTION = {"enum": ["exit", "idle", "stop", "terminate"]}
_AMOUNT = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}

ENDING: dict[str, Own] = {
    ON_FINISH: Own(
        _ACTION, "exit", "after success: exit, stay for a shell, or stop or terminate RunPod's pod"
    ),
    ON_FAIL: Own(
        _ACTION,
        None,
        "the same after a failure; by default exit, and stop on a pod where no restart would help",
    ),
    NOTIFY: Own(
        TEXT,
        None,
        "a secret: where an end is told, a webhook of Slack or Discord, a topic of ntfy, or any "
        "address that takes JSON",
    ),
    MAX_HOURS: Own(
        _AMOUNT, None, "hours that a run may work in all its starts; then it saves and ends with 7"
    ),
    MAX_USD: Own(_AMOUNT, None, "the same in dollars, by the pod's price or SFT_USD_PER_HOUR"),
    PRICE: Own(_AMOUNT, None, "dollars that an hour costs, where RunPod is not to be asked"),
}

NETWORK: dict[str, Own] = {
    CA_BUNDLE: Own(
        TEXT, None, "a PEM file of the certificates that every client trusts, in place of its own"
    ),
    INSECURE: Own(FLAG, False, "verify no certificate; whoever is on the way can read and change"),
}

LOOKING_ON: dict[str, Own] = {
    STATUS_PORT: Own(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "null"}]},
        None,
        "port of the live page, /status.json, /healthz and /metrics of a run; off by default",
    ),
    STATUS_HOST: Own(
        TEXT, "127.0.0.1", "address that it listens on; others than loopback need STATUS_TOKEN"
    ),
}

PLACE: dict[str, Own] = {**ENDING, **NETWORK, **LOOKING_ON}
