"""A repository of the Hub to publish to: one commit, and a listing to verify it by."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envtune.transfer.hub import Hub
from envtune.transfer.stores import Denied, Held, Unreached

# Statuses that say come again: a timeout, two commits at once, too many requests.
_AGAIN = (408, 409, 412, 429)


class HubRepository:
    """A model's repository at a revision, made where it is not there."""

    def __init__(self, hub: Hub, id: str, revision: str | None, *, private: bool) -> None:
        from huggingface_hub import HfApi

        self._api = HfApi(endpoint=hub.url, token=hub.token, library_name="envtune")
        self._hub, self._id, self._revision = hub, id, revision
        self._private, self._made = private, False

    @property
    def url(self) -> str:
        """Where people look at it."""
        page = f"{self._hub.shown}/{self._id}"
        return f"{page}/tree/{self._revision}" if self._revision else page

    def listing(self) -> dict[str, Held]:
        """What is there, by name; makes the repository. Raises Denied and Unreached."""
        with self._told():
            if not self._made:
                self._make()
            tree = self._api.list_repo_tree(self._id, recursive=True, revision=self._revision)
            return {entry.path: _held(entry) for entry in tree if hasattr(entry, "size")}

    def send(self, files: Mapping[str, Path], gone: list[str]) -> None:
        """Adds files and removes others in one commit. Raises Denied and Unreached."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with self._told():
            self._api.create_commit(
                self._id,
                [
                    *(CommitOperationAdd(name, path) for name, path in files.items()),
                    *(CommitOperationDelete(name) for name in gone),
                ],
                commit_message="Publish a result of envtune",
                revision=self._revision,
            )

    def commit(self) -> str | None:
        """The newest commit. Raises Denied and Unreached."""
        with self._told():
            told = self._api.model_info(self._id, revision=self._revision)
            return str(told.sha) if told.sha else None

    def _make(self) -> None:
        made = self._api.create_repo(self._id, private=self._private, exist_ok=True)
        self._id = made.repo_id  # with its owner, where none was named
        if self._revision:
            self._api.create_branch(self._id, branch=self._revision, exist_ok=True)
        self._made = True

    @contextmanager
    def _told(self) -> Iterator[None]:
        import httpx
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except HfHubHTTPError as error:
            status = error.response.status_code
            why = error.server_message or "no reason given"
            kind = Unreached if status >= 500 or status in _AGAIN else Denied
            raise kind(f"{self.url}: {self._hub.shown} answers {status}: {why}") from error
        # A file's own upload wraps whatever went wrong into a RuntimeError.
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            cause = error.__cause__ or error
            raise Unreached(f"{self.url}: {type(cause).__name__}: {cause}") from error


def _held(entry: Any) -> Held:
    if entry.lfs:
        return Held(entry.lfs.size, "sha256", entry.lfs.sha256)
    return Held(entry.size, "git", entry.blob_id)
