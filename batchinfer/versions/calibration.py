"""A version's calibration.json: what was learned from people's verdicts, by which its scores are the chance of being right."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

CALIBRATION_FORMAT = 1
EDGE = 1e-6  # log-odds are of probabilities from here to 1 minus this


class Scale(StrEnum):
    """How a feature is taken: as it is, or, of a probability, its log-odds."""

    PLAIN = "plain"
    LOGIT = "logit"


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that is known of a prediction, and what it says.

    name: such as score, or length.
    scale: on which it is taken.
    mean, spread: of the judged rows, by which it is standardised.
    weight: log-odds for each spread above the mean.
    missing: log-odds where a row has no such value.
    """

    name: str
    scale: Scale
    mean: float
    spread: float
    weight: float
    missing: float


@dataclass(frozen=True, slots=True)
class ScoreModel:
    """What makes scores of a job's predictions.

    made_at: when it was learned, RFC 3339, UTC.
    verdicts: of how many verdicts.
    right: how many of them said that it is right.
    digest: SHA-256 of them, in hexadecimal digits.
    fingerprint: of the question whose answers were judged; None for a job without one.
    prior: how scores were read, as output.prior has it.
    wanted: the choice that the feature score is of; empty for the likeliest, or without choices; None in a file that does not say.
    jobs: the fingerprints of other jobs whose scores it looks at, by their names.
    kinds: what kind of scores those jobs had, such as by which calibration; empty in a file that does not say.
    group: the column whose values were held out in turn; None for rows by chance.
    groups: how many there are.
    auc: the area under the ROC curve on groups that were held out, from 0 to 1.
    ece: the expected calibration error on them.
    chance: the calibration error that so few verdicts show by chance.
    intercept: log-odds of a row whose features are all at their mean.
    features: what it looks at.
    """

    made_at: str
    verdicts: int
    right: int
    digest: str
    fingerprint: str | None
    prior: str
    jobs: Mapping[str, str | None]
    group: str | None
    groups: int
    auc: float
    ece: float
    chance: float
    intercept: float
    features: tuple[Feature, ...]
    wanted: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def excess(self) -> float:
        """The calibration error beyond what chance gives: what is left of its square."""
        return math.sqrt(max(0.0, self.ece**2 - self.chance**2))

    def to_bytes(self) -> bytes:
        """calibration.json."""
        return json.dumps({"format": CALIBRATION_FORMAT, **asdict(self)}, indent=2, ensure_ascii=False).encode()

    @classmethod
    def of(cls, data: bytes) -> ScoreModel:
        """What a file says. Raises ValueError, KeyError or TypeError for a damaged one."""
        content = json.loads(data)
        if content["format"] != CALIBRATION_FORMAT:
            raise ValueError("it has a format that this batchinfer does not know")
        fingerprint, group, wanted = content["fingerprint"], content["group"], content.get("wanted")
        return cls(
            made_at=str(content["made_at"]),
            verdicts=int(_number(content["verdicts"])),
            right=int(_number(content["right"])),
            digest=str(content["digest"]),
            fingerprint=None if fingerprint is None else str(fingerprint),
            prior=str(content["prior"]),
            jobs=dict(content["jobs"]),
            group=None if group is None else str(group),
            groups=int(_number(content["groups"])),
            auc=_number(content["auc"]),
            ece=_number(content["ece"]),
            chance=_number(content["chance"]),
            intercept=_number(content["intercept"]),
            features=tuple(_feature(each) for each in content["features"]),
            wanted=None if wanted is None else str(wanted),
            kinds={str(name): str(kind) for name, kind in dict(content.get("kinds", {})).items()},
        )


@dataclass(frozen=True, slots=True)
class ScoreSource:
    """What makes a job's scores.

    model: what was learned of verdicts; None where scores are the model's own.
    problem: why what was learned cannot be used, as a part of a sentence; None where it can, or where the job does not want it.
    content: the file that the model was read from.
    """

    model: ScoreModel | None = None
    problem: str | None = None
    content: bytes = b""


def _feature(content: Mapping[str, Any]) -> Feature:
    numbers = {name: _number(content[name]) for name in ("mean", "spread", "weight", "missing")}
    if numbers["spread"] <= 0:
        raise ValueError(f"{content['name']} has no spread")
    return Feature(str(content["name"]), Scale(content["scale"]), **numbers)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a number")
    return float(value)
