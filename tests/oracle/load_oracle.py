"""What a round records: a list of writes, each with its three instants, looked at after the fact."""

from dataclasses import dataclass


@dataclass
class Write:
    """One I/O that has completed, a write unless said otherwise; times in ns since the round's start."""

    intended: int
    issued: int
    completed: int
    size: int
    late: int = 0
    operation: int = 1
    job: int = 0

    @property
    def response(self):
        return self.completed - self.intended

    @property
    def service(self):
        return self.completed - self.issued

    @property
    def wait(self):
        return self.issued - self.intended


def lateness(ready, issued, slept, returned):
    """Nanoseconds in which a write could have been issued and the generator slept, or was back and did not.

    `slept` is (begin, end) of the last sleep; between its end and `returned` the target worked.
    """
    guilty = set(range(*slept)) | set(range(returned, issued))
    return len(guilty & set(range(ready, issued)))


def slices(writes, slice_ns, slice_count):
    """The writes by slice of the round; what was intended outside of all counts to the nearest."""
    parts = [[] for _ in range(slice_count)]
    for write in writes:
        for index in reversed(range(slice_count)):
            if write.intended >= index * slice_ns or index == 0:
                parts[index].append(write)
                break
    return parts


def within(writes, slice_ns, slice_count):
    """The writes by the slice that they completed in; those that completed after the last are in none."""
    return [
        [write for write in writes if index * slice_ns <= write.completed < (index + 1) * slice_ns]
        for index in range(slice_count)
    ]


def one_at_a_time(intended, service):
    """Response times of a target that takes one write after the other, however long each takes."""
    responses, free = [], 0
    for due, lasts in zip(intended, service, strict=True):
        free = max(free, due) + lasts
        responses.append(free - due)
    return responses
