"""What one socket still has to be told."""

from __future__ import annotations

from typing import Any

import pytest

from pgobserve.deliver.delivery import offer
from pgobserve.deliver.send_queue import MAX_AGE, READ_AGAIN, SendQueue
from pgobserve.hub.outcome import ABSENT, UNKNOWN, FrameAction, Outcome, Refusal, View
from pgobserve.hub.subscriptions import RowSubscription

ONE, TWO = View.of('{"id":1}'), View.of('{"id":2}')
DENIED = Refusal(403, ("No.",))


class Socket:
    """A queue, and how often its writer was woken."""

    def __init__(self) -> None:
        self.wakes = 0
        self.send_queue = SendQueue(self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def watch(self, shown: Outcome = ABSENT) -> RowSubscription:
        """Begin a subscription that has been answered with an outcome."""
        watch = RowSubscription(self.send_queue, 1, 1, None, lambda outcome: None)
        offer(watch, shown)
        return watch

    def frames(self) -> list[tuple[FrameAction, Any]]:
        """Take all frames."""
        taken = []
        while (item := self.send_queue.take()) is not None:
            _, outcome, kind = item
            taken.append((kind, outcome))
        return taken


@pytest.fixture
def socket() -> Socket:
    return Socket()


@pytest.mark.parametrize(
    ("shown", "now", "kind"),
    [
        (ABSENT, ONE, "create"),
        (ONE, TWO, "update"),
        (ONE, ABSENT, "delete"),
        (ONE, ONE, None),
        (ONE, View.of('{"id":1}'), None),
        (ABSENT, ABSENT, None),
        (ONE, DENIED, "error"),
        (ABSENT, DENIED, "error"),
    ],
)
def test_frame(socket: Socket, shown: Outcome, now: Outcome, kind: FrameAction | None) -> None:
    """The frame leads from what was shown to what is true."""
    offer(socket.watch(shown), now)

    assert socket.frames() == ([(kind, now)] if kind else [])


@pytest.mark.parametrize(("now", "kind"), [(ONE, "update"), (ABSENT, "delete")])
def test_unknown_is_told_whatever_it_is(socket: Socket, now: Outcome, kind: FrameAction) -> None:
    """After a refusal, or for a client of whom nothing is known, the truth is sent in any case."""
    refused, resumed = socket.watch(ONE), socket.watch(ONE)
    offer(refused, DENIED)
    socket.frames()
    resumed.shown = UNKNOWN
    offer(refused, now)
    offer(resumed, now)

    assert socket.frames() == [(kind, now), (kind, now)]


def test_latest_wins(socket: Socket) -> None:
    """States that were not sent in time are conflated to the last."""
    watch = socket.watch(ONE)
    offer(watch, TWO)
    offer(watch, View.of("3"))

    assert len(socket.send_queue) == 1
    assert socket.send_queue.take() == (watch, View.of("3"), "update")


def test_deleted_and_put_back(socket: Socket) -> None:
    """A row deleted and put back before anything was sent is one update, or none if the same."""
    changed, same = socket.watch(ONE), socket.watch(ONE)
    for watch, last in ((changed, TWO), (same, ONE)):
        offer(watch, ABSENT)
        offer(watch, last)

    assert socket.frames() == [("update", TWO)]


def test_created_and_deleted(socket: Socket) -> None:
    """A row that came and went meanwhile is not told at all."""
    watch = socket.watch(ABSENT)
    offer(watch, ONE)
    offer(watch, ABSENT)

    assert socket.frames() == []


def test_order(socket: Socket) -> None:
    """Rows are told in the order in which they first had news."""
    one, other = socket.watch(), socket.watch()
    offer(one, ONE)
    offer(other, TWO)
    offer(one, View.of("3"))

    assert socket.frames() == [("create", View.of("3")), ("create", TWO)]


def test_first_outcome_answers_the_request(socket: Socket) -> None:
    """The first outcome goes to the request, and is what the client has then."""
    told: list[Outcome] = []
    watch = RowSubscription(socket.send_queue, 1, 1, None, told.append)
    offer(watch, ONE)
    offer(watch, ONE)

    assert told == [ONE]
    assert socket.frames() == []


def test_refused_request(socket: Socket) -> None:
    """A refusal answers the request, too; nothing is known to be shown then."""
    told: list[Outcome] = []
    watch = RowSubscription(socket.send_queue, 1, 1, None, lambda outcome: told.append(outcome))
    offer(watch, DENIED)

    assert told == [DENIED]
    assert watch.shown is UNKNOWN


def test_one_writer(socket: Socket) -> None:
    """The writer is woken once, and again only after it was told that there is nothing more."""
    one, other = socket.watch(), socket.watch()
    offer(one, ONE)
    offer(other, ONE)
    assert socket.wakes == 1

    socket.send_queue.take()
    offer(one, TWO)
    assert socket.wakes == 1

    socket.frames()
    offer(one, ONE)
    assert socket.wakes == 2


def test_hold(socket: Socket) -> None:
    """While held nothing is sent and nobody woken; released, once for each hold, it goes on."""
    socket.send_queue.hold()
    socket.send_queue.hold()
    offer(socket.watch(), ONE)
    assert socket.frames() == []
    socket.send_queue.release()
    assert (socket.wakes, socket.frames()) == (0, [])

    socket.send_queue.release()

    assert socket.wakes == 1
    assert socket.frames() == [("create", ONE)]


def test_hold_while_sending(socket: Socket) -> None:
    """A writer that meets a hold stops; the release wakes it again."""
    one, other = socket.watch(), socket.watch()
    offer(one, ONE)
    offer(other, ONE)
    socket.send_queue.take()
    socket.send_queue.hold()
    assert socket.send_queue.take() is None

    socket.send_queue.release()

    assert socket.wakes == 2
    assert socket.frames() == [("create", ONE)]


def test_release_without_news(socket: Socket) -> None:
    """A release with nothing to send wakes nobody."""
    socket.send_queue.hold()
    socket.send_queue.release()

    assert socket.wakes == 0


def test_put_first(socket: Socket) -> None:
    """What a client missed is put in unless something newer waits already."""
    watch, other = socket.watch(ONE), socket.watch(ONE)
    offer(watch, TWO)
    socket.send_queue.put_first(watch, View.of("old"))
    socket.send_queue.put_first(other, View.of("old"))

    assert socket.frames() == [("update", TWO), ("update", View.of("old"))]


def test_barrier(socket: Socket) -> None:
    """A barrier is reached when all that waited before it was sent, and nothing that came later."""
    calls: list[int] = []
    first, second = socket.watch(ONE), socket.watch(ONE)
    offer(first, TWO)
    socket.send_queue.put_barrier(lambda: calls.append(1))
    offer(second, TWO)

    assert socket.send_queue.take() is not None
    assert calls == []  # it is being sent
    assert socket.send_queue.take() is not None
    assert calls == [1]
    assert socket.frames() == []


def test_barrier_without_news(socket: Socket) -> None:
    """Where nothing waits it is reached at once; in a closed queue never."""
    calls: list[int] = []
    socket.send_queue.put_barrier(lambda: calls.append(1))
    assert calls == [1]
    socket.send_queue.close()
    socket.send_queue.put_barrier(lambda: calls.append(2))

    assert calls == [1]


def test_barrier_while_held(socket: Socket) -> None:
    """While frames are held it is not reached, even if there are none."""
    calls: list[int] = []
    socket.send_queue.hold()
    socket.send_queue.put_barrier(lambda: calls.append(1))
    assert calls == []
    socket.send_queue.release()
    assert socket.frames() == []

    assert calls == [1]


def test_barrier_behind_what_is_sent() -> None:
    """A frame that was handed over at once is still being sent."""
    calls: list[int] = []
    sent: list[Any] = []
    send_queue = SendQueue(lambda: None, sent.append)
    watch = RowSubscription(send_queue, 1, 1, None, lambda outcome: None)
    offer(watch, ONE)
    offer(watch, TWO)
    send_queue.put_barrier(lambda: calls.append(1))
    assert len(sent) == 1
    assert calls == []

    assert send_queue.take() is None
    assert calls == [1]


def test_close(socket: Socket) -> None:
    """A closed queue keeps nothing, takes nothing and wakes nobody."""
    watch = socket.watch()
    offer(watch, ONE)
    socket.send_queue.hold()
    socket.send_queue.close()
    offer(watch, TWO)
    socket.send_queue.release()

    assert len(socket.send_queue) == 0
    assert socket.wakes == 1
    assert socket.frames() == []


def test_send_at_once() -> None:
    """A frame that need not wait is handed over at once; those that come meanwhile wait."""
    sent: list[Any] = []
    wakes: list[int] = []
    send_queue = SendQueue(lambda: wakes.append(1), sent.append)
    watch = RowSubscription(send_queue, 1, 1, None, lambda outcome: None)
    offer(watch, ABSENT)
    offer(watch, ONE)
    assert sent == [(watch, ONE, "create")]

    offer(watch, TWO)
    offer(watch, ONE)
    assert len(sent) == 1
    assert send_queue.take() is None  # it is what was shown

    offer(watch, ONE)
    assert len(sent) == 1
    offer(watch, TWO)
    assert sent[1:] == [(watch, TWO, "update")]
    assert wakes == []


def test_held_is_not_sent_at_once() -> None:
    """What comes while held waits, and the release wakes the writer."""
    sent: list[Any] = []
    wakes: list[int] = []
    send_queue = SendQueue(lambda: wakes.append(1), sent.append)
    watch = RowSubscription(send_queue, 1, 1, None, lambda outcome: None)
    offer(watch, ABSENT)
    send_queue.hold()
    offer(watch, ONE)
    send_queue.release()

    assert (sent, wakes) == ([], [1])
    assert send_queue.take() == (watch, ONE, "create")


def test_equal_bodies_have_equal_digests() -> None:
    """A digest stands for its body; nothing shown is no body's digest."""
    assert View.of("a") == View.of("a")
    assert len({View.of(body).digest for body in ("", "a", "b", "é", "null")} | {b""}) == 6


# Frames that wait


class Slow:
    """A socket that takes a frame when it is told to, a clock, and rows that are read again."""

    def __init__(self) -> None:
        self.now = 0.0
        self.frames: list[tuple[Any, FrameAction]] = []
        self.again: list[Any] = []
        self.reads = True
        self.send_queue = SendQueue(self._wake, self._send, self._read_again, lambda: self.now)

    def _wake(self) -> None:
        self.take()

    def _send(self, item: Any) -> None:
        watch, _, kind = item
        self.frames.append((watch.key, kind))

    def _read_again(self, watch: Any) -> bool:
        if self.reads:
            self.again.append(watch)
        return self.reads

    def take(self) -> None:
        """Be done with a frame: the next one is sent."""
        item = self.send_queue.take()
        if item is not None:
            self._send(item)

    def watches(self, count: int) -> list[RowSubscription]:
        """Begin subscriptions to rows that are not there yet."""
        made = [
            RowSubscription(self.send_queue, key, key, None, lambda outcome: None)
            for key in range(count)
        ]
        for watch in made:
            offer(watch, ABSENT)
        return made


@pytest.fixture
def slow() -> Slow:
    return Slow()


def test_waits_for_a_moment(slow: Slow) -> None:
    """What waits no longer than permissions hold is sent as it is."""
    for watch in slow.watches(2):
        offer(watch, ONE)
    slow.now += MAX_AGE
    slow.take()

    assert slow.frames == [(0, "create"), (1, "create")]
    assert slow.again == []


def test_waits_too_long(slow: Slow) -> None:
    """What has waited longer is read again, and what is found then is sent at once."""
    first, second, third = slow.watches(3)
    for watch in (first, second, third):
        offer(watch, ONE)
    slow.now += MAX_AGE + 1
    slow.take()
    assert slow.frames == [(0, "create")]
    assert slow.again == [second, third]

    offer(second, DENIED)
    offer(third, TWO)
    slow.take()
    assert slow.frames == [(0, "create"), (1, "error"), (2, "create")]


def test_revoked_while_it_waited(slow: Slow) -> None:
    """A row that may not be seen any more makes no frame, and none that waited is left."""
    first, second = slow.watches(2)
    for watch in (first, second):
        offer(watch, ONE)
    slow.now += MAX_AGE + 1
    slow.take()
    offer(second, ABSENT)
    slow.send_queue.resume()

    assert slow.frames == [(0, "create")]
    assert len(slow.send_queue) == 0


def test_refusal_replaces_what_waits(slow: Slow) -> None:
    """A refusal that is found while data wait is sent instead of them."""
    first, second = slow.watches(2)
    for watch in (first, second):
        offer(watch, ONE)
    offer(second, DENIED)
    slow.take()
    slow.take()

    assert slow.frames == [(0, "create"), (1, "error")]


def test_end_and_refusal_are_not_read_again(slow: Slow) -> None:
    """What shows nothing is sent however long it waited."""
    first, second, third = slow.watches(3)
    second.shown = third.shown = UNKNOWN
    offer(first, ONE)
    offer(second, ABSENT)
    offer(third, DENIED)
    slow.now += 100
    slow.take()
    slow.take()

    assert slow.frames == [(0, "create"), (1, "delete"), (2, "error")]
    assert slow.again == []


def test_what_is_read_when_it_is_sent(slow: Slow) -> None:
    """What is not read again, because sending it reads, is sent."""
    slow.reads = False
    for watch in slow.watches(2):
        offer(watch, ONE)
    slow.now += 100
    slow.take()

    assert slow.frames == [(0, "create"), (1, "create")]


def test_slow_client_gets_all(slow: Slow) -> None:
    """A client that takes longer for a frame than permissions hold still has each row in the end."""
    watches = slow.watches(3 * READ_AGAIN)
    for watch in watches:
        offer(watch, ONE)
    reads = 0
    while len(slow.frames) < len(watches):
        slow.now += MAX_AGE + 1
        slow.take()
        assert len(slow.again) <= READ_AGAIN
        waiting, slow.again = slow.again, []
        reads += len(waiting)
        for watch in waiting:
            offer(watch, ONE)

    assert sorted(slow.frames) == [(watch.key, "create") for watch in watches]
    assert reads <= READ_AGAIN * len(watches)


def test_no_news_of_what_was_read_again(slow: Slow) -> None:
    """Rows behind those that are read again without news go on when they may."""
    watches = slow.watches(READ_AGAIN + 3)
    for watch in watches:
        offer(watch, ONE)
    slow.now += MAX_AGE + 1
    slow.take()
    assert slow.again == watches[1 : READ_AGAIN + 1]
    slow.take()
    assert len(slow.again) == READ_AGAIN
    slow.send_queue.resume()

    assert slow.again == watches[1:]


def test_news_of_a_row_that_waits_for_others(slow: Slow) -> None:
    """A row whose turn has not come is not overtaken by its own news."""
    watches = slow.watches(READ_AGAIN + 3)
    for watch in watches:
        offer(watch, ONE)
    slow.now += MAX_AGE + 1
    slow.take()
    last = watches[-1]
    offer(last, TWO)
    assert slow.frames == [(0, "create")]
    slow.send_queue.resume()

    assert slow.frames == [(0, "create"), (last.key, "create")]
    assert last.shown == TWO.digest


def test_barrier_waits_for_what_is_read_again(slow: Slow) -> None:
    """What was taken out to be read again is sent before the barrier is reached."""
    calls: list[str] = []
    watches = slow.watches(3)
    for watch in watches:
        offer(watch, ONE)
    slow.send_queue.put_barrier(lambda: calls.append("reached"))
    slow.now += MAX_AGE + 1
    slow.take()
    assert slow.send_queue.withdrawn == 2
    for watch in watches[1:]:
        assert calls == []
        offer(watch, TWO)
        slow.take()

    assert [key for key, _ in slow.frames] == [watch.key for watch in watches]
    assert calls == ["reached"]


def test_ended_while_it_is_read_again(slow: Slow) -> None:
    """An ended subscription leaves nothing behind."""
    first, second = slow.watches(2)
    for watch in (first, second):
        offer(watch, ONE)
    slow.now += MAX_AGE + 1
    slow.take()
    second.active = False
    slow.send_queue.forget(second)

    assert len(slow.send_queue) == 0
