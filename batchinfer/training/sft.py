"""Takes the steps of a training by TRL's SFTTrainer, as is done on GPUs.

Rows, their order, learning rates and the optimizer are those of the plain loop, and so is the loss: the mean over the answers' tokens.
Both come to the same adapter, but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from datasets import Dataset, disable_progress_bars
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from batchinfer.training.records import Course, LearnedRow

LearnedBatch = Sequence[LearnedRow]


def take_steps(
    course: Course, model: Any, optimizer: Any, batches: Sequence[LearnedBatch], before: Callable[[], None], after: Callable[[float], None],
) -> None:  # fmt: skip
    """Takes a step for each batch, in their order.

    model: with an adapter that is trained. before: called before each step, to set the optimizer's learning rate. after: called after it
    with its loss, in nats a token; what it raises ends the training.
    """
    if batches:
        trainer_of(course, model, optimizer, batches, before, after).train()


def trainer_of(
    course: Course, model: Any, optimizer: Any, batches: Sequence[LearnedBatch], before: Callable[[], None], after: Callable[[float], None],
) -> SFTTrainer:  # fmt: skip
    """What `take_steps` trains with."""
    disable_progress_bars()
    rows = list(dict.fromkeys(row for batch in batches for row in batch))
    places = {row: place for place, row in enumerate(rows)}
    trainer = _Trainer(
        model, _config(course), train_dataset=Dataset.from_list([_marked(row) for row in rows]),
        processing_class=_padding(AutoTokenizer.from_pretrained(course.source, revision=course.revision, trust_remote_code=False)),
        optimizers=(optimizer, LambdaLR(optimizer, lambda _: 1.0)),
    )  # fmt: skip
    trainer.batches = [[places[row] for row in batch] for batch in batches]
    trainer.add_callback(_EachStep(trainer, before, after))
    return trainer


def _padding(tokenizer: Any) -> Any:
    """The tokenizer, which fills short rows with any token where it knows none for that: nothing there is looked at."""
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _config(course: Course) -> SFTConfig:
    """In float32, as the plain loop. Nothing is saved, and nobody is told: that is done step by step."""
    return SFTConfig(
        output_dir=str(course.draft), seed=course.seed, use_cpu=course.placement.is_cpu,
        completion_only_loss=True, max_length=None, num_train_epochs=1, per_device_train_batch_size=course.batch,
        max_grad_norm=0.0, router_aux_loss_coef=0.0, bf16=False, gradient_checkpointing=False, save_strategy="no", logging_strategy="no",
        report_to="none", disable_tqdm=True,
    )  # fmt: skip


def _marked(row: LearnedRow) -> dict[str, list[int]]:
    """All tokens of a row, and which of them the loss is on."""
    return {
        "input_ids": [*row.prompt, *row.answer],
        "completion_mask": [0] * len(row.prompt) + [1] * len(row.answer),
    }


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """batches: the numbers of the rows of each step. loss: of the last one."""

    batches: Sequence[Sequence[int]] = ()
    loss = 0.0

    def get_train_dataloader(self) -> Any:
        return self.accelerator.prepare(
            DataLoader(self.train_dataset, batch_sampler=_InOrder(self.batches), collate_fn=self.data_collator)
        )

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        self.loss = float(loss)
        return loss


class _InOrder:
    """Batches as they come."""

    def __init__(self, batches: Sequence[Sequence[int]]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, self._batches)


class _EachStep(TrainerCallback):  # type: ignore[misc]
    """Calls what is to be done before and after each step."""

    def __init__(self, trainer: _Trainer, before: Callable[[], None], after: Callable[[float], None]) -> None:
        self._trainer, self._before, self._after = trainer, before, after

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._before()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._after(self._trainer.loss)
