from tests.bench.gateway.goals import Goal, Rounds, goals, hold
from tests.bench.gateway.plan import DIRECT, GUARDED, LITELLM, NGINX, OURS, specs
from tests.bench.gateway.table import report, row

RATIO = Goal(1, "CPU", "chunk", "cpu_us", 1.5, "ratio", NGINX)
ADDED = Goal(4, "delay", "paced", "delay_p50_us", 150, "added", DIRECT)
NEVER = Goal(5, "missed", "abort", "missed", 0, unit="", always=True)
SHARE = Goal(2, "CPU", "request", "cpu_us", 1 / 50, "ratio", LITELLM)


def rounds(key: str, figure: str, **taken: list[float | None]) -> Rounds:
    return {
        key: {
            name: [None if value is None else {figure: value} for value in values]
            for name, values in taken.items()
        }
    }


def test_a_ratio_is_taken_within_a_round() -> None:
    line = hold(RATIO, rounds("chunk", "cpu_us", appliance=[10, 20, 40], nginx=[10, 10, 10]))
    assert line.held is not None
    assert (line.held.least, line.held.middle, line.held.greatest) == (1, 2, 4)
    assert line.met is False


def test_a_round_that_one_of_the_two_lacks_is_left_out() -> None:
    line = hold(RATIO, rounds("chunk", "cpu_us", appliance=[10, None, 90], nginx=[10, 5, None]))
    assert line.held is not None
    assert (line.held.least, line.held.greatest) == (1, 1)
    assert line.met is True


def test_what_was_not_measured_is_neither_kept_nor_missed() -> None:
    assert hold(RATIO, {}).met is None
    assert hold(RATIO, rounds("chunk", "cpu_us", appliance=[10])).met is None


def test_what_is_added_is_a_difference_within_a_round() -> None:
    line = hold(ADDED, rounds("paced", "delay_p50_us", appliance=[200, 300], direct=[50, 60]))
    assert line.held is not None
    assert (line.held.least, line.held.greatest) == (150, 240)


def test_one_missed_abort_in_any_round_breaks_the_promise() -> None:
    assert hold(NEVER, rounds("abort", "missed", appliance=[0, 0, 0])).met is True
    assert hold(NEVER, rounds("abort", "missed", appliance=[0, 1, 0])).met is False


def test_the_limit_itself_keeps_the_promise() -> None:
    assert hold(RATIO, rounds("chunk", "cpu_us", appliance=[15], nginx=[10])).met is True


def test_every_goal_is_measured_with_all_that_it_needs() -> None:
    for quick in (False, True):
        taking_part = {spec.key: set(spec.proxies) for spec in specs(quick=quick)}
        for goal in goals():
            assert goal.ours == GUARDED or goal.ours in taking_part[goal.key]
            if goal.peer:
                assert goal.peer in taking_part[goal.peer_key or goal.key]


def test_all_rows_of_the_table_have_goals_and_measurements() -> None:
    rows = set(range(1, 9))
    assert {goal.row for goal in goals()} == rows
    assert {spec.row for spec in specs(quick=True)} == rows


def test_a_slow_proxy_gets_less_of_the_work_and_the_others_all() -> None:
    spec = next(spec for spec in specs(quick=False) if spec.key == "request-2k")
    assert "count=600" in spec.line(OURS)
    assert "count=60" in spec.line(LITELLM).split()


def test_a_line_tells_ours_the_peer_the_spread_and_the_verdict() -> None:
    line = hold(RATIO, rounds("chunk", "cpu_us", appliance=[15, 16, 18], nginx=[10, 10, 10]))
    text = row(line)
    for part in ("16.0 us", "nginx: 10.0 us", "1.60", "(1.50 … 1.80)", "≤ 1.5", "**no**"):
        assert part in text


def test_a_share_is_told_as_one_of_so_many() -> None:
    line = hold(SHARE, rounds("request", "cpu_us", appliance=[1, 1], litellm=[40, 60]))
    assert "1/48.0 (1/60.0 … 1/40.0)" in row(line)


def test_the_page_counts_the_goals_that_are_met() -> None:
    taken = rounds("chunk", "cpu_us", appliance=[10], nginx=[10])
    page = report("here", [hold(RATIO, taken), hold(NEVER, taken)], taken)
    assert "1 of 1 are met" in page
    assert "| chunk | cpu_us |" in page
