"""Places in a sequence."""


def evenly(count: int, most: int) -> list[int]:
    """Returns at most `most` of `count` indices, evenly spaced; all if there are fewer."""
    return [i * count // most for i in range(most)] if count > most else [*range(count)]
