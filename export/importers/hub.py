"""A captioner of the Hugging Face hub as a local folder, without anything that could hold code.

Repositories from before safetensors have a pickle on their main branch, and the hub's own
conversion of it as an open pull request; transformers looks there, too. That branch is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecap.runtime.errors import DataError, MissingExtraError
from edgecap.training.models.published import HUB_ID

# All that is fetched: nothing in it is executed or unpickled.
FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md", "LICENSE*"]
# Who converts weights on the hub. Anybody may open a pull request; this account is the hub's own.
CONVERTER = "SFconvertbot"


def fetch(given: str) -> tuple[Path, str]:
    """The folder of a hub id, and the branch that it is where that is not the main one.

    Raises DataError for what is no hub id and where the hub gives nothing, MissingExtraError
    without huggingface_hub.
    """
    if not HUB_ID.fullmatch(given):
        raise DataError(
            f"nothing at {given}; give the folder of a transformers model, or a hub id (owner/name)"
        )
    try:
        import huggingface_hub as hub
    except ImportError:
        raise MissingExtraError(
            f"{given} is no local folder, and the hub needs huggingface_hub; "
            "install edgecap[export], or give a folder"
        ) from None
    try:
        folder = Path(hub.snapshot_download(given, allow_patterns=FETCHED))
        branch = "" if any(folder.glob("*.safetensors")) else _converted(hub, given)
        if branch:
            folder = Path(hub.snapshot_download(given, revision=branch, allow_patterns=FETCHED))
    except Exception as error:  # no network, no such repository, no access: many kinds
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{given} is no local folder, and the hub did not give it ({line}); "
            "download the repository and give its folder"
        ) from None
    return folder, branch


def _converted(hub: Any, given: str) -> str:
    """The branch with the weights as safetensors, or nothing where nobody converted them."""
    requests = hub.HfApi().get_repo_discussions(
        given, author=CONVERTER, discussion_type="pull_request"
    )
    for request in requests:
        if request.author == CONVERTER and "safetensors" in request.title.lower():
            return f"refs/pr/{request.num}"
    return ""
