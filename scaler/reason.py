"""The reason of a decision as a sentence for people, with the numbers it rests on."""

from __future__ import annotations

from scaler import rest
from scaler.payoff import PayOff
from scaler.state import State


def seconds(value: float) -> str:
    """Return a duration for people."""
    return f"{value:.1f} s" if value < 10 and value != round(value) else f"{value:.0f} s"


def workers(number: int) -> str:
    """Return a number of workers for people."""
    return f"{number or 'no'} worker{'' if number <= 1 else 's'}"


def needed(number: int) -> str:
    """Say how many are needed."""
    return f"{number or 'none'} {'is' if number <= 1 else 'are'} needed"


def launch_reason(backlog: int, standing: int, rate: float, boot_s: float, gain: PayOff) -> str:
    """Say what the launches save and what they cost."""
    wait = "1 image waits" if backlog == 1 else f"{backlog} images wait"
    if standing == 0 and gain.launches <= 1:
        return f"{wait} and no worker runs"
    saved = f"{gain.saved_image_s / 3600:.1f} image-hours of waiting for {gain.boot_instance_s / 3600:.2f} instance-hours"
    left = f"{workers(standing)} at {rate:.1f}/s would still have {gain.backlog_then:.0f} in {seconds(boot_s)}"
    then = left if standing else "no worker runs"
    return f"{wait}; {then}; {gain.launches} more save {saved} of booting"


def rest_reason(state: State, *, value: float, boot_s: float, period_s: float, now: float) -> str:
    """Say why the last worker stays: there is work, or the rest is young."""
    if state.idle_from is None:
        return "there is work"
    if state.empty_readings < rest.EMPTY_READINGS:
        return "one empty reading is not believed"
    kept_s = rest.keep_s(state, value=value, boot_s=boot_s, period_s=period_s)
    return f"the queue is empty for {seconds(now - state.idle_from)}, and the last worker is worth keeping for {seconds(kept_s)}"


def retire_reason(retired: int, cancelled: int, standing: int, wanted: int) -> str:
    """Say who goes and who is needed."""
    orders = [f"Retire {retired}"] if retired else []
    orders += [f"{'cancel' if retired else 'Cancel'} {cancelled} that still boot"] if cancelled else []
    return f"{' and '.join(orders)} of {workers(standing)}: {needed(wanted)}; they go on while there is work."
