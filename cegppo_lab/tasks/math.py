"""Mathematics from any data set of problems and answers, rewarded by the boxed answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from cegppo_lab.errors import LabError
from cegppo_lab.tasks.base import Problem, Task, register
from cegppo_lab.tasks.overlap import Grams
from cegppo_lab.tasks.records import data_files, files_hash, rows, text_field
from cegppo_lab.tasks.verifier import verify, verify_batch
from cegppo_lab.tasks.verifier.latex import MAX_CHARACTERS, last_box, tidy
from cegppo_lab.validation import Place

if TYPE_CHECKING:
    from cegppo_lab.benchmark import Benchmark

_PLACEHOLDER = "{problem}"


@register
class Math(Task):
    """Problems of a local file, a folder or a hub data set; the split goes by their hashes.

    Nothing is read before the first problem, the split or :meth:`data_hash` is asked for. A text
    that occurs twice counts once, with its first answer. With ``heldout_problems`` 1.0 all are
    held out, as in a benchmark, and there is nothing to train on.
    """

    name: ClassVar[str] = "math"
    version: ClassVar[int] = 2  # the verifier judges otherwise since
    data_options: ClassVar[frozenset[str]] = frozenset(
        {"path", "file", "revision", "sha256", "heldout_path"}
    )
    neutral: ClassVar[frozenset[str]] = frozenset({"decontaminate"})

    path: Place = Field("", description="data file, folder, or owner/name of a hub data set")
    file: str | None = Field(None, description="file, or glob, inside the folder or hub data set")
    revision: str | None = Field(None, description="commit of the hub data set")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="hash that the training data must have"
    )
    problem_field: str = Field("problem", min_length=1, description="may be a path: prompt.0.text")
    answer_field: str = Field("answer", min_length=1, description="may be a path, as well")
    prompt_template: str = Field(
        "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
        description="the prompt, with {problem} where the problem goes",
    )
    response_tokens: int = Field(2048, ge=2, description="tokens that a response may have")
    heldout_problems: int | float = Field(
        64, description="problems kept for evaluation: a count, or a share such as 0.02"
    )
    heldout_path: Place | None = Field(
        None, description="data file to keep them from; its problems are not trained on"
    )
    limit: int | None = Field(None, ge=1, description="training problems used, chosen by hash")
    decontaminate: tuple[str, ...] = Field(
        (), description="benchmarks; problems that share a 9-gram with one are not trained on"
    )

    @field_validator("path", "heldout_path")
    @classmethod
    def _portable(cls, value: str | None) -> str | None:
        """Local paths are made absolute: workers run in other folders."""
        local = Path(value).expanduser() if value else None
        return str(local.resolve()) if local and local.exists() else value

    @field_validator("prompt_template")
    @classmethod
    def _has_placeholder(cls, value: str) -> str:
        if _PLACEHOLDER not in value:
            raise ValueError(f"must contain {_PLACEHOLDER}")
        return value

    @field_validator("heldout_problems", mode="before")
    @classmethod
    def _count_or_share(cls, value: Any) -> Any:
        counts = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not counts and not (isinstance(value, float) and 0 < value <= 1):
            raise ValueError("must be a count (1 or more) or a share (0.02; at most 1.0)")
        return value

    @field_validator("decontaminate")
    @classmethod
    def _known_benchmarks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from cegppo_lab.benchmark import load_benchmark  # which imports the tasks

        for name in value:
            load_benchmark(name)
        return value

    @property
    def max_response_tokens(self) -> int:
        return self.response_tokens

    def data_hash(self) -> str:
        """sha256 of the data; stated by ``sha256``, it is returned without reading them."""
        parts = [self.sha256 or self._files_hash]
        if self.heldout_path is not None:
            parts.append(files_hash(data_files(self.heldout_path)))
        parts += [benchmark.fingerprint() for benchmark in self._benchmarks]
        return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()

    def at_hand(self) -> bool:
        places = [(self.path, self.file, self.revision), (self.heldout_path, None, None)]
        try:
            for path, file, revision in places:
                if path:
                    data_files(path, file, revision, download=False)
        except LabError:
            return False
        return bool(self.path)

    def sample(self, count: int, rng: np.random.Generator) -> list[Problem]:
        training = self._training
        return [training[i] for i in rng.integers(len(training), size=count).tolist()]

    def heldout(self) -> list[Problem]:
        return list(self._split[1])

    def training(self) -> list[Problem]:
        """All problems that :meth:`sample` draws from, in the order of their hashes.

        Raises:
            LabError: there are none, as all are held out (a benchmark) or contaminated.
        """
        return list(self._training)

    def training_count(self) -> int:
        return len(self._training)

    def contaminated(self) -> int:
        """Problems that share a 9-gram with ``decontaminate``, before ``limit`` is applied."""
        return len(self._split[0]) - len(self._clean)

    def reward(self, problem: Problem, response: str) -> float:
        return float(verify(response, problem.answer))

    def rewards(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[float]:
        answers = [problem.answer for problem in problems]
        return [float(right) for right in verify_batch(list(zip(responses, answers, strict=True)))]

    def answer(self, problem: Problem, response: str) -> str | None:
        """The tidied text of the last box: equal strings are equal answers, not the reverse."""
        boxed = last_box(response)
        tidied = "" if boxed is None or len(boxed) > MAX_CHARACTERS else tidy(boxed)
        return tidied or None

    @cached_property
    def _files(self) -> list[Path]:
        if not self.path:
            raise LabError("task.path is empty: set it to a data file or to owner/name on the hub.")
        return data_files(self.path, self.file, self.revision)

    @cached_property
    def _files_hash(self) -> str:
        return files_hash(self._files)

    @cached_property
    def _split(self) -> tuple[list[Problem], list[Problem]]:
        """Training and held-out problems, each in the order of their hashes."""
        if self.sha256 not in (None, self._files_hash):
            raise LabError(
                f"the data of {self.path} are not those of task.sha256: theirs is "
                f"{self._files_hash}. Fetch the right revision, or set task.sha256=null."
            )
        pool = self._read(self._files)
        source = self._read(data_files(self.heldout_path)) if self.heldout_path else pool
        held = dict(list(source.items())[: self._heldout_count(list(source))])
        training = [problem for digest, problem in pool.items() if digest not in held]
        if not held or (not training and self.heldout_problems != 1.0):
            raise self._none_left("training" if held else "held-out", len(pool))
        return training, list(held.values())

    @cached_property
    def _benchmarks(self) -> list[Benchmark]:
        from cegppo_lab.benchmark import load_benchmark

        return [load_benchmark(name) for name in self.decontaminate]

    @cached_property
    def _clean(self) -> list[Problem]:
        """Training problems that share no n-gram with a benchmark of ``decontaminate``."""
        training = self._split[0]
        for benchmark in self._benchmarks:
            grams = Grams(benchmark.problems)
            training = [problem for problem in training if not grams.shared(problem.question)]
        return training

    @cached_property
    def _training(self) -> list[Problem]:
        if not self._clean:
            raise self._none_left("training", len(self._split[0]) + len(self._split[1]))
        return self._clean[: self.limit]

    def _none_left(self, kind: str, count: int) -> LabError:
        dropped = f", task.decontaminate={list(self.decontaminate)}" if self.decontaminate else ""
        return LabError(
            f"task.heldout_problems={self.heldout_problems}{dropped}: of {count} problems in "
            f"{self.path} none is left as a {kind} problem; change task.heldout_problems."
        )

    def _heldout_count(self, digests: list[str]) -> int:
        """How many of the sorted hashes are held out; a share is a threshold on the hash."""
        if isinstance(self.heldout_problems, int):
            return self.heldout_problems
        return sum(int(digest, 16) < self.heldout_problems * 16**64 for digest in digests)

    def _read(self, files: Sequence[Path]) -> dict[str, Problem]:
        """The problems by the hash of their text, sorted by it."""
        found: dict[str, Problem] = {}
        for row in (row for path in files for row in rows(path)):
            text = text_field(row, self.problem_field, "task.problem_field")
            answer = text_field(row, self.answer_field, "task.answer_field")
            digest = hashlib.sha256(text.encode()).hexdigest()
            prompt = self.prompt_template.replace(_PLACEHOLDER, text)
            found.setdefault(digest, Problem(f"{self.name}/{digest[:16]}", prompt, answer, text))
        return dict(sorted(found.items()))
