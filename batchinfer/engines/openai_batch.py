"""The engine `openai_batch`: a server's batch API, which answers within a day and costs less.

    prompts ─► parts ─► file and batch at the server ─► asked again and again ─► answers

Parts are noted in the job's folder before they are waited for, so a run that ends meanwhile costs nothing: the next one waits on
for the same parts, and takes the answers that they came to.
"""

from __future__ import annotations

import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import TypeVar

from batchinfer.core.cost import Devices
from batchinfer.core.home import JobData
from batchinfer.core.records import Failure, Generation, Info, Prompt
from batchinfer.engines.batch_api import BatchApi
from batchinfer.engines.batch_parts import FOLDER, BatchPart, PartShelf
from batchinfer.engines.batch_work import LOST, Underway, fault_of
from batchinfer.engines.dialects import Dialect
from batchinfer.engines.protocol import EngineConfig, EngineInfo, Task
from batchinfer.engines.replies import Asked
from batchinfer.engines.served_model import check_batches
from batchinfer.engines.server_api import Away, Broken, Forbidden, NoEntry, Refused, ServerApi, Unpaid, refusal_of
from batchinfer.engines.server_engine import EngineClock, ServerEngine, api_of
from batchinfer.errors import CutShort, ModelError, Stopped, counted
from batchinfer.job.engine_spec import OpenAIBatchSpec
from batchinfer.job.reader import Job

MOST_PARTS = 8  # that the server works on at a time
MOST_BYTES = 64 << 20  # of a part's file
STALL_SECONDS = 600.0
Value = TypeVar("Value")


class OpenAIBatchEngine(ServerEngine):
    """Hands prompts over in parts. It is a `protocol.Engine`."""

    devices = Devices("server", 0)  # it is paid by the token

    def __init__(
        self, api: ServerApi, job: Job, spec: OpenAIBatchSpec, config: EngineConfig, shelf: PartShelf, *,
        info: Info = lambda _: None, meanwhile: Callable[[], object] = lambda: None, clock: EngineClock | None = None,
    ) -> None:  # fmt: skip
        super().__init__(api, job, spec, config, most=spec.part, info=info, meanwhile=meanwhile, clock=clock)
        self._spec, self._shelf = spec, shelf
        self._batches = BatchApi(api, self._pause)
        self._underway: list[Underway] = []
        self._asked: dict[str, Asked] = {}  # prompts that have no answer yet, by key
        self._next: deque[Asked] = deque()  # those of them that no part has
        self._taken: list[Underway] = []  # parts that are done
        self._is_full = False  # whether a part was one too many, and none was done since
        self._has_told = False  # whether it was said what earlier runs handed over
        self._ended: Stopped | None = None  # why no further part is handed over

    def generate(self, task: Task, prompts: Iterable[Prompt]) -> Iterator[Generation | Failure]:
        dialect, waiting, is_read = self._dialect(task), iter(prompts), False
        self._asked.clear()
        self._next.clear()
        self._ended, self._is_full, self._has_told = None, False, False
        self._heard = self._clock.now()
        self._underway = [Underway(part, set(part.keys)) for part in self._noted(dialect)]
        before = list(self._underway)
        while True:
            is_read = is_read or self._read(waiting)
            self._tell_of(before)
            if not self._asked and is_read:
                break
            if self._hand_over(dialect, is_read=is_read):
                continue
            yield from self._take_answers(dialect, is_read=is_read)
            if self._ended is not None:
                raise self._ended

    def _noted(self, dialect: Dialect) -> list[BatchPart]:
        """Parts of earlier runs whose answers are those that would come of the same requests now."""
        assert self._served is not None
        return self._shelf.of(self._api.base_url, self._served.name, dialect.path)

    def _tell_of(self, before: list[Underway]) -> None:
        """Says once what is waited for of parts of earlier runs."""
        count = sum(len(each.part.keys) - len(each.unseen) for each in before)
        if count and not self._has_told:
            self._has_told = True
            self._info(f"{counted(count, 'row')} were handed over before: what they came to is waited for.")

    def _read(self, waiting: Iterator[Prompt]) -> bool:
        """Takes prompts until a part is full that may be handed over; returns whether that were all."""
        owners = {key: each for each in self._underway for key in each.unseen}
        while len(self._next) < self._spec.part:
            prompt = next(waiting, None)
            if prompt is None:
                return True
            key, asked = prompt.prompt_key.hex(), Asked(prompt)
            self._asked[key] = asked
            if (owner := owners.get(key)) is not None:
                owner.unseen.discard(key)
            else:
                self._next.append(asked)
        return False

    def _hand_over(self, dialect: Dialect, *, is_read: bool) -> bool:
        """Hands a full part over, or the last one, if the server may have more; returns whether it did."""
        is_full = is_read or len(self._next) >= self._spec.part
        at_work = sum(not (each.is_done or each.is_idle) for each in self._underway)
        if not self._next or not is_full or (self._is_full and at_work) or at_work >= MOST_PARTS:
            return False
        self._meanwhile()
        keys, content = self._file(dialect)
        file = self._patiently(partial(self._batches.upload, content))
        assert self._served is not None
        part = self._shelf.begin(self._api.base_url, self._served.name, dialect.path, file, keys)
        self._underway.append(Underway(self._made(part, dialect), set(), is_first=not at_work))
        return True

    def _file(self, dialect: Dialect) -> tuple[tuple[str, ...], bytes]:
        """The next part, as its keys and the lines of its file."""
        keys, lines, size = list[str](), list[bytes](), 0
        while self._next and len(keys) < self._spec.part:
            prompt = self._next[0].prompt
            key = prompt.prompt_key.hex()
            request = {"custom_id": key, "method": "POST", "url": f"/v1{dialect.path}", "body": dialect.body(prompt)}
            line = json.dumps(request).encode() + b"\n"
            if keys and size + len(line) > MOST_BYTES:
                break
            self._next.popleft()
            keys.append(key)
            lines.append(line)
            size += len(line)
        return tuple(keys), b"".join(lines)

    def _made(self, part: BatchPart, dialect: Dialect) -> BatchPart:
        """The part with its batch. Raises ModelError, and forgets the part, where the server takes no batch of its file."""
        try:
            batch = self._patiently(partial(self._batches.make, part.file, f"/v1{dialect.path}"))
        except ModelError:
            self._shelf.drop(part)
            raise
        part = self._shelf.name_batch(part, batch)
        self._info(f"Handed {counted(len(part.keys), 'row')} over as batch {part.batch}.")
        return part

    def _is_made(self, each: Underway, dialect: Dialect) -> bool:
        """Makes the batch of a part of an earlier run, if it has none. Where that cannot be, its rows are handed over again."""
        try:
            each.part = each.part if each.part.batch is not None else self._made(each.part, dialect)
        except ModelError:  # its file is not there any more
            self._hand_back(each)
            return False
        return True

    def _hand_back(self, each: Underway) -> None:
        """The rows of a part that the server has not."""
        self._underway.remove(each)
        self._next.extend(asked for key in each.part.keys if (asked := self._asked.get(key)) is not None)

    def _take_answers(self, dialect: Dialect, *, is_read: bool) -> Iterator[Generation | Failure]:
        """Asks once for each part whether it is done, and yields what those came to; waits if none was."""
        took = False
        for each in [each for each in self._underway if not each.is_idle]:
            self._meanwhile()
            if not self._is_made(each, dialect):
                continue
            self._look_at(each)
            if each.status == "failed":
                self._give_back(each)
            elif each.is_done and (is_read or not each.unseen):
                took = True
                yield from self._take(each, dialect)
        if not took and self._ended is None and self._asked:
            self._check_late()
            self._pause()

    def _look_at(self, each: Underway) -> None:
        """How a part stands now."""
        if each.is_done:
            return
        batch = str(each.part.batch)
        each.content = self._if_known(partial(self._batches.look, batch)) or {"status": LOST}
        if each.status == LOST:
            self._info(
                f"The server at {self._api.base_url} knows of no batch {batch} any more: its rows are asked again."
            )
        if each.is_done:
            self._is_full = False

    def _check_late(self) -> None:
        """Raises CutShort where nothing is waited for but parts that should have been done long ago."""
        waiting = [each for each in self._underway if not (each.is_done or each.is_idle)]
        if waiting and all(each.part.is_late for each in waiting):
            raise CutShort(
                f"The batch {waiting[0].part.batch} was handed over at {waiting[0].part.made}, and is still "
                f"{waiting[0].status} at {self._api.base_url}.",
                fix="Look there why, or cancel it there; then run the job again to resume.",
            )

    def _pause(self) -> None:
        """Waits until it is time to ask again; that nothing was heard meanwhile is no reason to be impatient."""
        poll = self._spec.poll.total_seconds()
        until = self._clock.now() + poll
        self._heard += poll
        while (left := until - self._clock.now()) > 0:
            self._meanwhile()
            self._clock.sleep(min(left, 1.0))

    def _take(self, each: Underway, dialect: Dialect) -> Iterator[Generation | Failure]:
        """What a part came to. Prompts without an answer are handed over again, up to four times if they are to blame for that."""
        self._underway.remove(each)
        self._taken.append(each)
        for name in ("output_file_id", "error_file_id"):
            if file := each.content.get(name):
                for key, result in self._answers(str(file), dialect):
                    each.given.add(key)
                    yield result
        rest = [(key, asked) for key in each.part.keys if (asked := self._asked.get(key)) is not None]
        if rest and each.status == "expired":
            said = f"The batch {each.part.batch} expired at {self._api.base_url}"
            self._info(f"{said}: {counted(len(rest), 'row')} are handed over again.")
        fault = each.fault
        for key, asked in rest:
            failure = None if fault is None else asked.strike(asked.fault or fault)
            if failure is not None:
                del self._asked[key]
                each.given.add(key)
                yield failure
            else:
                self._next.append(asked)
                each.settled.add(key)
        if each.status == "cancelled":
            self._ended = Stopped(f"The batch {each.part.batch} was cancelled at {self._api.base_url}.")

    def committed(self, keys: Iterable[bytes]) -> None:
        """What was yielded for them is in the cache: asked again, it is to be answered again."""
        cached = {key.hex() for key in keys}
        for each in self._taken:
            each.settled |= each.given & cached
            if each.is_settled:
                self._shelf.drop(each.part)
        self._taken = [each for each in self._taken if not each.is_settled]

    def _answers(self, name: str, dialect: Dialect) -> Iterator[tuple[str, Generation | Failure]]:
        """The answers in one of the server's files that were asked for. What is broken is as if it were not there."""
        with tempfile.TemporaryFile() as file:
            if not self._if_known(partial(self._batches.fetch, name, file)):
                self._info(f"The server at {self._api.base_url} has no file {name} any more: its rows are asked again.")
                return
            for line in file:
                key, result = self._answer(line, dialect)
                if result is not None:
                    del self._asked[key]
                    yield key, result

    def _answer(self, line: bytes, dialect: Dialect) -> tuple[str, Generation | Failure | None]:
        """The key and the answer that a line has; None where there is none, or nobody asked."""
        asked = None
        try:
            content = json.loads(line)
            key = str(content["custom_id"])
            if (asked := self._asked.get(key)) is None:
                return key, None
            response = content.get("response") or fault_of(content["error"])
            if (refusal := refusal_of(response)) is not None:
                return key, asked.refused(refusal)
            return key, dialect.read(asked.prompt, response["body"])
        except Broken as exc:
            if asked is not None:
                asked.fault = exc
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError):
            pass
        return "", None

    def _give_back(self, each: Underway) -> None:
        """A part that the server did not take, and nobody pays for: it is one too many, unless it was alone."""
        self._hand_back(each)
        self._shelf.drop(each.part)
        self._is_full = True
        if each.is_first or not each.is_too_many:
            raise ModelError(
                f"The server at {self._api.base_url} does not take the batch {each.part.batch}: {each.why}.",
                field=("engine",),
            )

    def _if_known(self, call: Callable[[], Value | None]) -> Value | None:
        """What a call comes to; None where the server says twice, a while apart, that it has no such thing: it was paid."""
        found = self._patiently(call)
        if found is None:
            self._pause()
            found = self._patiently(call)
        return found

    def _patiently(self, call: Callable[[], Value]) -> Value:
        """What a call comes to, however often it is to be made. Raises Stopped at the end of patience, or where the key is refused."""
        while True:
            if self._away is None:
                try:
                    found = call()
                except (Away, Broken) as exc:
                    self._lose(exc)
                except (LookupError, TypeError, AttributeError):
                    self._lose(Broken("sent a reply that lacks what it must have"))
                except Forbidden as exc:  # as something before the server may say
                    self._lose(exc)
                except NoEntry as exc:
                    again = "once it is paid" if isinstance(exc, Unpaid) else "with a key that it takes"
                    raise CutShort(
                        f"The server at {self._api.base_url} {exc.said}. Run the job again {again}."
                    ) from exc
                except Refused as exc:
                    raise ModelError(
                        f"The server at {self._api.base_url} refuses a batch: {exc.said}.", field=("engine",)
                    ) from exc
                else:
                    self._hear()
                    return found
            self._wait()

    def wait_ready(self) -> EngineInfo:
        info = super().wait_ready()
        self._patiently(partial(check_batches, self._api))
        return info

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._taken:
            self._shelf.keep_rest(each.part, [key for key in each.part.keys if key not in each.settled])
        super().__exit__(kind, exc, trace)


def openai_batch_engine(
    job: Job, data: JobData, spec: OpenAIBatchSpec, config: EngineConfig, info: Info, meanwhile: Callable[[], object]
) -> OpenAIBatchEngine:
    """The engine of a job. Raises UsageError."""
    api = api_of(spec, connections=1, stall_seconds=STALL_SECONDS)
    return OpenAIBatchEngine(api, job, spec, config, PartShelf(data.folder / FOLDER), info=info, meanwhile=meanwhile)
