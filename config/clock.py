"""The clock for how long ago something was."""

import time


def boot_clock() -> float:
    """Seconds since boot, including the time for which the machine slept: unlike time.monotonic, a suspended virtual
    machine can't wake up with knowledge that looks fresh."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
