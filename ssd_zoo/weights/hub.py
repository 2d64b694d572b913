"""Downloads from and uploads to the Hugging Face Hub, through its client."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from ssd_zoo.weights.files import home, replacing
from ssd_zoo.weights.formats.safetensors_file import DIGEST, digest_of, encode_header, parse_header

__all__ = ["fetch_model", "fetch_tensors", "upload_folder"]

_CHUNK = 8 * 2**20
# Bytes that the client reads ahead; they hold the header of a usual file.
_AHEAD = 2**16
_TRIES = 3
_TRANSPORTS = ("requests", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3")


def fetch_model(repo: str, files: Sequence[str]) -> Path:
    """Download files of one commit, or find them in the Hub's cache.

    Args:
        repo: `owner/name@revision`; by default the main branch. Cached files of a full commit hash need no request.
        files: Names of the files; all are taken from one commit.

    Returns:
        The folder that holds them.

    Raises:
        FileNotFoundError: If there is no such repository, revision or file.
        ConnectionError: If the Hub can't be reached and the files are not in the cache.
        PermissionError: If the repository asks for a token, or for another one.
        ValueError: If `repo` is not the name of a repository.
    """
    from huggingface_hub import hf_hub_download

    name, _, revision = repo.partition("@")

    def fetch() -> Path:
        first, *others = files
        folder = Path(hf_hub_download(name, first, revision=revision or None)).parent
        for file in others:
            # The branch may have moved since; take all files from the commit of the first.
            hf_hub_download(name, file, revision=folder.name)
        return folder

    with _explained(name, revision):
        for _ in range(_TRIES - 1):
            try:
                return fetch()
            except Exception as error:
                if not _broke_off(error):
                    raise
        return fetch()


def fetch_tensors(repo: str, prefixes: tuple[str, ...], *, progress: bool = True) -> Path:
    """Download part of a repository's `model.safetensors`, by tensor names.

    Args:
        repo: `owner/name@revision`.
        prefixes: Beginnings of the wanted tensors' names. One without a tensor is ignored.
        progress: Whether to show a progress bar on stderr.

    Returns:
        A safetensors file of these tensors, by their whole names, in `SSD_ZOO_HOME`. Later calls reuse it, even if the
        branch has moved.

    Raises:
        FileNotFoundError: If there is no such repository, revision or file.
        ConnectionError: If the Hub can't be reached and the tensors are not in `SSD_ZOO_HOME`.
        PermissionError: If the repository asks for a token, or for another one.
        ValueError: If the file is not a safetensors file, or no prefix has a tensor.
    """
    name, _, revision = repo.partition("@")
    key = hashlib.sha256(f"{repo} {prefixes}".encode()).hexdigest()[:8]
    kept = home() / f"{name.replace('/', '--')}-{key}.safetensors"
    if not kept.exists():
        from huggingface_hub import HfApi, HfFileSystem

        with _explained(name, revision):
            # The branch may move during the download; take all ranges from one commit.
            commit = HfApi().model_info(name, revision=revision or None).sha
            files = HfFileSystem(skip_instance_cache=True)
            with files.open(f"{name}/model.safetensors", revision=commit, block_size=_AHEAD) as source:
                source.cache.fetcher = partial(_fetch_exactly, source.cache.fetcher)
                _copy_tensors(source, kept, prefixes, what=name, progress=progress)
    return kept


def _fetch_exactly(fetch: Callable[[int, int], bytes], start: int, stop: int) -> bytes:
    """Fetch bytes `start` to `stop`; raise ConnectionError if others come.

    Some proxies send the whole file instead, which the client would take for the range.
    """
    found = fetch(start, stop)
    if len(found) != stop - start:
        raise ConnectionError(
            f"The Hub was asked for {stop - start} bytes and sent {len(found)}: a proxy on the way does not know "
            "ranges. Try again, or through another network."
        )
    return found


def _copy_tensors(source: "_Remote", kept: Path, prefixes: tuple[str, ...], *, what: str, progress: bool) -> None:
    """Copy tensors of a safetensors file on the Hub to a new file with a digest.

    Args:
        source: The open file on the Hub.
        kept: Path of the new file.
        prefixes: Beginnings of the tensors' names.
        what: Name of the repository, for messages.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If the file is damaged, or no tensor has such a name.
    """
    from tqdm import tqdm

    header = parse_header(source, source.size, f"model.safetensors of {what}")
    wanted = {name: entry for name, entry in header.entries.items() if name.startswith(prefixes)}
    if not wanted:
        raise ValueError(
            f"{what} has no tensors {', '.join(prefixes)}; it has {', '.join(list(header.entries)[:5])}, …"
        )
    moved, end = {}, 0
    for name, entry in wanted.items():
        length = entry.stop - entry.start
        moved[name] = entry._replace(start=end, stop=end + length)
        end += length
    unknown = digest_of(moved, [])
    with replacing(kept) as target, tqdm(total=end, unit="B", unit_scale=True, desc=what, disable=not progress) as bar:
        target.write(encode_header(moved, {"format": "pt", DIGEST: unknown}))

        def copied() -> Iterator[bytes]:
            for entry in wanted.values():
                source.seek(header.start + entry.start)
                left = entry.stop - entry.start
                while left:
                    chunk = source.read(min(_CHUNK, left))
                    if not chunk:
                        raise ValueError(f"model.safetensors of {what} is cut off.")
                    target.write(chunk)
                    bar.update(len(chunk))
                    left -= len(chunk)
                    yield chunk

        digest = digest_of(moved, copied())
        target.seek(0)
        target.write(encode_header(moved, {"format": "pt", DIGEST: digest}))


class _Remote(Protocol):
    """An open file on the Hub."""

    size: int

    def read(self, size: int, /) -> bytes: ...

    def seek(self, place: int, /) -> object: ...


def upload_folder(
    folder: Path,
    repo: str,
    *,
    revision: str | None,
    private: bool | None,
    token: str | None,
    commit_message: str,
    create_pr: bool,
    keep: Sequence[str],
) -> str:
    """Upload a folder's files in one commit; create the repository if needed.

    Args:
        folder: The folder.
        repo: `owner/name`.
        revision: The branch; by default the main one.
        private: Whether a new repository is private.
        token: The Hub's token.
        commit_message: The commit's message.
        create_pr: Whether to open a pull request instead of a commit to the branch.
        keep: Names of files that stay as they are if the repository has them.

    Returns:
        Address of the commit.

    Raises:
        ConnectionError: If the Hub can't be reached, or fails.
        FileNotFoundError: If there is no such repository or revision.
        PermissionError: If the repository asks for a token, or for another one.
        ValueError: If `repo` is not the name of a repository.
    """
    from huggingface_hub import HfApi

    with _explained(repo, revision):
        api = HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None and not create_pr:
            api.create_branch(repo, branch=revision, exist_ok=True)
        kept = [file for file in keep if api.file_exists(repo, file, revision=revision)]
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
            ignore_patterns=kept,
        )
        return commit.commit_url


@contextlib.contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """Within a with-statement, turn the client's errors into built-in ones with a way out.

    They are ValueError for an invalid name, PermissionError, FileNotFoundError and ConnectionError; other errors pass.
    """
    from huggingface_hub import errors

    login = "Log in by `hf auth login`, or set HF_TOKEN."
    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(f"{repo!r} is not the name of a repository, 'owner/name': {_line(error)}") from error
    except errors.GatedRepoError as error:
        raise PermissionError(f"{repo} is gated: ask for access on its page on the Hub. {login}") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(f"The Hub has no repository {repo}, or it is private. {login}") from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo} has no revision {revision!r}.") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ConnectionError(
            f"{repo} is not in the Hub's cache, and the Hub can't be reached: {_line(error.__cause__ or error)} "
            "Fetch it once with a network, or give the path of a folder."
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(f"{repo} was not saved by ssd_zoo: {_line(error)}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise PermissionError(f"The Hub refuses the token for {repo}: {_line(error)} {login}") from error
        raise ConnectionError(f"The Hub failed on {repo}: {_line(error)}") from error
    except Exception as error:
        if _broke_off(error):
            raise ConnectionError(
                f"The connection to the Hub broke off at {repo}: {_line(error)} Try again."
            ) from error
        raise


def _broke_off(error: Exception) -> bool:
    """Return whether an error is one of the connection."""
    # The client uses requests or httpx, depending on its version; their errors share no base class.
    return type(error).__module__.partition(".")[0] in _TRANSPORTS


def _line(error: BaseException) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split())
