"""Checks of the values that options take."""

__all__ = ["one_of"]


def one_of(flag: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is allowed; raises ``ConfigError`` naming the flag."""
    from recurra.engine.errors import ConfigError

    if value not in allowed:
        raise ConfigError(f"{flag} expects {' or '.join(allowed)}, got {value!r}")
    return value
