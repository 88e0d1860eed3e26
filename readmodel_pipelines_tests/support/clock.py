"""Time that passes only in work and in sleep."""


class Clock:
    """Seconds; a sleep lasts a bit longer than asked for."""

    def __init__(self, oversleep: float = 0.0) -> None:
        self.now = 100.0
        self._oversleep = oversleep

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + self._oversleep
