"""Hugging Face Hub, by addresses as ``hf://user/name``: checkpoints from it, packages to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SepViTError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+))?")
_CHECKPOINTS = (".safetensors", ".pth", ".pt", ".bin")
# A package's own file, which holds no weights.
_GOLDEN = "golden.safetensors"


@dataclass(frozen=True)
class Address:
    """A place on the Hub.

    Attributes
    ----------
    repository : str
        As ``user/name``.
    revision : str or None
        Branch, tag or commit; None for the main branch.
    file : str
        Path of a file in it; empty for the repository itself.
    """

    repository: str
    revision: str | None
    file: str


def parse_address(text: str) -> Address:
    """Read an address: ``hf://user/name[@revision][/file]``.

    Raises
    ------
    SepViTError
        If it has another shape.

    Examples
    --------
    >>> parse_address("hf://someone/sepvit@v1/lite.safetensors")
    Address(repository='someone/sepvit', revision='v1', file='lite.safetensors')
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise SepViTError(
            f"{text} is not an address on the Hub; give hf://USER/NAME, or "
            "hf://USER/NAME@REVISION/FILE"
        )
    repository, revision, file = found.groups()
    return Address(repository, revision, file or "")


def download_checkpoint(text: str) -> Path:
    """Download a checkpoint, or take it from huggingface_hub's cache.

    Parameters
    ----------
    text : str
        Its address. Without a file, the repository's only checkpoint is taken; of several, its only
        file of safetensors.

    Raises
    ------
    SepViTError
        If there is none, or one cannot be chosen; if the Hub cannot be reached, or refuses.
    """
    address = parse_address(text)
    with _saying(text):
        api = _api()
        file = address.file
        if not file:
            found = api.model_info(address.repository, revision=address.revision)
            file = _only_checkpoint(text, [one.rfilename for one in found.siblings or ()])
        path = api.hf_hub_download(address.repository, file, revision=address.revision)
    return Path(str(path))


def _only_checkpoint(text: str, files: list[str]) -> str:
    found = [name for name in files if name.endswith(_CHECKPOINTS) and _GOLDEN not in name]
    safe = [name for name in found if name.endswith(".safetensors")]
    for choice in (found, safe):
        if len(choice) == 1:
            return choice[0]
    if not found:
        raise SepViTError(f"{text} has no checkpoint: no file ends with {', '.join(_CHECKPOINTS)}")
    raise SepViTError(f"{text} has several checkpoints; name one, as {text.rstrip('/')}/{found[0]}")


def upload(address: str, files: Mapping[str, Path | bytes], message: str, private: bool) -> str:
    """Write files into a repository by one commit, all or none; it is created if missing.

    Parameters
    ----------
    address : str
        Its address; a revision must exist.
    files : mapping
        Paths in the repository, and their contents.
    message : str
        The commit's message.
    private : bool
        Whether a repository that is created is private.

    Returns
    -------
    str
        The commit's address for a browser.

    Raises
    ------
    SepViTError
        If the Hub cannot be reached, or refuses.
    """
    place = parse_address(address)
    if place.file:
        raise SepViTError(f"{address} names a file; give hf://{place.repository}")
    with _saying(address):
        from huggingface_hub import CommitOperationAdd

        api = _api()
        api.create_repo(place.repository, private=private, exist_ok=True)
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        commit = api.create_commit(
            place.repository, operations, commit_message=message, revision=place.revision
        )
    return str(commit.commit_url)


def _api() -> HfApi:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


@contextmanager
def _saying(address: str) -> Iterator[None]:
    """Turn huggingface_hub's errors into a sentence."""
    try:
        from huggingface_hub import errors
    except ModuleNotFoundError:
        raise SepViTError(
            "huggingface_hub is not installed; run: pip install 'sepvit-edge[hub]'"
        ) from None
    try:
        yield
    except errors.GatedRepoError:
        raise SepViTError(
            f"{address} asks for consent; give it on its page, then log in: hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise SepViTError(
            f"there is no {address}, or it is private; log in if it is yours: hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise SepViTError(f"{address}: there is no such revision") from None
    except errors.RemoteEntryNotFoundError:
        raise SepViTError(f"{address}: there is no such file") from None
    except errors.HFValidationError:
        raise SepViTError(f"{address} is not a name that the Hub allows") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        remedy = "; log in with the right to write: hf auth login" if status in (401, 403) else ""
        raise SepViTError(f"the Hub answered {status} for {address}{remedy}") from None
    except (errors.LocalEntryNotFoundError, errors.HTTPError, ConnectionError):
        raise SepViTError(f"the Hub cannot be reached for {address}; check the network") from None
