"""Where the trials of a sweep lie: a journal in its folder, or a data base."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gatedeploy.errors import GatedeployError, InputError, MissingExtraError, first_line
from gatedeploy.files import write_text

if TYPE_CHECKING:  # Optuna is optional, and takes long to import
    import optuna

JOURNAL = "journal.log"
IDENTITY = "sweep.json"
OWNER = "folder"


def known_storage(out: Path, storage: str | None) -> str:
    """How the storage is called in messages: without a password.

    Raises:
        InputError: it is no URL of a data base, or Optuna is not installed.
    """
    try:
        import optuna
        import sqlalchemy
    except ModuleNotFoundError as error:
        if error.name not in ("optuna", "sqlalchemy"):
            raise
        raise MissingExtraError("a sweep", error.name, "sweep") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is None:
        return str(out / JOURNAL)
    try:
        return sqlalchemy.make_url(storage).render_as_string(hide_password=True)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError(
            f"--storage: no URL of a data base; expected sqlite:///{out / 'sweep.db'}, postgresql://USER@HOST/NAME, …"
        ) from None


@contextmanager
def reached(storage: str) -> Iterator[None]:
    """Explain what goes wrong with a storage; `storage` is its name in messages."""
    import optuna
    import sqlalchemy

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        raise InputError(
            f"--storage {storage}: cannot be used: {first_line(cause)}. Next: see that it is there and that this user "
            "may write to it, then start the same command again"
        ) from error


def opened(out: Path, storage: str | None, told: str) -> optuna.Study:
    """The study of a folder, made where there is none; the study's lock is held.

    Raises:
        InputError: the storage cannot be reached, or the study in it belongs to another folder.
    """
    import optuna

    known = _identity(out, told)
    place = _storage(out, storage, told)
    identity = known or {"study": out.resolve().name, "id": uuid.uuid4().hex, "storage": _relative(out, told)}
    if known is None:  # before there is a study, which says that it belongs to this folder
        write_text(out / IDENTITY, json.dumps(identity, indent=2) + "\n")
    # Nothing is ever drawn: what is trained was added before. Optuna's usual sampler would look at all trials first.
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(
        storage=place,
        study_name=identity["study"],
        directions=["maximize", "minimize"],
        sampler=sampler,
        load_if_exists=True,
    )
    owner = study.user_attrs.get(OWNER)
    if owner is None:
        study.set_user_attr(OWNER, {"id": identity["id"], "at": f"{socket.gethostname()}:{out.resolve()}"})
    elif owner["id"] != identity["id"]:
        raise InputError(
            f"--storage {told}: holds a study {identity['study']} already, which was begun in {owner['at']}. All "
            "workers of a sweep share its folder: name that one, or another --out, after which the study is called"
        )
    return study


def _storage(out: Path, storage: str | None, told: str) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if storage is None:
        try:
            return JournalStorage(JournalFileBackend(told))
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise InputError(
                f"{told}: a damaged journal: {first_line(error)}. Choose another --out, or put back a copy"
            ) from error
    try:
        return RDBStorage(storage)
    except (ImportError, RuntimeError) as error:  # no driver, or tables of another version of Optuna
        raise InputError(f"--storage {told}: cannot be used: {first_line(error)}") from error


def _identity(out: Path, told: str) -> dict[str, str] | None:
    """What the folder's study is called and where it lies; None where there is none yet."""
    file = out / IDENTITY
    if not file.exists():
        return None
    try:
        identity = json.loads(file.read_text(encoding="utf-8"))
        known = [identity[key] for key in ("study", "id", "storage")]
    except (OSError, ValueError, KeyError, TypeError):
        known = [None]
    if not all(isinstance(each, str) for each in known):
        raise GatedeployError(f"{file}: not what a sweep wrote; choose another --out, or put back a copy")
    if identity["storage"] != _relative(out, told):
        was = identity["storage"]
        remedy = "leave --storage out" if was == JOURNAL else f"name --storage {was}"
        raise InputError(f"{out}: holds a sweep whose trials lie in {was}; {remedy}, or choose another --out")
    return {key: identity[key] for key in ("study", "id", "storage")}


def _relative(out: Path, told: str) -> str:
    return JOURNAL if told == str(out / JOURNAL) else told
