"""`patchlight push`: a run's model exported and uploaded to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from patchlight.commands.export import ExportResult, export
from patchlight.errors import PatchlightError, UsageError
from patchlight.models.families.hub import first_line
from patchlight.runs import Run


@dataclass(frozen=True, kw_only=True)
class PushResult(ExportResult):
    """An export that is on the hub; its folder is None, as it was a temporary one."""

    url: str


def push(run: str | Path | Run, repository: str, *, format: str = "timm", private: bool = False) -> PushResult:
    """Export the run's model as `format`, a row of FORMATS, and upload it to the hub's repository `OWNER/NAME`.

    The repository is made if there is none, `private` if so. Raises UsageError for another form of name, and
    PatchlightError where `export` does, where the hub refuses, as without a login, and where it cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError

    if repository.count("/") != 1:
        raise UsageError(f"a repository is OWNER/NAME, not '{repository}'")
    with tempfile.TemporaryDirectory() as folder:
        exported = export(run, format, out=folder)
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Patchlight's export")
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
            reason = f"the hub refused {repository}: {first_line(error)}; `hf auth login` logs in"
            raise PatchlightError(reason) from None
        except (HTTPError, ConnectionError, TimeoutError) as error:  # the last two: offline mode, and of the system
            raise PatchlightError(f"the hub cannot be reached: {first_line(error)}; try again with a network") from None
    return PushResult(**{**vars(exported), "folder": None}, url=f"https://huggingface.co/{repository}")
