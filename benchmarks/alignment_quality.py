"""How good are the alignments? Word times of a CTC teacher and of pocketsphinx against known ones.

    python benchmarks/alignment_quality.py --teacher RUN

writes docs/alignment.md and docs/alignment.png. Three tests:

- *synthetic sentences*: running speech of flite's voices, which tell when each sound ends;
- *synthetic words*: words of the same voices, one by one, with silences of known lengths between;
- *speech*: real speech (LibriSpeech dev), where pocketsphinx is the reference; the first two say how
  good a reference it is.

Needs the extras `train` and `evaluate`, and flite (`apt-get install flite`). Without --teacher pocketsphinx
is measured alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from alignment import quality, synthetic
from tqdm import tqdm

from speech_reallm.audio import SAMPLE_RATE
from speech_reallm.errors import UserError
from speech_reallm.evaluate.hmm_aligner import align_words
from speech_reallm.text import normalize_for_training
from speech_reallm.training.data.manifests import load_audio, load_manifest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

Times = list[quality.TimedWord]
# (audio of each utterance, words of each) -> times of each, None where it fails
Aligner = Callable[[list[np.ndarray], list[list[str]]], list[Times | None]]


@dataclass(kw_only=True)
class Test:
    """Utterances with reference times, and what the aligners make of them."""

    name: str
    reference_name: str
    audio: list[np.ndarray]
    reference: list[Times]
    errors: dict[str, quality.Errors] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def run(self, name: str, aligner: Aligner) -> None:
        found = aligner(self.audio, [[w for w, _, _ in times] for times in self.reference])
        pairs = [(r, f) for r, f in zip(self.reference, found, strict=True) if f is not None]
        self.failed[name] = len(found) - len(pairs)
        self.errors[name] = quality.compare([r for r, _ in pairs], [f for _, f in pairs])


def pocketsphinx(audio: list[np.ndarray], words: list[list[str]]) -> list[Times | None]:
    pairs = zip(audio, words, strict=True)
    return [align_words(a, w) for a, w in tqdm(pairs, "pocketsphinx", len(audio), leave=False)]


def teacher_aligner(folder: str, offset: float, peaks: bool, batch_seconds: float = 60.0) -> Aligner:
    from speech_reallm.training.align.ctc_teacher import CTCTeacher
    from speech_reallm.training.align.run import default_device
    from speech_reallm.training.align.spans import word_items

    teacher = CTCTeacher.load(folder, default_device(), offset=offset, peaks=peaks)

    def align(audio: list[np.ndarray], words: list[list[str]]) -> list[Times | None]:
        order = sorted(range(len(audio)), key=lambda i: len(audio[i]))
        found: list[Times | None] = [None] * len(audio)
        with tqdm(total=len(audio), desc="teacher", leave=False) as bar:
            while order:
                # the longest first; as many as fit when padded to it
                size = max(1, int(batch_seconds * SAMPLE_RATE // len(audio[order[-1]])))
                batch = [order.pop() for _ in range(min(size, len(order)))]
                texts = [" ".join(words[i]) for i in batch]
                results = teacher.align([audio[i] for i in batch], texts)
                for i, result in zip(batch, results, strict=True):
                    if result is not None:
                        items = word_items(words[i], result.pieces)
                        found[i] = [(w.symbol, w.start, w.start + w.duration) for w in items]
                bar.update(len(batch))
        return found

    return align


def synthetic_tests(text: Path, count: int) -> list[Test]:
    """Sentences of a file of sentences, a voice after the other; half as many utterances of single words."""
    try:
        lines = text.read_text(encoding="utf-8").splitlines()
    except OSError as err:
        raise UserError(f"cannot read {text}: {err.strerror}") from None
    rng = np.random.default_rng(1)
    sentences: list[tuple[np.ndarray, list[synthetic.TimedWord]]] = []
    singles: list[tuple[np.ndarray, list[synthetic.TimedWord]]] = []
    with tqdm(total=count, desc="speaking", leave=False) as bar:
        for index in rng.permutation(len(lines)):
            if len(sentences) == count:
                break
            line, voice = lines[index], synthetic.VOICES[len(sentences) % len(synthetic.VOICES)]
            if not 20 <= len(line) <= 160 or (spoken := synthetic.speak_sentence(line, voice)) is None:
                continue
            sentences.append(spoken)
            if len(sentences) % 2:
                singles.append(synthetic.speak_words([w for w, _, _ in spoken[1]], voice, rng))
            bar.update()
    return [
        Test(name=name, reference_name="known", audio=[a for a, _ in made], reference=[t for _, t in made])
        for name, made in (("synthetic sentences", sentences), ("synthetic words", singles))
    ]


def speech_test(manifest: Path, count: int | None) -> Test:
    """Real speech with pocketsphinx as the reference; utterances that it cannot align are left out."""
    cuts = list(load_manifest(manifest))
    if count and count < len(cuts):
        cuts = [cuts[i] for i in np.linspace(0, len(cuts) - 1, count).astype(int)]
    audio = [load_audio(c) for c in tqdm(cuts, "loading", leave=False)]
    words = [normalize_for_training(c.supervisions[0].text).split() for c in cuts]
    found = pocketsphinx(audio, words)
    test = Test(
        name=f"speech ({manifest.stem})",
        reference_name="pocketsphinx",
        audio=[a for a, f in zip(audio, found, strict=True) if f is not None],
        reference=[f for f in found if f is not None],
    )
    test.failed["pocketsphinx"] = len(found) - len(test.reference)
    return test


_INTRODUCTION = """\
# Quality of the alignments

Training places a word piece by the time at which it ends, and the emission delay of a model is measured from
the times at which words end. This page says how good these times are. It is written by

    {command}

Synthetic speech has known times: running sentences of three voices of flite, which tell when each sound ends,
and words of these voices spoken one by one with silences of known lengths between. Real speech has none;
there pocketsphinx, a hidden Markov model that shares nothing with the teacher, is the reference, and its own
error on synthetic speech says how far to trust it.

![Distribution of the errors, and errors by time in the utterance](alignment.png)

A CTC model names a piece at a peak, a frame or two in the midst of it, and calls the rest blank. *Teacher's
peaks* are those frames as they are; *teacher* is what `reallm align` writes, where each piece takes its share
of the blanks around it.

Absolute errors (median, mean) and bias in ms, positive is late; shares of words in percent.
"""


def page(tests: list[Test], teacher: str | None, shift_ms: float) -> str:
    """docs/alignment.md."""
    rows = {f"{t.name}: {name}, against {t.reference_name}": e for t in tests for name, e in t.errors.items()}
    command = "python benchmarks/alignment_quality.py" + (f" --teacher {teacher}" if teacher else "")
    command += f" --shift-ms {shift_ms:g}" if shift_ms else ""
    text = [
        _INTRODUCTION.format(command=command),
        quality.table(rows, "speech: aligner"),
        "",
        "## Chunks",
        "",
        "In which chunk of 240 ms the end of a word lies, compared with the reference; percent of words.",
        "",
        quality.chunk_table(rows, "speech: aligner"),
        "",
    ]
    for name, errors in rows.items():
        text += [f"## {name[0].upper()}{name[1:]}", "", quality.table(quality.groups(errors), "words"), ""]
    text += ["## Left out", "", "Utterances that an aligner could not align:", ""]
    text += [f"- {t.name}: {name}: {count}" for t in tests for name, count in t.failed.items()]
    return "\n".join(text) + "\n"


def plot(tests: list[Test], path: Path) -> None:
    """Left: distribution of the errors of word ends. Right: the same by the time at which the word begins."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    bins = np.arange(-250, 251, 10)
    edges = np.arange(0, 21, 2)
    for test in tests:
        for name, errors in test.errors.items():
            label = f"{name}, {test.name}"
            line = left.hist(
                np.clip(errors.end * 1000, -249, 249), bins, density=True, histtype="step", label=label
            )[2][0]
            color = line.get_edgecolor()
            left.axvline(np.median(errors.end) * 1000, color=color, lw=0.7, ls=":")
            inside = [
                errors.end[(errors.at >= a) & (errors.at < b)] * 1000 for a, b in itertools.pairwise(edges)
            ]
            good = [i for i, e in enumerate(inside) if len(e) >= 20]
            middle = edges[good] + 1
            right.plot(middle, [np.median(inside[i]) for i in good], "o-", color=color, ms=3, label=label)
            low, high = (np.array([np.percentile(inside[i], q) for i in good]) for q in (10, 90))
            right.fill_between(middle, low, high, color=color, alpha=0.12, lw=0)
    left.set(xlabel="error of word ends (ms; late is positive)", ylabel="density", title="Distribution")
    right.set(
        xlabel="time in the utterance (s)", ylabel="error of word ends (ms)",
        title="By time in the utterance: median, 10th to 90th percentile", ylim=(-250, 250),
    )  # fmt: skip
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", help="training run of a CTC teacher")
    parser.add_argument(
        "--shift-ms", type=float, default=0.0, help="added to the teacher's times, as reallm align does"
    )
    parser.add_argument("--manifest", type=Path, default=SHARED / "speech" / "librispeech-dev.jsonl")
    parser.add_argument(
        "--text", type=Path, default=SHARED / "text" / "books.txt", help="sentences to be spoken"
    )
    parser.add_argument("--sentences", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--utterances", type=int, help="of the manifest, spread over it (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder (default: docs)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args(argv)

    # a teacher that cannot be loaded is found before minutes of computing
    shift = args.shift_ms / 1000
    teachers = {
        name: teacher_aligner(args.teacher, shift, peaks)
        for name, peaks in (("teacher", False), ("teacher's peaks", True))
        if args.teacher
    }
    tests = synthetic_tests(args.text, args.sentences)
    for test in tests:
        test.run("pocketsphinx", pocketsphinx)
    if teachers:
        tests.append(speech_test(args.manifest, args.utterances))
        for test in tests:
            for name, teacher in teachers.items():
                test.run(name, teacher)
    args.out.mkdir(parents=True, exist_ok=True)
    text = page(tests, args.teacher, args.shift_ms)
    (args.out / "alignment.md").write_text(text, encoding="utf-8")
    plot(tests, args.out / "alignment.png")
    if args.json:
        data = {
            f"{t.name}: {name}": {side: quality.figures(getattr(e, side)) for side in ("start", "end")}
            for t in tests
            for name, e in t.errors.items()
        }
        args.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    try:
        main()
    except UserError as err:
        raise SystemExit(f"error: {err}") from None
