"""Adapt a model folder to a speaker, a room or a subject: from recordings to a new model folder, in steps that resume.

1. *collect*: recordings with texts become utterances; those without are transcribed by the model itself, and cut at
   its pauses (pseudo-labels). A tenth of what has a text, by a checksum of its name, is held out.
2. *align*: when the pieces of each text are spoken.
3. *train*: the decoder and the upper half of the encoder, slowly, and pulled to where they began.
4. *choose*: weights on the line from the start to what was trained (WiSE-FT, Wortsman et al., CVPR 2022): those with
   the fewest errors on what was held out, of those that make at most a twentieth more errors on general speech.
5. *export*: the model folder, measured before and after with the recogniser that users have.

What a step has made lies in OUT.finetune, and is not made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from ..audio import SAMPLE_RATE, Resampler, read_audio
from ..errors import UserError
from ..evaluate.manifest import Row, read_manifest
from ..events import Final
from ..files import SOUND_SUFFIXES, sha256, write_text
from ..jsonl import json_lines
from ..media import open_audio
from ..modelfolder import open_folder
from ..recognizer import Recognizer
from ..tokenizer import Tokenizer
from .align.hmm_teacher import HMMTeacher
from .align.run import AlignOptions, align_manifest
from .align.teacher import AlignmentTeacher
from .checkpoint import save_folder, save_json
from .config import DataConfig, OptimConfig, to_dict
from .config.data import AugmentConfig
from .dev_set import error_rate
from .export.folder import export_folder, load_reallm
from .loop import train
from .model.encode import encode_batch
from .model.greedy import greedy
from .model.reallm import ReaLLM
from .tasks.reallm import ReaLLMConfig, ReaLLMTask
from .weights import interpolate

# seconds of an utterance; longer recordings with a text are left out, without one they are cut
SHORTEST, LONGEST = 0.5, 22.0
# of the utterances with a text, one in so many is held out, and at least so many are
HELD_OUT, LEAST_HELD_OUT = 10, 5
# pseudo-labels with less confidence, in the mean of their words, are left out
LEAST_CONFIDENCE = 0.7
# how much more errors on general speech the adapted model may make, in parts of those before
MOST_FORGOTTEN = 0.05
# weights that are tried, as shares of the way from the start; without general speech the middle one is taken
SHARES = (0.25, 0.5, 0.75, 1.0)
CAUTIOUS_SHARE = 0.5
# utterances that shares are tried on, and that are measured in the end
TRIED, MEASURED = 80, 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """recordings: a folder with FILE and FILE.txt beside it, or a plain manifest. general: a manifest of other speech.

    minutes: of training; the rest takes about as long as the recordings last. learning_rate: its peak. l2_sp: see
    OptimConfig.
    """

    recordings: Path
    out: Path
    model: str | None = None
    general: Path | None = None
    minutes: float = 30.0
    threads: int = 1
    learning_rate: float = 5e-5
    l2_sp: float = 0.05
    batch_seconds: float = 40.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("minutes", "learning_rate", "batch_seconds"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise UserError(f"--{name.replace('_', '-')} must be more than 0")
        if self.threads < 1:
            raise UserError("--threads must be at least 1")


@dataclass(frozen=True, slots=True)
class Rate:
    """A word error rate in percent, its 95 % interval, and the number of utterances."""

    wer: float
    low: float
    high: float
    utterances: int

    def __str__(self) -> str:
        return f"{self.wer:.1f} % ({self.low:.1f} to {self.high:.1f}, {self.utterances} utterances)"


@dataclass(frozen=True, slots=True)
class Report:
    """share: of the way to what was trained. before, after: rates by name, `held-out` and `general`."""

    share: float
    before: dict[str, Rate]
    after: dict[str, Rate]


class FineTune:
    """One adaptation; `run` does what is left of it."""

    def __init__(
        self,
        options: Options,
        say: Callable[[str], None] = print,
        teacher: AlignmentTeacher | None = None,
    ) -> None:
        """teacher: of the alignment; None: pocketsphinx, for English. Raises UserError for a model or a folder of
        another adaptation."""
        self.options, self._say = options, say
        self.folder = open_folder(options.model)
        self.work = options.out.with_name(options.out.name + ".finetune")
        self._teacher = teacher
        self._tokenizer = Tokenizer(self.folder.file("tokenizer.model"))
        self._start()

    def _start(self) -> None:
        options = self.options
        if options.out.resolve() == self.folder.path.resolve():
            raise UserError(f"{options.out} is the model to start from; name another folder")
        if not options.recordings.exists():
            raise UserError(
                f"{options.recordings} does not exist; name a folder of recordings, or a manifest"
            )
        self.work.mkdir(parents=True, exist_ok=True)
        settings = {
            "recordings": str(options.recordings.resolve()),
            "model": sha256(self.folder.file("model.safetensors")),
            "general": str(options.general.resolve()) if options.general else None,
            "learning_rate": options.learning_rate,
            "l2_sp": options.l2_sp,
            "batch_seconds": options.batch_seconds,
            "seed": options.seed,
        }
        path = self.work / "settings.json"
        if path.exists():
            there = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name, value in settings.items() if there.get(name) != value]
            if other:
                raise UserError(
                    f"{self.work} belongs to a run with another {' and another '.join(other)}; "
                    "delete it or name another OUT"
                )
        else:
            save_json(path, settings)

    def run(self) -> Report:
        """All steps. Raises UserError; KeyboardInterrupt on SIGINT and SIGTERM, after what is done has been saved."""
        self._collect()
        self._align()
        self._train()
        share = self._choose()
        return self._finish(share)

    # -- collect

    def _collect(self) -> None:
        train_path, held_path = self.work / "train.jsonl", self.work / "held-out.jsonl"
        if train_path.exists():
            return
        rows = list(self._utterances())
        labelled = [row for row in rows if row["label"] == "text"]
        if not rows:
            raise UserError(f"{self.options.recordings} has no recordings that can be used")
        # without any text, what the model itself wrote has to do
        candidates = sorted(labelled or rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())
        count = max(LEAST_HELD_OUT, len(candidates) // HELD_OUT)
        if len(rows) < 2 * count:
            raise UserError(
                f"{len(rows)} utterances are too few to learn from; {2 * LEAST_HELD_OUT} are the least, "
                "an hour of speech is good"
            )
        held = {row["id"] for row in candidates[:count]}
        if not labelled:
            self._say(
                "no texts: what is held out is compared with what the model wrote before, which says little"
            )
        _write_rows(held_path, [row for row in rows if row["id"] in held])
        _write_rows(train_path, [row for row in rows if row["id"] not in held])
        seconds = sum(row["duration"] for row in rows)
        self._say(
            f"{len(rows)} utterances, {seconds / 60:.1f} minutes, {len(labelled)} with a text; {count} are held out"
        )

    def _utterances(self) -> Iterator[dict[str, Any]]:
        source = self.options.recordings
        found = list(_manifest_items(source) if source.is_file() else _folder_items(source))
        recognizer: Recognizer | None = None
        done = 0.0
        for number, (name, audio, text) in enumerate(found, 1):
            if text is not None:
                samples = self._samples(audio, LONGEST)
                if samples is None:
                    self._say(f"{name}: longer than {LONGEST:g} s with a text; cut it at its sentences")
                    continue
                if len(samples) >= SHORTEST * SAMPLE_RATE:
                    yield self._utterance(name, samples, text, "text")
            else:
                if recognizer is None:
                    recognizer = Recognizer.load(self.folder.path)
                yield from self._pseudo_labelled(recognizer, name, audio)
            if number * 10 // len(found) > done:
                done = number * 10 // len(found)
                self._say(f"read {number} of {len(found)} recordings")

    def _samples(self, audio: Path, most: float) -> np.ndarray | None:
        """float32 [N] at 16 kHz; None for more than so many seconds, or for what cannot be read, which is told."""
        try:
            source = open_audio(audio)
        except UserError as err:
            self._say(f"left out: {err}")
            return np.zeros(0, np.float32)
        resampler, parts, total = Resampler(source.rate), [], 0
        try:
            for block in source.blocks(5.0):
                parts.append(resampler.push(block))
                total += len(block)
                if total > most * source.rate:
                    return None
        except UserError as err:
            self._say(f"left out: {err}")
            return np.zeros(0, np.float32)
        finally:
            source.close()
        return np.concatenate([*parts, resampler.push(np.zeros(0, np.float32), last=True)])

    def _pseudo_labelled(self, recognizer: Recognizer, name: str, audio: Path) -> Iterator[dict[str, Any]]:
        """The segments that the model is sure of, cut from the recording with a little silence around."""
        samples = self._samples(audio, math.inf)
        if samples is None or not len(samples):
            return
        finals: list[Final] = []
        recognizer.transcribe(
            samples,
            sample_rate=SAMPLE_RATE,
            max_segment=LONGEST / 2,
            on_event=lambda event: finals.append(event) if isinstance(event, Final) else None,
        )
        for number, final in enumerate(finals):
            confidence = sum(word.confidence for word in final.words) / len(final.words)
            before = finals[number - 1].end if number else 0.0
            after = finals[number + 1].start if number + 1 < len(finals) else len(samples) / SAMPLE_RATE
            start = max(final.start - 0.3, (before + final.start) / 2)
            end = min(final.end + 0.5, (final.end + after) / 2)
            if confidence >= LEAST_CONFIDENCE and SHORTEST <= end - start <= LONGEST:
                cut = samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
                yield self._utterance(f"{name}-{number:04d}", cut, final.text, "model")

    def _utterance(self, name: str, samples: np.ndarray, text: str, label: str) -> dict[str, Any]:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        audio = self.work / "audio" / f"{digest}.flac"
        audio.parent.mkdir(exist_ok=True)
        soundfile.write(audio, samples, SAMPLE_RATE)
        seconds = len(samples) / SAMPLE_RATE
        return {
            "id": name,
            "audio": f"audio/{audio.name}",
            "text": " ".join(text.split()),
            "duration": round(seconds, 4),
            "label": label,
        }

    # -- align and train

    def _align(self) -> None:
        aligned = self.work / "aligned.jsonl.gz"
        if aligned.exists():
            return
        teacher = self._teacher
        if teacher is None:
            if not self.folder.language.startswith("en"):
                raise UserError("fine-tuning aligns with pocketsphinx, which is English")
            teacher = HMMTeacher(self._tokenizer, keep_case=True)
        summary = align_manifest(teacher, self.work / "train.jsonl", aligned, AlignOptions(skip_bad=True))
        self._say(str(summary))

    def _train(self) -> None:
        run = self.work / "run"
        if (run / "done").exists():
            return
        torch.set_num_threads(self.options.threads)
        torch.manual_seed(self.options.seed)
        config = self._config(run)
        train(config, ReaLLMTask(config), minutes=self.options.minutes)
        (run / "done").touch()

    def _config(self, run: Path) -> ReaLLMConfig:
        options = self.options
        model = load_reallm(self.folder.path)
        layers = model.config.encoder.layers
        frozen = [f"encoder.layers.{i}." for i in range(layers // 2)]
        return ReaLLMConfig(
            task="reallm",
            out=str(run),
            init=(str(self.folder.path),),
            model=model.config,
            seed=options.seed,
            eval_minutes=1e9,
            save_minutes=2.0,
            perturbation_prob=0.1 if model.decoder.path_independent else 0.0,
            piece_noise_prob=0.03,
            data=DataConfig(
                train=(str(self.work / "aligned.jsonl.gz"),),
                tokenizer=str(self._tokenizer.path),
                batch_seconds=options.batch_seconds,
                min_seconds=SHORTEST,
                max_seconds=LONGEST + 1,
                concatenate_prob=0.3,
                augment=AugmentConfig(volume_db=6.0, speeds=(0.95, 1.0, 1.05)),
            ),
            optim=OptimConfig(
                steps=1_000_000,
                lr=options.learning_rate,
                warmup_steps=20,
                frozen=("encoder.conv", "encoder.norm_", *frozen),
                l2_sp=options.l2_sp,
                ema=0.98,
            ),
        )

    # -- choose and finish

    def _choose(self) -> float:
        """The share of the way, whose weights are in `chosen/best`."""
        path = self.work / "chosen" / "best" / "share.json"
        if path.exists():
            return float(json.loads(path.read_text(encoding="utf-8")))
        start, end = load_reallm(self.folder.path), load_reallm(self.work / "run")
        sets = {name: rows[:TRIED] for name, rows in self._sets().items()}
        tried: dict[float, dict[str, float]] = {}
        shares = SHARES if "general" in sets else (CAUTIOUS_SHARE,)
        for share in (0.0, *shares):
            model = between(start, end, share)
            tried[share] = {
                name: _rate(rows, written(model, self._tokenizer, rows)).wer for name, rows in sets.items()
            }
            rates = ", ".join(f"{name} {wer:.1f} %" for name, wer in tried[share].items())
            self._say(f"{share:.0%} of the way: {rates}")
        share = best_share(tried)
        weights = dict(between(start, end, share).state_dict())
        files = {
            "model.safetensors": weights,
            "model.json": to_dict(start.config),
            "tokenizer.model": Path(self._tokenizer.path).read_bytes(),
            "share.json": share,
        }
        save_folder(self.work / "chosen" / "best", files)
        return share

    def _sets(self) -> dict[str, list[Row]]:
        sets = {"held-out": read_manifest(self.work / "held-out.jsonl")}
        if self.options.general:
            sets["general"] = read_manifest(self.options.general, MEASURED)
        return sets

    def _finish(self, share: float) -> Report:
        options, path = self.options, self.work / "report.json"
        adapted = self.work / "model"
        if not (adapted / "config.json").exists():
            adapted.mkdir(exist_ok=True)
            # the weights began as others' do, and their licences go with them
            for file in self.folder.path.glob("LICENSE*"):
                shutil.copy(file, adapted / file.name)
            export_folder(self.work / "chosen", adapted, name=options.out.name)
        before = self._measure(self.folder.path, "before")
        after = self._measure(adapted, "after")
        report = Report(share, before, after)
        save_json(path, asdict(report))
        (adapted / "README.md").write_text(card(report, self.folder.name, options.out.name), encoding="utf-8")
        temporary = options.out.with_name(f".{options.out.name}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(adapted, temporary)
        shutil.rmtree(options.out, ignore_errors=True)
        temporary.replace(options.out)
        return report

    def _measure(self, model: Path, name: str) -> dict[str, Rate]:
        path = self.work / f"{name}.json"
        if path.exists():
            there = json.loads(path.read_text(encoding="utf-8"))
            return {key: Rate(**value) for key, value in there.items()}
        recognizer = Recognizer.load(model)
        rates = {}
        for key, rows in self._sets().items():
            rows = rows[:MEASURED]
            rates[key] = _rate(rows, [recognizer.transcribe(row.audio).text for row in rows])
            self._say(f"{name}, {key}: {rates[key]}")
        save_json(path, {key: asdict(rate) for key, rate in rates.items()})
        return rates


def best_share(tried: dict[float, dict[str, float]]) -> float:
    """The share with the lowest rate on `held-out`, of those whose rate on `general` is at most 5 % above that of 0.

    tried: for each share, error rates by the name of the set; the smaller share where two are alike. 0, the model as it
    was, is what is left where training has helped nothing.
    """
    bound = {name: (1 + MOST_FORGOTTEN) * wer for name, wer in tried[0.0].items() if name == "general"}
    allowed = [
        share for share in tried if all(tried[share][name] <= most + 1e-9 for name, most in bound.items())
    ]
    return min(allowed, key=lambda share: (tried[share]["held-out"], share))


@torch.no_grad()
def between(start: ReaLLM, end: ReaLLM, share: float) -> ReaLLM:
    """A model whose weights are a share of the way from those of `start` to those of `end`."""
    model = ReaLLM(start.config)
    model.load_state_dict(start.state_dict())
    interpolate(model, end, share)
    return model.eval()


@torch.no_grad()
def written(model: ReaLLM, tokenizer: Tokenizer, rows: Sequence[Row]) -> list[str]:
    """What the model writes for each row, with the label delay of recordings."""
    config = model.config
    delay = config.default_delay if config.file_delay is None else config.file_delay
    texts = []
    for row in rows:
        audio = torch.from_numpy(read_audio(row.audio))[None]
        length = torch.tensor([audio.shape[1]])
        frames = encode_batch(model.encoder, audio, length, max(config.delays), False, delay)
        chunks = -(-length // config.chunk_samples) + delay
        (pieces,) = greedy(model, frames, chunks, torch.tensor([delay]))
        texts.append(tokenizer.decode(pieces))
    return texts


def _rate(rows: Sequence[Row], hypotheses: Sequence[str]) -> Rate:
    found = error_rate([row.text for row in rows], list(hypotheses))
    return Rate(found["wer"], found["wer_low"], found["wer_high"], len(rows))


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _folder_items(folder: Path) -> Iterator[tuple[str, Path, str | None]]:
    """Name, audio and text of each recording below a folder, in order of the names."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SOUND_SUFFIXES or not path.is_file():
            continue
        beside = path.with_suffix(".txt")
        try:
            text = beside.read_text(encoding="utf-8-sig") if beside.is_file() else None
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{beside} is not text in UTF-8") from None
        yield path.relative_to(folder).as_posix(), path, text if text and text.strip() else None


def _manifest_items(path: Path) -> Iterator[tuple[str, Path, str | None]]:
    folder = path.resolve().parent
    for number, row in json_lines(path):
        audio, text = row.get("audio"), row.get("text")
        if not isinstance(audio, str) or not (text is None or isinstance(text, str)):
            raise UserError(f"{path}, line {number}: `audio` must be a path, `text` a string or left out")
        yield str(row.get("id", audio)), folder / audio, text if text and text.strip() else None


def card(report: Report, start: str, name: str) -> str:
    """README.md of the adapted model, in the form of a Hugging Face model card."""
    rows = "\n".join(f"| {key} | {report.before[key]} | {report.after[key]} |" for key in report.before)
    return f"""---
language: en
library_name: speech-reallm
pipeline_tag: automatic-speech-recognition
---

# {name}

{start}, adapted with `reallm finetune` to recordings of its owner; its licences stay. {report.share:.0%} of the way
from the first weights to the trained ones.

| word error rate | before | after |
| --- | --- | --- |
{rows}
"""
