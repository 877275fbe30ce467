"""Settings beyond their bounds are refused by name, in a file and in Python alike."""

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import recurra
from recurra.engine.config import Config, FastConfig, KafkaConfig, Section, StoreConfig, TrainingConfig, bounds_of
from recurra.engine.errors import ConfigError

_HUGE = 10**30


def _sections() -> list[type[Section]]:
    return [Config, *(field.type for field in msgspec.structs.fields(Config) if isinstance(field.default, Section))]


def _default(field: Any) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _fields(*kinds: type) -> list[tuple[type[Section], str, Any]]:
    """Return the settings whose default, or what it holds first, is of these kinds."""
    found = []
    for section in _sections():
        for field in msgspec.structs.fields(section):
            default = _default(field)
            inner = default[0] if isinstance(default, tuple) and default else default
            if isinstance(inner, kinds) and not isinstance(inner, bool):
                found.append((section, field.name, default))
    return found


def _name(value: object) -> str:
    return value.section or "top" if isinstance(value, type) and issubclass(value, Section) else str(value)


def _load(folder: Path, text: str, encoding: str = "utf-8") -> Config:
    path = folder / "recurra.toml"
    path.write_bytes(text.encode(encoding))
    return recurra.load_config(path)


NUMBERS = _fields(int, float)


def test_there_is_something_to_check() -> None:
    assert len(_sections()) == 14
    assert len(NUMBERS) > 70
    assert len(_fields(str)) > 15


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -_HUGE, _HUGE, float(_HUGE), -float(_HUGE), "1", True]
)
@pytest.mark.parametrize(("section", "name", "default"), NUMBERS, ids=_name)
def test_no_number_is_without_bounds(section: type[Section], name: str, default: Any, value: object) -> None:
    given = (value, *default[1:]) if isinstance(default, tuple) else value
    place = f"{section.section}.{name}".removeprefix(".")
    with pytest.raises(ConfigError, match=rf"^{re.escape(place)} must be .* to |^{re.escape(place)} must be .* and "):
        section(**{name: given})


@pytest.mark.parametrize(("section", "name", "default"), _fields(str), ids=_name)
def test_no_name_is_empty_or_a_number(section: type[Section], name: str, default: Any) -> None:
    wrong: list[object] = ["", 1.5, [], True]
    for given in wrong:
        with pytest.raises(ConfigError, match=rf"^{section.section}\.{name} must be .+, got "):
            section(**{name: given})


def test_every_default_is_within_its_bounds_and_every_bound_is_written_down() -> None:
    for section in _sections():
        built = section()
        for field in msgspec.structs.fields(section):
            assert getattr(section(**{field.name: _default(field)}), field.name) == getattr(built, field.name)
            if not isinstance(_default(field), bool | Section):
                assert bounds_of(field.type), field.name


def test_a_setting_is_known_by_the_name_that_a_file_gives_it() -> None:
    for field in msgspec.structs.fields(Config):
        if isinstance(field.default, Section):
            assert field.type.section == field.name


REFUSED = [
    ("threads = 0", "threads must be an integer, 1 to 1_024, got 0"),
    ("threads = 1.0", "threads must be an integer, 1 to 1_024, got 1.0"),
    ("seed = -1", "seed must be an integer, 0 to 9_223_372_036_854_775_807, got -1"),
    (f"seed = {2**200}", "got an integer of 201 bits"),
    ("store = 5", "store must be a section, in Python a StoreConfig, got 5"),
    ('events.user = ""', "events.user must be text of 1 to 512 characters, got ''"),
    ('events.user = "item"', "two fields of an event are mapped to one name: item, item, "),
    ('events.time_unit = "h"', "events.time_unit must be s, ms, us or ns, got 'h'"),
    ("store.anchor = 0", "store.anchor must be an integer, 1 to 16_384, got 0"),
    ("store.anchor = 100_000_000", "store.anchor must be an integer, 1 to 16_384, got 100000000"),
    ("store.batch_events = 100_000_000", "store.batch_events must be an integer, 1 to 65_536, got"),
    ("store.batch_events = 65_536\nfast.contexts = 100", "fast.contexts must be at least store.batch_events"),
    ("store.cache_bytes = 0", "store.cache_bytes must be an integer, 65_536 to"),
    ("store.sync_ms = -5", "store.sync_ms must be an integer, 0 to 1_000_000_000_000, got -5"),
    ('store.umask = "777"', "store.umask must be three octal digits such as \"077\", the first of them 0, got '777'"),
    ('store.umask = "077\\n"', "store.umask must be three octal digits"),
    ("store.umask = 77", "the first of them 0, got 77"),
    ("store.hot_histories = 100_000_000\nstore.anchor = 16_384", "store.hot_histories of 100_000_000 users with"),
    ("states.hot_users = 0", "states.hot_users must be an integer, 2 to 100_000_000, got 0"),
    (
        "states.hot_users = 100_000_000\nmodel.d_state = 1024",
        "states.hot_users of 100_000_000 users whose states under",
    ),
    ('states.dtype = "float16"', "states.dtype must be float32 or bfloat16, got 'float16'"),
    ("gate.margin = nan", "gate.margin must be a number, -1_000_000_000 to 1_000_000_000, got nan"),
    ("gate.confidence = 1", "gate.confidence must be a number, above 0 and below 1, got 1"),
    ("mix.budget = inf", "mix.budget must be a number, 0 to 1_024, got inf"),
    ("fast.half_lives = []", "fast.half_lives must be a list of 1 to 64, each 1 to 1_000_000_000_000, got []"),
    (
        "fast.half_lives = [1, -1]",
        "fast.half_lives must be a list of 1 to 64, each 1 to 1_000_000_000_000, got [1, -1]",
    ),
    ("fast.half_lives = [5, 9, 5.0]", "fast.half_lives must differ in their first six digits, got [5.0, 9.0, 5.0]"),
    ("fast.pair_half_lives = [5]", "fast.pair_half_lives must be a list of 2, each 1 to 1_000_000_000_000, got [5]"),
    ("fast.contexts = 100_000_000\nfast.context = 32_768", "fast.contexts of 100_000_000 users with fast.context"),
    ("retrieval.filter_ms = 0", "retrieval.filter_ms must be an integer, 1 to 86_400_000, got 0"),
    ("kafka.partitions = []", "kafka.partitions must be all or a list of at least 1, each 0 to 2_147_483_647, got []"),
    (
        "kafka.partitions = [-1]",
        "kafka.partitions must be all or a list of at least 1, each 0 to 2_147_483_647, got [-1]",
    ),
    ("kafka.partitions = [1, 1]", "kafka.partitions must name each partition once, got [1, 1]"),
    ('kafka.partitions = "some"', "kafka.partitions must be all or a list of at least 1"),
    ("kafka.start = -5", "kafka.start must be earliest, latest or an integer, 0 to 100_000_000_000_000, got -5"),
    ('kafka.start = "now"', "kafka.start must be earliest, latest or an integer, 0 to 100_000_000_000_000, got 'now'"),
    ('kafka.client = "aiokafka"', "kafka.client must be confluent or kafka-python, got 'aiokafka'"),
    ('kafka.output_topic = ""', "kafka.output_topic must be a topic's name: up to 249 letters"),
    ('kafka.output_topic = ".."', "kafka.output_topic must be a topic's name: up to 249 letters"),
    ('kafka.options = {"a" = nan}', "kafka.options must be a table of text, numbers, true and false, got {'a': nan}"),
    ('training.mode = "never"', "training.mode must be auto or off, got 'never'"),
    ('training.precision = "half"', "training.precision must be float32, bfloat16 or auto, got 'half'"),
    ('training.strategy = "replay+"', "or several joined by +, got 'replay+'"),
    ('training.strategy = "lora+lora"', "training.strategy can hold each name and one kind of replay once, got"),
    ("training.strategy_options.magic.pull = 1", "training.strategy_options must be tables by strategies' names"),
    ("training.strategy_options.anchor.pull = -1", "training.strategy_options must be tables by strategies' names"),
    (
        "training.strategy_options.replay.share = 1",
        "training.strategy_options.replay.share must be at least 0 and below",
    ),
    ("training.replay = 1", "training.replay must be a number, at least 0 and below 1, got 1"),
    ("drift.effort = 0.5", "drift.effort must be a number, 1 to 100, got 0.5"),
    ("api.port = 70_000", "api.port must be an integer, 0 to 65_535, got 70000"),
    ('api.host = ""', "api.host must be text of 1 to 255 characters, got ''"),
    ('api.hosts = [""]', "api.hosts must be a list, each text of 1 to 255 characters, got ['']"),
    ("model.layers = 2026-01-31", "model.layers must be an integer, 1 to 64, got datetime.date(2026, 1, 31)"),
    ("store.ancor = 5", "there is no setting store.ancor"),
    ("ancor = 5", "there is no setting ancor"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_a_file_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"recurra\.toml: .*{re.escape(message)}"):
        _load(tmp_path, text)


@pytest.mark.parametrize("text", ["a =", "a = [" * 10_000, f"seed = {'9' * 5_000}", "seed = 1\nseed = 2"])
def test_what_is_no_toml(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"recurra\.toml: "):
        _load(tmp_path, text)
    with pytest.raises(ConfigError, match=r"recurra\.toml: .*codec can't decode"):
        _load(tmp_path, '# \xe4\nkafka.group = "a"', "latin-1")


def test_a_mark_of_the_encoding_at_the_start_is_no_part_of_the_file(tmp_path: Path) -> None:
    assert _load(tmp_path, 'seed = 5\r\n[kafka]\r\ngroup = "hören"\r\n', "utf-8-sig").kafka.group == "hören"


@pytest.mark.parametrize(
    "text",
    [
        "store = {anchor = 1, tail_events = 0, sync_ms = 0, hot_histories = 1, batch_events = 1}",
        "fast = {half_lives = [1], neighbours = 1, pair_entries = 4, context = 1, error_events = 0, attributes = 0}",
        'kafka = {partitions = [3, 0], start = 0, options = {"sasl.password" = "x", "a" = 1, "b" = true, "c" = 0.5}}',
        'store.umask = "0027"',
        "api.port = 0",
        "model.d_model = 63",
        "seed = 9223372036854775807",
    ],
)
def test_what_is_small_or_odd_but_works_is_taken(tmp_path: Path, text: str) -> None:
    assert _load(tmp_path, text) != Config()


def test_values_built_in_python_equal_those_of_a_file(tmp_path: Path) -> None:
    given = [5, 9]
    built = Config(fast=FastConfig(half_lives=given), kafka=KafkaConfig(partitions=[1]))  # type: ignore[arg-type]
    assert built == _load(tmp_path, "fast.half_lives = [5.0, 9.0]\nkafka.partitions = [1]")
    given.append(-1)
    assert built.fast.half_lives == (5.0, 9.0)
    assert isinstance(built.fast.half_lives[0], float)


def test_a_change_is_checked_as_well() -> None:
    with pytest.raises(ConfigError, match=r"training\.nice must be an integer, 0 to 19, got 20"):
        msgspec.structs.replace(TrainingConfig(), nice=20)
    with pytest.raises(ConfigError, match=r"^store must be a section, in Python a StoreConfig, got "):
        Config(store={"anchor": 8})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^store must be a section, in Python a StoreConfig, got "):
        Config(store=FastConfig())  # type: ignore[arg-type]
    assert Config(store=StoreConfig(anchor=8)).store.anchor == 8
