import json
import runpy
import string
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from speech_reallm.cli.main import main
from speech_reallm.errors import UserError
from speech_reallm.text import clean_cased
from speech_reallm.tokenizer import Tokenizer
from speech_reallm.training.tokenizers.from_moonshine import make_tokenizer, merges, old_ids, read_tokenizer
from speech_reallm.training.weights import load_weights

SHARED = Path(__file__).parents[4] / "shared/models/moonshine-tiny-en"
# in the order of merging; é, a control character and a piece longer than 127 bytes are never kept
MERGED = ["▁▁", "▁t", "he", "▁the", "in", "er", "▁r", "▁in", "▁riv", "iv", "▁river", "é", "\x07x", "▁" * 50]
CHARACTERS = ["▁", *string.printable[:95].replace(" ", "")]
PIECES = [b"<unk>", b"<s>", b"</s>", *(bytes([i]) for i in range(256))]
PIECES += [p.encode() for p in [*MERGED, *CHARACTERS]]
convert = runpy.run_path(
    str(Path(__file__).parents[3] / "recipes/tools/convert_moonshine.py"), run_name="convert"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(convert["tokenizer_json"](PIECES)))
    (tmp_path / "text.txt").write_text(
        "The river, 'in' the river\u2014\u201cin the rain\u201d.\n", encoding="utf-8"
    )
    return tmp_path


def test_read_tokenizer(folder):
    pieces = read_tokenizer(folder)
    assert len(pieces) == 259 + len(MERGED) + len(CHARACTERS)
    assert pieces[259 + 3] == "▁the".encode() and pieces[3 + 255] == b"\xff"
    assert len(pieces[259 + len(MERGED) - 1]) == 150
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer"):
        read_tokenizer(folder)
    with pytest.raises(UserError, match="cannot read"):
        read_tokenizer(folder / "none")


def packed(pieces):
    data = b""
    for piece in pieces:
        n = len(piece)
        data += bytes([n] if n < 128 else [n % 128 + 128, n // 128]) + piece
    return data


def test_a_packed_folder_is_converted(tmp_path):
    weights = {"a.q": torch.tensor([[0, 255]], dtype=torch.uint8), "a.lo_step": torch.tensor([-1.0, 0.5])}
    save_file(weights | {"b": torch.ones(2).half()}, tmp_path / "model.u8.safetensors")
    (tmp_path / "tokenizer.bin").write_bytes(packed(PIECES))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="convert it first"):
        load_weights(tmp_path)
    with pytest.raises(UserError, match="convert the folder"):
        read_tokenizer(tmp_path)
    convert["convert"](tmp_path, tmp_path / "out")
    assert read_tokenizer(tmp_path / "out") == PIECES
    found = load_file(tmp_path / "out/model.safetensors")
    assert found["a"].tolist() == [[-1.0, 126.5]] and found["b"].dtype == torch.float32
    assert (tmp_path / "out/config.json").read_text() == "{}"
    (tmp_path / "tokenizer.bin").write_bytes(b"\x05ab")
    with pytest.raises(UserError, match="not a tokenizer"):
        convert["convert"](tmp_path, tmp_path / "out")


def test_the_converted_tokenizer_cuts_words_alike(folder):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert theirs.encode("▁the▁river").tokens == ["▁the", "▁river"]


def test_merges():
    known = {p: i for i, p in enumerate(["th", "he", "the", "t", "h", "e"])}
    assert merges("the", known) == ["th", "the"]
    assert merges("hex", known) == ["he"]
    assert merges("", known) == []


def test_the_tokenizer_of_a_few_pieces(folder, capsys):
    out = folder / "out" / "tokenizer.model"
    command = ["tokenizer", "--moonshine", str(folder), str(folder / "text.txt"), "--out", str(out)]
    assert main([*command, "--vocab", "105"]) == 0
    assert "kept whole" in capsys.readouterr().out
    tokenizer = Tokenizer(out)
    assert len(tokenizer) == 105 and tokenizer.pieces(range(4)) == ["<unk>", "<s>", "</s>", "<blank>"]
    # the two most frequent words, with what is merged on the way to them; nothing else fits but one of two
    kept = set(tokenizer.pieces(range(4, 105))) - set(CHARACTERS)
    assert {"▁t", "he", "▁the", "▁in", "in"} <= kept
    assert tokenizer.encode_pieces("the in") == ["▁the", "▁in"]
    assert tokenizer.decode(tokenizer.encode("The river, in the rain~!")) == "The river, in the rain~!"
    published = read_tokenizer(folder)
    ids = old_ids(tokenizer, folder)
    assert ids[:4] == [0, 1, 2, 2] and min(ids[4:]) >= 259
    assert [published[i].decode() for i in ids[4:]] == tokenizer.pieces(range(4, 105))
    again = folder / "again.model"
    make_tokenizer(folder, [str(folder / "text.txt")], 105, again)
    assert again.read_bytes() == out.read_bytes()


def test_all_pieces(folder, tmp_path, capsys):
    out = tmp_path / "whole.model"
    assert main(["tokenizer", "--moonshine", str(folder), "--out", str(out)]) == 0
    tokenizer = Tokenizer(out)
    assert capsys.readouterr().out.startswith(f"{len(tokenizer)} pieces")
    known = {p.decode() for p in read_tokenizer(folder)[259:]}
    assert {tokenizer.piece(i) for i in range(4, len(tokenizer))} <= known
    assert len(old_ids(tokenizer, folder)) == len(tokenizer)
    assert main(["tokenizer", "--out", str(out)]) == 2
    assert "name the texts" in capsys.readouterr().err


def test_mistakes(folder, capsys):
    text = str(folder / "text.txt")
    for vocab, message in ((50, "at least 99"), (400, "only")):
        with pytest.raises(UserError, match=message):
            make_tokenizer(folder, [text], vocab, folder / "o.model")
    (folder / "empty.txt").write_text("-- \u201d\n", encoding="utf-8")
    with pytest.raises(UserError, match="no words"):
        make_tokenizer(folder, [str(folder / "empty.txt")], 105, folder / "o.model")
    (folder / "bad.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="line 1"):
        make_tokenizer(folder, [str(folder / "bad.jsonl")], 105, folder / "o.model")
    default = Path(__file__).parents[3] / "src/speech_reallm/models/default/tokenizer.model"
    with pytest.raises(UserError, match="has no piece"):
        old_ids(Tokenizer(default), folder)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared weights")
def test_the_published_vocabulary(tmp_path):
    pieces = convert["unpacked_pieces"]((SHARED / "tokenizer.bin").read_bytes())
    (tmp_path / "tokenizer.json").write_text(json.dumps(convert["tokenizer_json"](pieces)))
    text = (
        "Mr. Quilter, physically, is the apostle of the middle-classes; and we're glad to welcome his gospel!"
    )
    (tmp_path / "text.txt").write_text(text)
    share = make_tokenizer(tmp_path, [str(tmp_path / "text.txt")], 1000, tmp_path / "tokenizer.model")
    tokenizer = Tokenizer(tmp_path / "tokenizer.model")
    assert share == 1 and len(tokenizer) == 1000
    assert "▁physically," not in tokenizer.encode_pieces(text) and "▁phys" in tokenizer.encode_pieces(text)
    assert tokenizer.decode(tokenizer.encode(text)) == clean_cased(text) == text
