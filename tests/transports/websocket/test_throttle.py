from appliance.transports.websocket.throttle import LoginThrottle


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fail(throttle: LoginThrottle, address: str = "192.0.2.1") -> float | None:
    return throttle.note_failure(address, most=3, lockout=60)


def test_a_few_wrong_tokens_cost_nothing() -> None:
    throttle = LoginThrottle(clock=Clock())

    assert [fail(throttle) for _ in range(3)] == [None, None, None]


def test_more_are_told_to_stay_away_for_a_while() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock=clock)
    for _ in range(3):
        fail(throttle)

    assert fail(throttle) == 60
    clock.now = 45
    assert fail(throttle) == 15
    clock.now = 60
    assert fail(throttle) is None


def test_failures_of_another_minute_do_not_count() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock=clock)
    for clock.now in (0, 30, 59, 61, 90, 120):
        assert fail(throttle) is None


def test_each_address_is_on_its_own() -> None:
    throttle = LoginThrottle(clock=Clock())
    for _ in range(9):
        fail(throttle)

    assert fail(throttle, "192.0.2.2") is None


def test_no_lockout_turns_it_off() -> None:
    throttle = LoginThrottle(clock=Clock())

    assert [throttle.note_failure("a", most=1, lockout=0) for _ in range(9)] == [None] * 9


def test_a_stranger_cannot_fill_the_memory() -> None:
    throttle = LoginThrottle(clock=Clock())
    for number in range(20_000):
        fail(throttle, str(number))

    assert len(throttle._failures) == 10_000
