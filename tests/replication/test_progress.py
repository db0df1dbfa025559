"""The leader's view of one peer: when it may send, what an answer changes, and what an old answer must not change."""

from __future__ import annotations

import random

from replication.core.progress import PROBE, REPLICATE, SNAPSHOT, Progress

BYTES = 10


def streaming(match: int = 5, messages_max: int = 3, bytes_max: int = 1000) -> Progress:
    """Return a peer that holds ``match`` entries and is streamed to."""
    progress = Progress(match + 1, messages_max, bytes_max)
    progress.become_replicate()
    progress.acknowledged(match)
    return progress


def may_send(progress: Progress) -> bool:
    return not progress.is_paused


def test_a_new_peer_is_probed_with_one_append_at_a_time() -> None:
    progress = Progress(6, 3, 1000)
    assert (progress.state, progress.match, progress.next, progress.is_paused) == (PROBE, 0, 6, False)
    progress.sent(8, BYTES)
    assert not may_send(progress)
    assert progress.next == 6, "the same append is sent again until it is answered"
    progress.resume()
    assert may_send(progress)


def test_an_acknowledged_probe_moves_match_and_next() -> None:
    progress = Progress(6, 3, 1000)
    progress.sent(8, BYTES)
    assert progress.acknowledged(8)
    progress.become_replicate()
    assert (progress.match, progress.next, progress.is_paused) == (8, 9, False)


def test_streaming_runs_ahead_of_the_acknowledgements() -> None:
    progress = streaming()
    progress.sent(7, BYTES)
    progress.sent(9, BYTES)
    assert (progress.match, progress.next, progress.inflight_messages) == (5, 10, 2)


def test_the_window_pauses_by_messages() -> None:
    progress = streaming(messages_max=3)
    for index in (6, 7, 8):
        assert may_send(progress)
        progress.sent(index, BYTES)
    assert not may_send(progress)
    assert progress.is_window_full
    assert progress.acknowledged(7)
    assert may_send(progress)
    assert progress.inflight_messages == 1


def test_the_window_pauses_by_bytes_and_lets_one_append_over_the_edge() -> None:
    progress = streaming(messages_max=100, bytes_max=25)
    progress.sent(6, 20)
    assert may_send(progress)
    progress.sent(7, 20)
    assert not may_send(progress)
    progress.acknowledged(6)
    assert may_send(progress)
    progress.sent(8, 5)
    assert not may_send(progress)


def test_an_acknowledgement_that_frees_too_little_leaves_the_peer_paused() -> None:
    progress = streaming(messages_max=100, bytes_max=25)
    progress.sent(6, 20)
    progress.sent(7, 40)
    assert progress.acknowledged(6)
    assert not may_send(progress)
    assert progress.acknowledged(7)
    assert may_send(progress)


def test_a_full_window_lets_one_empty_append_through_after_each_answered_heartbeat() -> None:
    progress = streaming(messages_max=1)
    progress.sent(6, BYTES)
    progress.resume()
    assert may_send(progress)
    assert progress.is_window_full
    progress.sent(progress.next - 1, 0)
    assert not may_send(progress)
    assert progress.inflight_messages == 1


def test_an_empty_append_fills_no_window_and_does_not_pause_an_open_one() -> None:
    progress = streaming()
    progress.sent(5, 0)
    assert (progress.next, progress.inflight_messages, progress.is_paused) == (6, 0, False)


def test_an_acknowledgement_that_says_nothing_new_changes_nothing() -> None:
    progress = streaming(match=5, messages_max=1)
    progress.sent(6, BYTES)
    assert not progress.acknowledged(5)
    assert not progress.acknowledged(3)
    assert (progress.match, progress.next, progress.inflight_messages, progress.is_paused) == (5, 7, 1, True)


def test_a_refusal_while_streaming_falls_back_to_what_is_known() -> None:
    progress = streaming(match=5)
    progress.sent(7, BYTES)
    progress.sent(9, BYTES)
    assert progress.refused(7, 5)
    progress.become_probe()
    assert (progress.state, progress.next, progress.inflight_messages) == (PROBE, 6, 0)


def test_an_old_refusal_while_streaming_is_ignored() -> None:
    progress = streaming(match=5)
    progress.sent(7, BYTES)
    assert not progress.refused(5, 2)
    assert (progress.next, progress.inflight_messages) == (8, 1)


def test_a_refused_probe_steps_back_to_the_hint_but_never_behind_match() -> None:
    progress = Progress(10, 3, 1000)
    progress.sent(9, 0)
    assert progress.refused(9, 4)
    assert (progress.next, progress.is_paused) == (5, False)
    progress.acknowledged(2)
    assert progress.refused(4, 0)
    assert progress.next == 3


def test_a_refused_probe_steps_back_at_least_one_entry() -> None:
    progress = Progress(10, 3, 1000)
    progress.sent(9, 0)
    assert progress.refused(9, 20)
    assert progress.next == 9


def test_an_old_refusal_of_a_probe_is_ignored() -> None:
    progress = Progress(10, 3, 1000)
    progress.sent(9, 0)
    assert not progress.refused(7, 3)
    assert (progress.next, progress.is_paused) == (10, True)


def test_nothing_is_sent_while_a_snapshot_is_on_its_way() -> None:
    progress = streaming(match=5)
    progress.sent(7, BYTES)
    progress.become_snapshot(20)
    assert not may_send(progress)
    progress.resume()
    assert not may_send(progress)
    assert not progress.refused(20, 4)
    assert (progress.state, progress.pending_snapshot, progress.next) == (SNAPSHOT, 20, 21)


def test_a_snapshot_that_arrived_is_probed_behind() -> None:
    progress = streaming(match=5)
    progress.become_snapshot(20)
    progress.become_probe()
    assert (progress.state, progress.match, progress.next, progress.pending_snapshot) == (PROBE, 5, 21, 0)


def test_a_snapshot_that_failed_is_probed_from_match() -> None:
    progress = streaming(match=5)
    progress.become_snapshot(20)
    progress.snapshot_failed()
    assert (progress.state, progress.next, progress.pending_snapshot, progress.is_paused) == (PROBE, 6, 0, False)


def test_a_peer_that_lost_its_disk_counts_from_nothing() -> None:
    progress = streaming(match=500)
    progress.sent(502, BYTES)
    progress.lost(0)
    assert (progress.state, progress.match, progress.next, progress.lost_seen) == (PROBE, 0, 1, True)
    assert (progress.inflight_messages, progress.is_paused) == (0, False)


def test_the_view_of_a_peer_is_shown_in_words() -> None:
    progress = Progress(6, 1, 100, is_learner=True)
    progress.lost_seen = True
    assert repr(progress) == "probe match=0 next=6 inactive learner lost-seen"
    progress.recent_active = True
    progress.become_replicate()
    progress.sent(3, BYTES)
    assert repr(progress) == "replicate match=0 next=4 inflight=1 paused learner lost-seen"
    progress.become_snapshot(9)
    assert repr(progress) == "snapshot match=0 next=10 pending-snapshot=9 paused learner lost-seen"


def test_match_stays_below_next_and_never_falls_whatever_comes_in_whatever_order() -> None:
    chance = random.Random(3)
    for _ in range(300):
        progress = Progress(chance.randint(1, 20), chance.randint(1, 4), chance.randint(1, 60))
        for _ in range(60):
            before = progress.match
            step = chance.randrange(8)
            if step < 3 and not progress.is_paused:
                count = 0 if progress.is_window_full else chance.randint(0, 3)
                progress.sent(progress.next - 1 + count, count * BYTES)
            elif step == 3:
                progress.acknowledged(chance.randint(0, progress.next - 1))
            elif step == 4 and progress.refused(chance.randint(0, 30), chance.randint(0, 30)):
                progress.become_probe()
            elif step == 5:
                chance.choice((progress.become_probe, progress.become_replicate))()
            elif step == 6 and chance.random() < 0.3:
                progress.become_snapshot(progress.match + chance.randint(1, 9))
            else:
                progress.resume()
            assert before <= progress.match < progress.next
            assert progress.state is REPLICATE or progress.inflight_messages == 0
            assert progress.inflight_messages or not progress.is_window_full
            assert (progress.pending_snapshot > 0) is (progress.state is SNAPSHOT)
