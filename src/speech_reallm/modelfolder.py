"""A model's folder: found, checked, described. Nothing in it is trusted before it has been looked at."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from .audio import SAMPLE_RATE
from .errors import UserError
from .files import sha256

FORMAT = 3
# folders of format 2, whose graphs take a batch of streams and give whole caches, run as well
FORMATS = (2, FORMAT)
# the graphs may refer to weights in model.safetensors
FILES = ("encoder.onnx", "decoder.onnx", "model.safetensors", "tokenizer.model")
# the encoder for the larger label delays of a model that has two (`encoders` in config.json)
WIDE_ENCODER = "encoder-wide.onnx"
# the encoder of recordings in large blocks, of a model that has one (`file_blocks` in config.json)
BLOCK_ENCODER = "encoder-block.onnx"
MAX_BLOCK_CHUNKS = 256
# SentencePiece's, or that of a published language model (`tokenizer` in config.json)
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
# what `decoder` in config.json may be; the first where it is absent
DECODERS = ("attention", "transducer")
# generous limits: a folder beyond them is broken or hostile, and would cost absurd memory
MAX_CONFIG_BYTES = 1 << 20
MAX_VOCABULARY = 1 << 20
MAX_WINDOW = 1 << 16
MAX_LOOKAHEAD = 64
MAX_DELAY = 64
MAX_PIECES = 1024
MAX_FRAME_CHUNKS = 256
# OWNER/NAME of a repository, and a branch, tag or commit behind @
REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w.-]{1,100}))?")


@dataclass(frozen=True, slots=True)
class FileBlocks:
    """How recordings are encoded in large blocks, in chunks.

    `chunks`: of a block, at most. `offset`: how much later than without label delay the decoder gets the frames of a
    chunk, as in a stream with `file_delay`.
    """

    chunks: int
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFolder:
    """What the runtime needs to know of a model. `delays` and `lookahead_chunks` count chunks.

    `tokenizer`: name of its file. `decoder`: `attention`, of whichever kind, or `transducer`.
    `cross_attention_chunks` (`frame_chunks` in config.json): the last chunks whose frames the decoder attends to, or 0.
    `file_delay`: the label delay for recordings, where latency is of no concern. `encoders`: graphs and their delays,
    since one with the right context of the largest delay would compute it for the smallest, too. `file_blocks`: how
    recordings are encoded in large blocks, None where they are streams like any other.
    """

    path: Path
    name: str
    language: str
    chunk_ms: int
    lookahead_chunks: int
    delays: tuple[int, ...]
    default_delay: int
    file_delay: int
    encoders: tuple[tuple[str, tuple[int, ...]], ...]
    file_blocks: FileBlocks | None
    vocab_size: int
    blank_id: int
    tokenizer: str
    decoder: str
    window: int
    cross_attention_chunks: int
    max_pieces_per_chunk: int
    max_same_piece_per_chunk: int

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that the folder must hold, config.json aside."""
        files = [self.tokenizer if name == FILES[-1] else name for name in FILES]
        encoders = [name for name, _ in self.encoders if name not in FILES]
        return (*files, *encoders, *([BLOCK_ENCODER] if self.file_blocks else []))

    @property
    def chunk_samples(self) -> int:
        return SAMPLE_RATE * self.chunk_ms // 1000

    @property
    def chunk_seconds(self) -> float:
        return self.chunk_ms / 1000

    def file(self, name: str) -> Path:
        return self.path / name


def cache_folder() -> Path:
    """Where `reallm models pull` keeps models: REALLM_CACHE, else speech-reallm/models in the user's cache folder."""
    if given := os.environ.get("REALLM_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "speech-reallm" / "models"


def find_model(name: str | Path | None) -> Path:
    """The folder of a model: a path, the name of one inside the package (None: "default"), or of one that was pulled.

    A folder that has such a name is meant by ./NAME. Raises UserError where there is none.
    """
    built_in = built_in_models()
    if (known := "default" if name is None else str(name)) in built_in:
        return built_in[known]
    if name is None or known == "default":
        raise UserError(
            "this installation has no default model; name the folder of one (--model FOLDER, "
            "Recognizer.load(FOLDER)), or train and export one: reallm export --help"
        )
    path = Path(name)
    if not path.is_dir() and REPOSITORY.fullmatch(str(name)):
        path = cache_folder() / str(name)
        if not path.is_dir():
            raise UserError(
                f"no model folder {name}; if it is the name of a repository: reallm models pull {name}"
            )
    if not path.is_dir():
        raise UserError(f"no model folder {path}; a model is a folder with config.json, {', '.join(FILES)}")
    if not (path / "config.json").is_file():
        hint = "; make one of a training run with: reallm export" if list(path.glob("*.safetensors")) else ""
        raise UserError(f"{path} is not a model folder: it has no config.json{hint}")
    return path


def built_in_models() -> dict[str, Path]:
    """The folders of the models inside the package by name, "default" first."""
    folder = Path(str(resources.files("speech_reallm"))) / "models"
    found = {path.parent.name: path.parent for path in folder.glob("*/config.json")}
    return {name: found[name] for name in sorted(found, key=lambda name: (name != "default", name))}


def open_folder(name: str | Path | None = None) -> ModelFolder:
    """Find a model and check its config.json and the checksums of its files. Raises UserError."""
    folder, sums = read_folder(find_model(name))
    for file in folder.files:
        if not folder.file(file).is_file():
            raise UserError(
                f"{folder.file(file)} is missing; get the model again, or export it again with: reallm export"
            )
        if sha256(folder.file(file)) != digest_of(folder, sums, file):
            raise UserError(
                f"{folder.file(file)} is damaged: its checksum is not the expected one; get the model again"
            )
    return folder


def digest_of(folder: ModelFolder, sums: dict[str, Any], name: str) -> str:
    """The checksum that config.json states for a file. Raises UserError where it states none."""
    digest = sums.get(name)
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise UserError(f"{folder.file('config.json')}: no sha256 of {name}; export the model again")
    return digest


def read_folder(path: Path) -> tuple[ModelFolder, dict[str, Any]]:
    """What config.json of a folder states, and its checksums, which `digest_of` reads. Raises UserError."""
    config = _read_config(path / "config.json")
    where = f"{path / 'config.json'}"
    version = config.get("format")
    if version not in FORMATS or isinstance(version, bool):
        newer = isinstance(version, int) and version > FORMAT
        advice = "update speech-reallm" if newer else "export the model again"
        raise UserError(f"{where}: model format {version!r}, this version reads {FORMAT}; {advice}")
    folder = _describe(path, config, where)
    sums = config.get("sha256")
    if not isinstance(sums, dict):
        raise UserError(f"{where}: sha256 must give the checksums of {', '.join(folder.files)}")
    return folder, sums


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UserError(f"{path} is too large to be a model's config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON; get the model again") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected an object, got {type(config).__name__}")
    return config


def _describe(path: Path, config: dict[str, Any], where: str) -> ModelFolder:
    def integer(key: str, low: int, high: int) -> int:
        return _integer(config.get(key), f"{where}: {key}", low, high)

    def string(key: str) -> str:
        value = config.get(key)
        if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
            raise UserError(f"{where}: {key} must be a short string")
        return value

    if config.get("sample_rate") != SAMPLE_RATE:
        raise UserError(f"{where}: sample_rate must be {SAMPLE_RATE}")
    if integer("chunk_ms", 120, 480) not in (120, 240, 480):
        raise UserError(f"{where}: chunk_ms must be 120, 240 or 480")
    delays = config.get("delays")
    if not isinstance(delays, list) or not 1 <= len(delays) <= MAX_DELAY:
        raise UserError(f"{where}: delays must be a list of whole numbers")
    delays = tuple(_integer(d, f"{where}: delays", 0, MAX_DELAY) for d in delays)
    vocab_size = integer("vocab_size", 4, MAX_VOCABULARY)
    folder = ModelFolder(
        path=path,
        name=string("name"),
        language=string("language"),
        chunk_ms=config["chunk_ms"],
        lookahead_chunks=integer("lookahead_chunks", 0, MAX_LOOKAHEAD),
        delays=delays,
        default_delay=integer("default_delay", 0, MAX_DELAY),
        file_delay=integer("file_delay" if "file_delay" in config else "default_delay", 0, MAX_DELAY),
        encoders=_encoders(config.get("encoders"), delays, f"{where}: encoders"),
        file_blocks=_file_blocks(config.get("file_blocks"), f"{where}: file_blocks"),
        vocab_size=vocab_size,
        blank_id=integer("blank_id", 0, vocab_size - 1),
        tokenizer=config.get("tokenizer", TOKENIZERS[0]),
        decoder=config.get("decoder", DECODERS[0]),
        window=integer("window", 2, MAX_WINDOW),
        cross_attention_chunks=integer("frame_chunks", 0, MAX_FRAME_CHUNKS),
        max_pieces_per_chunk=integer("max_pieces_per_chunk", 1, MAX_PIECES),
        # absent in folders of earlier versions
        max_same_piece_per_chunk=integer("max_same_piece_per_chunk", 1, MAX_PIECES)
        if "max_same_piece_per_chunk" in config
        else 1,
    )
    if folder.tokenizer not in TOKENIZERS:
        raise UserError(f"{where}: tokenizer must be {' or '.join(TOKENIZERS)}; update speech-reallm")
    if folder.decoder not in DECODERS:
        known = " or ".join(DECODERS)
        raise UserError(
            f"{where}: decoder must be {known}, not {str(folder.decoder)[:40]!r}; update speech-reallm"
        )
    for key, delay in (("default_delay", folder.default_delay), ("file_delay", folder.file_delay)):
        if delay not in delays:
            raise UserError(f"{where}: {key} must be one of delays")
    return folder


def _encoders(value: Any, delays: tuple[int, ...], where: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The graphs of the encoder with the delays that each is for; absent, there is one for all."""
    if value is None:
        return (("encoder.onnx", delays),)
    if not isinstance(value, dict) or not {"encoder.onnx"} <= set(value) <= {"encoder.onnx", WIDE_ENCODER}:
        raise UserError(
            f"{where} must name the delays of encoder.onnx, and of {WIDE_ENCODER} where there is one"
        )
    found = []
    for name, members in sorted(value.items(), key=lambda item: item[0] == WIDE_ENCODER):
        if not isinstance(members, list) or not all(d in delays and type(d) is int for d in members):
            raise UserError(f"{where}: {name} must list some of delays")
        found.append((name, tuple(members)))
    if sorted(d for _, members in found for d in members) != sorted(delays):
        raise UserError(f"{where}: every one of delays must stand once")
    return tuple(found)


def _file_blocks(value: Any, where: str) -> FileBlocks | None:
    if value is None:
        return None
    names = ("chunks", "offset")
    if not isinstance(value, dict) or set(value) != set(names):
        raise UserError(f"{where} must have {', '.join(names)}")
    return FileBlocks(
        *(_integer(value[n], f"{where}: {n}", int(n == "chunks"), MAX_BLOCK_CHUNKS) for n in names)
    )


def _integer(value: Any, where: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{where} must be a whole number from {low} to {high}, not {str(value)[:40]!r}")
    return value
