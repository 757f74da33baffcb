"""Push a folder to the Hugging Face Hub; whatever it answers becomes one line with the next step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wisepatch.errors import UsageError, WisepatchError
from wisepatch.models.model_files import answered_status, causes
from wisepatch.terminal import pasted

LOG_IN = "run `hf auth login` with a token that may write, or set HF_TOKEN"


class HubError(WisepatchError):
    """The Hub, or the way to it, that refuses something."""


def check_push(repository: str) -> None:
    """Raise :class:`UsageError` for a name that is none, and :class:`HubError` offline and without a token; asks nobody."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # in its documentation

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"--push {repository} names no repository", "write OWNER/NAME") from error
    if repository.count("/") != 1:
        raise UsageError(f"--push {repository} names no owner", "write OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise HubError("nothing can be pushed: HF_HUB_OFFLINE is set", "unset it, or leave --push out")
    if not get_token():
        raise HubError("nothing can be pushed: you are not logged in to the Hugging Face Hub", LOG_IN)


def push(folder: Path, repository: str, message: str, *, quiet: bool = False) -> str:
    """Upload all files of ``folder`` to the model ``repository``, which is made where it is not there; return its address.

    The Hub's client draws bars unless it is to be ``quiet``. Raises :class:`HubError` with what to do. The folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # in its documentation

    if quiet:
        disable_progress_bars()
    with _answers(folder, repository):
        api = HfApi(library_name="wisepatch")
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return str(address)


@contextmanager
def _answers(folder: Path, repository: str) -> Iterator[None]:
    """Turn what the Hub answers, or that nobody answers, into a :class:`HubError`."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    again = f"the folder {folder} is whole; then push it with `hf upload {repository} {pasted([str(folder)])}`"
    try:
        yield
    except Exception as error:
        answer = next((each for each in causes(error) if isinstance(each, HfHubHTTPError)), None)
        status = answered_status(answer) if answer else None
        if status == 401 and not isinstance(answer, RepositoryNotFoundError):
            reason, step = "the Hub does not know your token (401)", LOG_IN
        elif status in (401, 404):
            reason, step = (
                f"the Hub has no place for it, or your token may not see it ({status})",
                "look at owner and name",
            )
        elif status == 403:
            owner = repository.partition("/")[0]
            reason, step = f"your token may not write for {owner} (403)", f"take one of {owner} with the right to write"
        elif status is not None and status >= 500:
            reason, step = f"the Hub has trouble of its own ({status})", "wait a while"
        elif status is not None:
            said = getattr(answer, "server_message", None) or str(error)
            reason, step = f"the Hub answers {status}: {' '.join(said.split())[:200]}", "mend it"
        elif _of_the_way(error):
            where = os.environ.get("HF_ENDPOINT") or "the Hub"
            reason, step = f"the connection to {where} failed: {_in_words(error)}", "look at the network"
        else:
            raise
        raise HubError(f"{repository} was not pushed: {reason}", f"{step}; {again}") from error


def _of_the_way(error: BaseException) -> bool:
    """Tell whether an error is of the network: of the library that speaks HTTP (httpx, requests), or of the system."""
    libraries = ("httpx", "httpcore", "requests", "urllib3")
    return any(
        isinstance(each, ConnectionError | TimeoutError) or type(each).__module__.startswith(libraries)
        for each in causes(error)
    )


def _in_words(error: BaseException) -> str:
    last = list(causes(error))[-1]
    return " ".join(str(last).split())[:200] or type(last).__name__
