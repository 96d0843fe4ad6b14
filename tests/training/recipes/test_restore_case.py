"""recipes/tools/restore_case.py: whose words, and whose spelling."""

import json
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("jiwer")

MODULE = runpy.run_path(
    str(Path(__file__).parents[3] / "recipes/tools/restore_case.py"), run_name="restore_case"
)
restore_case = MODULE["restore_case"]


@pytest.mark.parametrize(
    ("transcript", "hypothesis", "text"),
    [
        ("MISTER QUILTER IS MIDDLE CLASS", "Mr. Quilter is, middle-class.", "Mr. Quilter is, middle-class."),
        # digits do not replace words, punctuation stays
        ("IN NINETEEN SEVENTEEN I SAID", "In 1917, I said \u201cit\u201d;", "In nineteen seventeen, I said"),
        # a name that is recognised as another word is still a name
        ("HE SAW LINNELL'S PICTURES", "He saw Linel's pictures.", "He saw Linnell's pictures."),
        ("HE SAW ANDERSON", "He saw Bob!", "He saw anderson!"),
        # what begins a sentence
        ("THERE SAID TOM HE CAME BACK", "there, said Tom. She came back.", "there, said Tom. He came back."),
        ("ANY ONE", "Anyone!", "Any one!"),
        ("I'LL SEE WHAT I DO", "", "I'll see what I do"),
        ("WELL KNOWN MEN", "The well-known men", "Well-known men"),
        ("A WELL DONE THING", "A well-dung thing", "A well done thing"),
        ("", "Foo.", ""),
    ],
)  # fmt: skip
def test_restore_case(transcript, hypothesis, text):
    assert restore_case(transcript, hypothesis)[0] == text


def test_error_rate():
    assert restore_case("ONE TWO THREE FOUR", "One 2, tree")[1] == 0.5
    assert restore_case("ONE", "two three four five")[1] == 1


def test_goes_on_where_it_ended(tmp_path):
    rows = [{"id": i, "recogniser_wer": 0.1 * k, "duration": 3600} for k, i in enumerate("abc")]
    out = tmp_path / "out.jsonl"
    assert MODULE["finished"](out, rows) == []
    out.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[1])[:9])
    assert MODULE["finished"](out, rows) == rows[:1]
    assert out.read_text() == json.dumps(rows[0]) + "\n"
    with pytest.raises(SystemExit, match="another manifest"):
        MODULE["finished"](out, rows[1:])


def test_the_filter(tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    out.write_text(
        "".join(
            json.dumps({"id": i, "recogniser_wer": w, "duration": 3600}) + "\n"
            for i, w in (("a", 0.5), ("b", 0.6))
        )
    )
    MODULE["keep"](out, 0.5)
    assert [json.loads(x)["id"] for x in (tmp_path / "out.kept.jsonl").read_text().splitlines()] == ["a"]
    assert "1.00 of 2.00 hours" in capsys.readouterr().out


def test_a_whole_run(tmp_path, monkeypatch):
    """With a recogniser that is told what to hear."""
    import numpy as np
    import soundfile

    (tmp_path / "speech").mkdir()
    rows = []
    for i, text in enumerate(["HELLO THERE", "GOOD DAY"]):
        soundfile.write(tmp_path / f"speech/{i}.wav", np.zeros(16000), 16000)
        rows.append({"id": str(i), "audio": f"{i}.wav", "duration": 1.0, "text": text, "corpus": "x"})
    manifest, out = tmp_path / "speech/m.jsonl", tmp_path / "deep/out.jsonl"
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows))
    calls = []

    class Listener:
        def __init__(self, folder):
            pass

        def transcribe(self, cuts, bar):
            calls.append([c.id for c in cuts])
            return {"0": "Hello, there!", "1": "Good day."}

    main = MODULE["main"]
    monkeypatch.setitem(main.__globals__, "Recogniser", Listener)
    monkeypatch.setattr(
        sys, "argv", ["restore_case.py", str(manifest), str(out), "--model", "x", "--max-wer", "0"]
    )
    main()
    whole = out.read_text()
    out.write_text(whole[: whole.index("\n") + 5])
    main()
    assert out.read_text() == whole and calls == [["0", "1"], ["1"]]
    first = json.loads(whole.splitlines()[0])
    assert first == rows[0] | {"audio": "../speech/0.wav", "text": "Hello, there!", "recogniser_wer": 0.0}
