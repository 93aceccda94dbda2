"""Numbers with their unit, in words: 1.0 -> "1 second"."""


def in_seconds(seconds: float) -> str:
    """Returns a length of time in words: "1 second", "2.5 seconds"."""
    return f"{seconds:,g} second{'' if f'{seconds:g}' == '1' else 's'}"
