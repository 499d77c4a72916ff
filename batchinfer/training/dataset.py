"""Labels to rows: what an adapter learns, and what it is held against, as tokens.

    labels ──────┬─► learned ──► prompts with the tokens of their answers
                 └─► held out ─┐
    golden rows ───────────────┴─► prompts with the tokens of all choices

Golden rows are never learned. Where the job names some, the adapter is held against them, and learns all labels.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchinfer.core.columns import query_text, query_words
from batchinfer.core.keys import canonical_json, short
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import InputError, TooFewRows, UsageError, counted
from batchinfer.job.finetune_spec import FinetuneSpec
from batchinfer.planning.prepare import Prepared
from batchinfer.planning.prompts import FilledPrompt, PromptMaker
from batchinfer.prompting.examples import BadExample, written_answer
from batchinfer.prompting.template import TemplateFault
from batchinfer.publish.golden import read_answers
from batchinfer.training.labels import Labels, read_labels
from batchinfer.training.records import HeldRow, LearnedRow, TokenIds

LEAST_LEARNED, LEAST_HELD = 20, 10
MOST_LEARNED, MOST_HELD = 100_000, 1_000  # of more, a sample
SHOWN = 5  # rows that a sentence names
PARTS = 10_000  # into which keys are divided by chance
COMPARED = 50  # rows by which vLLM is compared with peft
TOKENIZED = 256  # rows at a time


@dataclass(frozen=True, slots=True)
class DataSet:
    """What an adapter is made of, always in the same order.

    learned: what it learns.
    held: what it is held against.
    learned_keys, held_keys: their lookup keys, as hashes in hexadecimal digits.
    further: some of those that it learns, as held rows, so that there are COMPARED with those held out.
    held_from: where the held rows come from, for people.
    labels: all that were read.
    left_out: how many labels were not used, by the reason.
    """

    learned: tuple[LearnedRow, ...]
    held: tuple[HeldRow, ...]
    further: tuple[HeldRow, ...]
    learned_keys: tuple[str, ...]
    held_keys: tuple[str, ...]
    held_from: str
    labels: Labels
    left_out: Mapping[str, int]

    @property
    def longest(self) -> int:
        """Tokens of the longest row that is learned."""
        return max(len(row.prompt) + len(row.answer) for row in self.learned)

    @property
    def digest(self) -> str:
        """Of all rows, in hexadecimal digits."""
        rows = [[row.prompt, row.answer] for row in self.learned], [[row.prompt, row.candidates] for row in self.held]
        return short(canonical_json(rows).encode()).hex()


@dataclass(frozen=True, slots=True)
class _Answered:
    """A row of the list with a right answer.

    lookup_hash: of its lookup key.
    prompt_key: of its prompt.
    answer: the right one.
    """

    lookup_hash: bytes
    prompt_key: bytes
    answer: str


def gather(
    prepared: Prepared, spec: FinetuneSpec, maker: PromptMaker, tokenizer: Tokenizer, window: int | None
) -> DataSet:
    """All rows of a training. window: tokens of a prompt and its answer together; None where nobody knows.

    Raises InputError for labels on golden rows, TooFewRows, UsageError where there is nothing to learn, and what reading
    labels raises.
    """
    labels = read_labels(prepared, spec.labels)
    golden, whole = _golden(prepared)
    places = _in_list(prepared, [*labels.answers, *golden])
    left_out = Counter({"that the model could never write": labels.unfit})
    rows = _answered(labels.answers, places, left_out)
    rows = _apart(prepared, labels, rows, golden, places, left_out)
    held = _answered(whole, places, Counter())
    held_from, held_out = "golden rows", Counter[str]()
    if len(held) < LEAST_HELD:
        held = [row for row in rows if _is_held(row, spec.holdout)]
        rows = [row for row in rows if not _is_held(row, spec.holdout)]
        held_from, held_out = "labels that it does not learn", left_out
    left_out[f"beyond the {MOST_LEARNED:,} that are learned"] += max(0, len(rows) - MOST_LEARNED)
    texts = _Tokenized(prepared, maker, tokenizer, window)
    learned = texts.of(rows[:MOST_LEARNED], left_out)
    holding = texts.of(held[:MOST_HELD], held_out)
    _check(prepared, labels, [row.answer for row, _ in learned], len(holding))
    return DataSet(
        tuple(texts.learned(prompt, row.answer) for row, prompt in learned),
        tuple(texts.held(prompt, row.answer) for row, prompt in holding),
        tuple(texts.held(prompt, row.answer) for row, prompt in learned[: max(0, COMPARED - len(holding))]),
        _keys(learned), _keys(holding),
        held_from, labels, {reason: count for reason, count in left_out.items() if count},
    )  # fmt: skip


def _keys(rows: Sequence[tuple[_Answered, TokenIds]]) -> tuple[str, ...]:
    return tuple(row.lookup_hash.hex() for row, _ in rows)


def _golden(prepared: Prepared) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """The answers of all golden rows, and of those that a model could be held against: whole ones, as it would write them."""
    job, key = prepared.job, prepared.query_list.source.key
    found, whole = dict[bytes, str](), dict[bytes, str]()
    for field, golden in (("gate.golden.path", job.spec.gate.golden), ("eval.golden.path", job.spec.eval.golden)):
        if golden is None:
            continue
        rows = read_answers(job, field, golden.path, golden.compare, key).rows
        texts = rows["answer"].to_pylist()
        answers = texts if job.spec.output.is_json else map(json.loads, texts)
        for lookup_hash, answer in zip(rows["lookup_hash"].to_pylist(), answers, strict=True):
            found[lookup_hash] = answer
            if golden.compare == "equal":
                with contextlib.suppress(BadExample):
                    whole[lookup_hash] = written_answer(answer, job.spec.output)
    return found, whole


def _in_list(prepared: Prepared, hashes: Iterable[bytes]) -> dict[bytes, bytes]:
    """The prompt keys of those of these lookup hashes that the list has."""
    db = prepared.workspace.db
    db.register("labelled", pa.table({"lookup_hash": pa.array(list(hashes), pa.binary())}))
    sql = f"SELECT lookup_hash, prompt_key FROM {prepared.query_list.first_rows_sql} SEMI JOIN labelled USING (lookup_hash)"
    found = db.execute(sql).fetchall()
    db.unregister("labelled")
    return {bytes(lookup_hash): bytes(prompt_key) for lookup_hash, prompt_key in found}


def _answered(answers: Mapping[bytes, str], places: Mapping[bytes, bytes], left_out: Counter[str]) -> list[_Answered]:
    """The rows that the list has, one for each prompt, in the order of their hashes, which is as good as chance."""
    found = dict[bytes, _Answered]()
    for lookup_hash in sorted(answers):
        prompt_key = places.get(lookup_hash)
        if prompt_key is None:
            left_out["of keys that the list does not have"] += 1
        elif prompt_key in found:
            left_out["of a prompt that another row has, too"] += 1
        else:
            found[prompt_key] = _Answered(lookup_hash, prompt_key, answers[lookup_hash])
    return list(found.values())


def _apart(
    prepared: Prepared, labels: Labels, rows: list[_Answered], golden: Mapping[bytes, str],
    places: Mapping[bytes, bytes], left_out: Counter[str],
) -> list[_Answered]:  # fmt: skip
    """The rows that are no golden rows, by the key or by the prompt. Raises InputError if people labelled such."""
    asked = {places[lookup_hash] for lookup_hash in golden if lookup_hash in places}
    met = [row for row in rows if row.lookup_hash in golden or row.prompt_key in asked]
    if met and labels.by_people:
        queries = prepared.query_list.queries([row.prompt_key for row in met[:SHOWN]])
        named = "; ".join(query_text(query) for query in queries.values())
        more = f"; and {len(met) - SHOWN:,} more" if len(met) > SHOWN else ""
        are = "is" if len(met) == 1 else "are"
        raise InputError(
            f"{counted(len(met), 'label')} of {prepared.job.name} ({labels.source}) {are} on golden rows, by which the adapter is to be "
            f"judged: {named}{more}",
            fix=_apart_again(prepared, labels, next(iter(queries.values()))),
        )
    left_out["of golden rows"] += len(met)
    golden_rows = set(met)
    return [row for row in rows if row not in golden_rows]


def _apart_again(prepared: Prepared, labels: Labels, query: Mapping[str, Any]) -> str:
    """What to do about rows that are both golden and labelled, such as this one."""
    job = prepared.job
    golden = " and ".join(
        sorted({each.path for each in (job.spec.gate.golden, job.spec.eval.golden) if each is not None})
    )
    if labels.path is not None:
        return f"take these rows out of {golden} or out of {labels.path}."
    return (
        f"take these rows out of {golden}, or name a file of other labels (finetune.labels: {{path: FILE}}). What people said of a row "
        f"goes with all else of it: batchinfer forget {job.name} {shlex.join(query_words(query))}."
    )


def _is_held(row: _Answered, share: float) -> bool:
    return int.from_bytes(row.lookup_hash[-4:]) % PARTS < share * PARTS


def _check(prepared: Prepared, labels: Labels, learned: Sequence[str], held: int) -> None:
    """Raises TooFewRows, or UsageError where there is one answer only."""
    name = prepared.job.name
    if len(learned) < LEAST_LEARNED or held < LEAST_HELD:
        raise TooFewRows(
            f"{name} has {counted(len(learned), 'label')} to learn ({labels.source}) and {held:,} to be held against: at least "
            f"{LEAST_LEARNED} and {LEAST_HELD} are wanted",
            fix="import more answers or reviews of the list's rows, or name other labels.",
        )
    if prepared.job.spec.output.choices and len(said := set(learned)) == 1:
        raise UsageError(
            f"All labels of {name} say {next(iter(said))}: an adapter would learn to say nothing else. Add labels of other answers."
        )


class _Tokenized:
    """Rows as tokens, rendered by what renders them for a run."""

    def __init__(self, prepared: Prepared, maker: PromptMaker, tokenizer: Tokenizer, window: int | None) -> None:
        assert prepared.question is not None
        self._list, self._maker, self._tokenizer, self._window = prepared.query_list, maker, tokenizer, window
        self._chat, self._output = prepared.question.chat, prepared.question.spec.output
        self._end = () if self._output.choices else (tokenizer.end_token(chat=self._chat),)
        self._choices = self._scored()

    def _scored(self) -> dict[str, tuple[TokenIds, int]]:
        """The tokens of each choice that are scored, and their length."""
        scoring = self._maker.scoring
        if scoring is None:
            return {}
        parts = (
            [((token,), 1) for token in scoring.first_tokens]
            if scoring.first_tokens is not None
            else [(part.token_ids, part.length) for part in scoring.continuations]
        )
        return dict(zip(self._output.choices or [], parts, strict=True))

    def of(self, rows: Sequence[_Answered], left_out: Counter[str]) -> list[tuple[_Answered, TokenIds]]:
        """The rows whose prompts can be made and fit the window, with their tokens."""
        found = list[tuple[_Answered, TokenIds]]()
        for start in range(0, len(rows), TOKENIZED):
            filled = self._filled(rows[start : start + TOKENIZED], left_out)
            for (row, _), prompt in zip(filled, self._maker.prompts([each for _, each in filled]), strict=True):
                if self._window is not None and len(prompt.token_ids) + len(self.answer(row.answer)) >= self._window:
                    left_out["that do not fit the model's window"] += 1
                else:
                    found.append((row, prompt.token_ids))
        return found

    def _filled(self, rows: Sequence[_Answered], left_out: Counter[str]) -> list[tuple[_Answered, FilledPrompt]]:
        values, found = self._list.rows([row.prompt_key for row in rows]), list[tuple[_Answered, FilledPrompt]]()
        for row in rows:
            try:
                own = self._list.source.template_values(values[row.prompt_key])
                found.append((row, self._maker.fill(row.prompt_key, own)))
            except TemplateFault:
                left_out["whose prompts cannot be made"] += 1
        return found

    def answer(self, text: str) -> TokenIds:
        """The tokens of an answer: those that are scored, or that a model writes, with their end."""
        if self._choices:
            return self._choices[text][0]
        [tokens] = self._tokenizer.in_place([text], chat=self._chat)
        return (*tokens, *self._end)

    def learned(self, prompt: TokenIds, answer: str) -> LearnedRow:
        return LearnedRow(prompt, self.answer(answer))

    def held(self, prompt: TokenIds, answer: str) -> HeldRow:
        if not self._choices:
            return HeldRow(prompt, (self.answer(answer),), (1,), 0)
        tokens, lengths = zip(*self._choices.values(), strict=True)
        return HeldRow(prompt, tokens, lengths, list(self._choices).index(answer))
