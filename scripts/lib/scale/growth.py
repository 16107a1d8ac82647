"""The verdict: whether a step from one amount of work to the next took more time than it may."""

# What a time may be off by, because the machine does something else as well.
TOLERANCE = 1.25


def steps(works, times, start_up, may_grow):
    """For each step by how much its time is more than it may be; 1 is just what is allowed, noise apart."""
    if not may_grow:
        return [after / before for before, after in zip(times, times[1:])]
    return [step(works, times, index, start_up) for index in range(len(times) - 1)]


def step(works, times, index, start_up):
    """By how much times[index] would have to be larger for the step to the next one to be linear.

    Time is a fixed part and one that grows with the work. The fixed part of the first step is the start-up of the
    program. Later it is the time of the smallest amount of work, and what grows is what comes on top of that: else
    a large fixed part would hide for long that the rest grows too fast. The smallest of the times so far stands for
    it, for noise can make any of them too large.
    """
    fixed, without = (min(start_up, times[0]), 0) if index == 0 else (min(times[:index + 1]), works[0])
    ratio = (works[index + 1] - without) / (works[index] - without)
    return ((times[index + 1] - fixed) / ratio + fixed) / times[index]


def is_worse(figure):
    return round(figure, 2) > TOLERANCE
