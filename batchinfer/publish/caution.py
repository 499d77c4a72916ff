"""What is asked before a version is made, or compared with, that may be a mistake: another list, few or no entries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batchinfer.core.home import JobData
from batchinfer.core.job_record import AgreedList
from batchinfer.core.person import Person, ask
from batchinfer.core.records import Info
from batchinfer.errors import NotFound, StoreError, UsageError
from batchinfer.inputs.place import is_one_place, list_place
from batchinfer.job.reader import Job
from batchinfer.publish.changes import ServedChanges
from batchinfer.versions import pointers
from batchinfer.versions.folders import folder_of
from batchinfer.versions.manifest import Forced, Manifest

MOST_REMOVED = 0.5  # removing a larger share than this of what is served is asked about first


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person agreed to beforehand.

    forced: to publish although the gate refuses, with the reason.
    yes: to whatever is asked.
    allow_empty: to a version without entries.
    """

    forced: Forced | None = None
    yes: bool = False
    allow_empty: bool = False


def another_list(job: Job, data: JobData, instead: Path | None) -> str | None:
    """A sentence if the list comes from another place than that of the version served now.

    instead: the list in place of the job's own. A version that an older program made does not say where its list came from.
    """
    served, place = _served(data), list_place(job, instead)
    if served is None:
        return None
    agreed = _agreed(data, served)
    known = agreed or served.run.input
    if known is None or is_one_place(job, known, place):
        return None
    if agreed is None:
        return _differs(served, "this list is", place)
    return f"The last list, {agreed}, changed nothing of version {served.version}, which is served, but this list is {place}."


def confirm_list(job: Job, data: JobData, instead: Path | None, person: Person, *, yes: bool) -> str | None:
    """Asks before a list is taken that comes from another place than the served version's; returns what it said.

    Raises NotConfirmed.
    """
    said = another_list(job, data, instead)
    if said is not None:
        ask(person, said, "pass --yes to continue with this list, or name the other one with --input.", yes=yes)
    return said


def tell_list(job: Job, data: JobData, instead: Path | None, info: Info) -> str | None:
    """Says the same where nothing is published; returns it."""
    said = another_list(job, data, instead)
    if said is not None:
        info(said)
    return said


def confirm_candidate_list(
    job: Job, data: JobData, candidate: Manifest, name: str, person: Person, *, yes: bool
) -> str | None:
    """The same question for a candidate, by what its manifest says."""
    served, place = _served(data), candidate.run.input
    known = None if served is None else _agreed(data, served) or served.run.input
    if served is None or place is None or known is None or is_one_place(job, known, place):
        return None
    said = _differs(served, f"the candidate {name} is of", place)
    ask(person, said, "pass --yes to publish it anyway.", yes=yes)
    return said


def remember_list(data: JobData, place: str) -> None:
    """Notes the list of a publishing that changed nothing: the next list is compared with it, as with one that made a version."""
    served, record = _served(data), data.record()
    if served is None:
        return
    noted = record.without_agreed()
    if place != served.run.input:
        noted = noted.with_agreed(AgreedList(served.version, place))
    if noted != record:
        data.write_record(noted)


def _agreed(data: JobData, served: Manifest) -> str | None:
    """The list of the last publishing, if that changed nothing of this version."""
    noted = data.record().agreed
    return noted.place if noted is not None and noted.version == served.version else None


def check_not_empty(entries: int, consent: Consent) -> None:
    """Raises UsageError for a version without entries that nobody asked for."""
    if not entries and not consent.allow_empty:
        raise UsageError(
            "The new version would have no entries, so every look-up would miss: nothing was published. "
            "If that is meant, pass --allow-empty, too."
        )


def confirm_removal(changes: ServedChanges, served: int, person: Person, *, yes: bool) -> None:
    """Asks before more than half of what is served goes, and wants the number typed. Raises NotConfirmed."""
    if changes.removed <= MOST_REMOVED * served:
        return
    entries = "the only entry that is" if served == 1 else f"{changes.removed:,} of the {served:,} entries that are"
    said = f"The new version would remove {entries} served now."
    fix = "nothing was published. If that is meant, run the command again with --yes."
    ask(person, said, fix, yes=yes, typed=str(changes.removed))


def _served(data: JobData) -> Manifest | None:
    """The manifest of the version served now, if there is one that can be read: publishing says what is wrong with it."""
    try:
        pointer = pointers.served(data)
        return Manifest.read(folder_of(data, pointer.version), digest=pointer.digest)
    except (NotFound, StoreError):
        return None


def _differs(served: Manifest, this_is: str, place: str) -> str:
    return (
        f"Version {served.version}, which is served, was made from the list {served.run.input}, but {this_is} {place}."
    )
