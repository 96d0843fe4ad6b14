import numpy as np
import pytest
from alignment.quality import POSITIONS, chunk_table, compare, figures, groups, table

TRUTH = [[("it's", 0.5, 0.7), ("a", 0.7, 0.75), ("wonderful", 0.75, 1.3), ("day", 1.4, 1.7)]]


def moved(start, end):
    return [[(w.upper(), a + start, b + end) for w, a, b in words] for words in TRUTH]


def test_late_is_positive():
    errors = compare(TRUTH, moved(0.03, -0.15))
    start, end = figures(errors.start), figures(errors.end)
    assert start == pytest.approx(
        {"median_abs": 30, "mean_abs": 30, "bias": 30, "median_bias": 30, "over_100": 0, "over_200": 0}
    )
    assert end["bias"] == pytest.approx(-150) and end["median_abs"] == pytest.approx(150)
    assert (end["over_100"], end["over_200"]) == (100, 0)


def test_groups_are_a_partition():
    errors = compare(TRUTH * 3, moved(0, 0) * 3)
    parts = groups(errors)
    assert sum(len(parts[name]) for name in POSITIONS) == 12
    assert sum(len(p) for name, p in parts.items() if "letters" in name) == 12
    assert len(parts["1 to 2 letters"]) == 3 and len(parts["8 letters or more"]) == 3
    assert len(parts["3 to 4 letters"]) == 6  # an apostrophe is no letter
    assert len(parts["first word"]) == len(parts["last word"]) == 3


def test_chunks_of_ends():
    # ends of 0.24 s and of 0.2401 s lie in different chunks
    errors = compare([[("a", 0.0, 0.24)], [("a", 0.0, 0.2401)]], [[("a", 0.0, 0.2401)], [("a", 0.0, 0.24)]])
    assert errors.chunks.tolist() == [1, -1]
    assert "| x | 0.0 | 50.0 | 0.0 | 50.0 | 0.0 |" in chunk_table({"x": errors})


def test_tables():
    text = table({"x": compare(TRUTH, moved(0.03, -0.25)), "none": compare([], [])}, "set")
    lines = text.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| x | 4 | 30 | 30 | +30 | 0.0 | 0.0 | 250 | 250 | -250 | 100.0 | 100.0 |"


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="other words"):
        compare(TRUTH, [TRUTH[0][:-1]])


def test_one_and_two_words_have_positions():
    one = compare([TRUTH[0][:1]], [TRUTH[0][:1]])
    two = compare([TRUTH[0][:2]], [TRUTH[0][:2]])
    assert one.position.tolist() == [0] and two.position.tolist() == [0, 4]
    assert np.isfinite(two.start).all()
