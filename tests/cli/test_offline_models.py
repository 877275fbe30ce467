from pathlib import Path

import pytest

from .conftest import Run


@pytest.mark.parametrize("verb", ["run", "replay"])
def test_a_model_that_cannot_stream_is_refused_with_its_reason(verb: str, tmp_path: Path, run: Run) -> None:
    config = tmp_path / "recurra.toml"
    config.write_text('[model]\nname = "paper"\n')
    events = tmp_path / "events.jsonl"
    events.write_text('{"user": "ann", "item": "m1", "time": 1700000000000}\n' * 2)
    arguments = [events] if verb == "replay" else ["--source", "none", "--api", "off"]
    sentence = run.refused(verb, *arguments, "--config", config, "--data", tmp_path / "data")
    assert "mixes a whole padded row" in sentence
    assert "recurra evaluate --model paper" in sentence
    assert not (tmp_path / "data" / "store").exists()
