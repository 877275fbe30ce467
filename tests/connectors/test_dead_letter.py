"""Dead letters survive, stay readable and stay bounded."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.connectors.dead_letter import FileDeadLetters, read_dead_letters


@given(st.lists(st.none() | st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode()), max_size=8))
@settings(deadline=None, max_examples=50)
def test_original_bytes_come_back(tmp_path_factory: object, payloads: list[bytes | None]) -> None:
    path = tmp_path_factory.mktemp("letters") / "dead" / "letters.jsonl"  # type: ignore[attr-defined]
    letters = FileDeadLetters(path)
    for position, payload in enumerate(payloads):
        letters.write("kafka:t/0", position, payload, "because\nof it")
    letters.close()
    assert path.exists() == bool(payloads)
    kept = read_dead_letters(path) if payloads else []
    assert [letter["payload"] for letter in kept] == payloads
    assert [letter["position"] for letter in kept] == list(range(len(payloads)))


def test_two_bounded_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    letters = FileDeadLetters(path, max_bytes=1_000)
    for position in range(100):
        letters.write("s", position, b"x" * 50, "r")
    letters.close()
    assert path.stat().st_size <= 1_000
    older = [letter["position"] for letter in read_dead_letters(tmp_path / "letters.1")]
    newer = [letter["position"] for letter in read_dead_letters(path)]
    assert older + newer == list(range(100 - len(older) - len(newer), 100))
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "letters.1"]


def test_half_a_line_of_a_crash_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    first = FileDeadLetters(path)
    first.write("s", 1, b"a", "r")
    first.close()
    path.write_bytes(path.read_bytes() + b'{"source":"s","posi')
    second = FileDeadLetters(path)
    second.write("s", 2, b"b", "r")
    second.close()
    assert [letter["position"] for letter in read_dead_letters(path)] == [1, 2]
