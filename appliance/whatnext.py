"""What happens next by itself, in words for an operator. Pure."""

from appliance.events import IDLE
from appliance.lifecycle import EngineState, Machine, Policy
from appliance.restart import Grade


def forecast(machine: Machine, policy: Policy, *, settling: bool = False) -> str:
    """Return what the engine's state leads to, "" when nothing is on its way.

    The moment of it is the armed deadline's, told beside this text.
    """
    match machine.state:
        case EngineState.PREPARING if settling:
            return "starts once memory is back"
        case EngineState.PREPARING:
            return "starts"
        case EngineState.STARTING:
            return "is ended and tried again, if it shows no progress,"
        case EngineState.DRAINING:
            return f"{_goal(machine)} once what runs has ended, at the latest"
        case EngineState.STOPPING if machine.killed:
            return "is killed again"
        case EngineState.STOPPING:
            return "is killed, if it has not ended by itself"
        case EngineState.BACKOFF if machine.reason.grade is Grade.AWAITED:
            return "asks the other box again"
        case EngineState.BACKOFF:
            failures, most = len(machine.history.failures), policy.restart.max_failures
            return f"starts again (failure {failures} of {most})"
        case EngineState.FAILED if machine.history.gave_up:
            return "nothing until: appliance reset"
        case EngineState.FAILED:
            return "nothing until: appliance start"
        case EngineState.STOPPED if machine.reason == IDLE:
            return "the next request starts it"
        case EngineState.STOPPED:
            return "nothing until: appliance start"
    return ""


def _goal(machine: Machine) -> str:
    return "restarts" if machine.again else "stops"
