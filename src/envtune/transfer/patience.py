"""When to try again what a network has failed at."""

# The longest pause between two tries, seconds.
_LONGEST = 60.0


def pause(fruitless: int, share: float, asked: float) -> float:
    """Seconds until the next try: twice as many after each that moved nothing, and after what
    the server asks for. `share`, from 0 to 1, keeps machines from coming again all at once."""
    return asked + min(2.0**fruitless, _LONGEST) * (0.5 + share / 2)
