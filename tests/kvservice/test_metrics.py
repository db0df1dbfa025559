"""What /metrics says: the right numbers, under names that Prometheus's own linter would pass."""

import random
import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from kvservice.commands.ports import MemberView, PeerView
from kvservice.commands.registry import TABLE
from kvservice.commands.table import Command
from kvservice.errors import WrongType
from kvservice.latency_buckets import bucket_of
from kvservice.loop_lag import LoopLag
from kvservice.metrics import add_log_metrics, node_registry
from persistence.log_writer import WalStats
from tests.harness.server_plane import FakeNode, FakeService


class MeasuredNode(FakeNode):
    """Consensus with the figure that only /metrics shows."""

    proposals_pending = 2


class Forwarded:
    """What was passed on."""

    is_linked = True
    calls_sent = 5
    calls_returned = 2
    calls_lost = 1
    calls_pending = 3
    bytes_pending = 4000


class MeasuredService(FakeService):
    """A node to be scraped."""

    def __init__(self) -> None:
        super().__init__()
        self.node: MeasuredNode = MeasuredNode()
        self.forwarder = Forwarded()


class Scraped:
    """A node and what it says of itself."""

    def __init__(self) -> None:
        self.service = MeasuredService()
        self.wal = WalStats()
        self.lag = LoopLag()
        self.registry = node_registry(self.service, self.lag)
        add_log_metrics(self.registry, self.service, self.wal)

    def families(self) -> dict[str, Metric]:
        text = generate_latest(self.registry).decode()
        return {family.name: family for family in text_string_to_metric_families(text)}

    def samples(self) -> dict[tuple[str, ...], float]:
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in self.families().values()
            for sample in family.samples
        }


def row(name: bytes) -> Command:
    found = TABLE.find(name)
    assert found is not None
    return found


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


def test_commands_are_counted_by_name_and_outcome(scraped: Scraped) -> None:
    stats = scraped.service.stats
    stats.executed(row(b"GET"), 5, 2_000_000)
    stats.answered(row(b"GET"), 5, 100)
    stats.failed(row(b"GET"), WrongType())
    stats.rejected(row(b"SET"), WrongType())
    stats.of(row(b"SET"))
    samples = scraped.samples()
    assert samples["redan_commands_total", "get"] == 5
    assert samples["redan_commands_failed_total", "get"] == 1
    assert samples["redan_commands_rejected_total", "set"] == 1
    assert samples["redan_command_execution_seconds_total", "get"] == 0.002
    assert samples["redan_error_replies_total", "WRONGTYPE"] == 2
    assert samples["redan_command_duration_seconds_count", "get"] == 5
    assert samples["redan_command_duration_seconds_sum", "get"] == pytest.approx(5 * 100e-6, rel=0.125)
    assert samples["redan_command_duration_seconds_bucket", "get", "6.4e-05"] == 0
    assert samples["redan_command_duration_seconds_bucket", "get", "0.000128"] == 5
    assert ("redan_command_duration_seconds_count", "set") not in samples


def test_a_bucket_counts_exactly_the_latencies_below_its_bound(scraped: Scraped) -> None:
    chance = random.Random(7)
    latencies = [int(chance.lognormvariate(7, 3)) for _ in range(5000)] + [0, 15, 16, 17, 2**26 - 1, 2**26, 2**40]
    for latency in latencies:
        scraped.lag.histogram[bucket_of(latency)] += 1
    buckets = [sample for sample in scraped.families()["redan_event_loop_lag_seconds"].samples if "le" in sample.labels]
    assert len(buckets) == 24
    for sample in buckets:
        bound = float(sample.labels["le"])
        assert sample.value == sum(latency < bound * 1e6 for latency in latencies), bound


def test_syncs_of_the_log_become_a_histogram(scraped: Scraped) -> None:
    for seconds in (100e-6, 100e-6, 0.004, 100.0):
        scraped.wal.count_sync(seconds)
    scraped.wal.appended_bytes, scraped.wal.frames, scraped.wal.last_error = 1000, 4, "fdatasync failed"
    samples = scraped.samples()
    name = "redan_wal_fsync_duration_seconds"
    assert samples[f"{name}_bucket", "6.4e-05"] == 0
    assert samples[f"{name}_bucket", "0.000128"] == 2
    assert samples[f"{name}_bucket", "0.004096"] == 3
    assert samples[f"{name}_bucket", "+Inf"] == samples[f"{name}_count",] == 4
    assert samples[f"{name}_sum",] == pytest.approx(100.0042)
    assert (samples["redan_wal_appended_bytes_total",], samples["redan_wal_failed",]) == (1000, 1)


def test_keyspace_memory_and_consensus_are_told(scraped: Scraped) -> None:
    service = scraped.service
    service.machine.databases[3].set(b"a", b"1")
    service.machine.databases[3].set_deadline(b"a", 99)
    service.machine.context.hits, service.machine.context.misses = 4, 5
    service.machine.memory.used_bytes = 123
    service.stats.evicted_keys = 6
    service.node.leader_id = None
    samples = scraped.samples()
    assert (samples["redan_keys", "3"], samples["redan_keys_expiring", "3"]) == (1, 1)
    assert ("redan_keys", "0") not in samples
    assert (samples["redan_keyspace_hits_total",], samples["redan_keyspace_misses_total",]) == (4, 5)
    assert (samples["redan_memory_used_bytes",], samples["redan_memory_peak_bytes",]) == (123, 123)
    assert samples["redan_evicted_keys_total",] == 6
    assert (samples["redan_raft_is_leader",], samples["redan_raft_has_leader",]) == (1, 0)
    assert (samples["redan_raft_term",], samples["redan_raft_commit_index",]) == (3, 11)
    assert (samples["redan_raft_applied_index",], samples["redan_raft_proposals_pending",]) == (10, 2)
    assert samples["redan_snapshot_pending_entries",] == 7
    assert samples["redan_snapshot_slice_seconds_max",] == 0.002


def test_a_scrape_works_before_log_and_consensus_exist() -> None:
    service = MeasuredService()
    del service.node, service.snapshots
    text = generate_latest(node_registry(service, LoopLag())).decode()
    assert "redan_build_info{" in text
    assert "redan_raft_term" not in text


def test_names_follow_the_rules_of_promtool(scraped: Scraped) -> None:
    scraped.service.stats.answered(row(b"GET"), 1, 100)
    families = [family for name, family in scraped.families().items() if name.startswith("redan_")]
    assert len(families) > 40
    for family in families:
        assert family.documentation.endswith("."), family.name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name), family.name
        words = family.name.split("_")
        assert not {"milliseconds", "ms", "us", "microseconds", "kb", "mb", "minutes", "counter", "gauge"} & set(words)
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert all(name.endswith("_total") for name in names), family.name
        else:
            assert not any(name.endswith("_total") for name in names), family.name
        if family.type != "histogram":
            assert not any(name.endswith(("_count", "_sum", "_bucket")) for name in names), family.name


def test_percentiles_can_be_derived_within_one_doubling(scraped: Scraped) -> None:
    for latency in range(1, 10_001):
        scraped.service.stats.answered(row(b"GET"), 1, latency)
    family = scraped.families()["redan_command_duration_seconds"]
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if "le" in s.labels]
    for percentile in (0.5, 0.95, 0.99):
        bound = next(bound for bound, below in buckets if below >= percentile * 10_000)
        assert bound / 2 <= percentile * 0.01 <= bound


def test_a_command_costs_thirty_lines_of_a_scrape(scraped: Scraped) -> None:
    for command in TABLE.rows[:60]:
        scraped.service.stats.executed(command, 10, 1000)
        scraped.service.stats.answered(command, 10, 1000)
    text = generate_latest(scraped.registry)
    assert 60 * 28 < text.count(b"\n") < 60 * 32 + 400


def test_process_metrics_are_there(scraped: Scraped) -> None:
    names = scraped.families().keys()
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= names
    assert isinstance(scraped.registry, CollectorRegistry)


def test_the_leader_tells_how_far_each_peer_is_and_whose_state_differs(scraped: Scraped) -> None:
    group = scraped.service.group
    group.all_members = [MemberView(name, name != "n3", "h:1", "h:2") for name in ("n1", "n2", "n3")]
    group.all_peers = [
        PeerView("n2", 9, 3, "replicate", True, "equal"),
        PeerView("n3", 5, 7, "probe", False, "diverged"),
    ]
    group.checkpoint = (8, 1)
    samples = scraped.samples()
    assert (samples[("redan_raft_voters",)], samples[("redan_raft_learners",)]) == (2, 1)
    assert (samples[("redan_state_divergence", "n2")], samples[("redan_state_divergence", "n3")]) == (0, 1)
    assert samples[("redan_state_digest_index",)] == 8
    assert samples[("redan_raft_peer_match_index", "n3")] == 5
    assert samples[("redan_raft_peer_lag_entries", "n3")] == 7
    assert (samples[("redan_raft_peer_active", "n2")], samples[("redan_raft_peer_active", "n3")]) == (1, 0)


def test_a_follower_tells_what_it_passes_on(scraped: Scraped) -> None:
    samples = scraped.samples()
    calls = [samples[f"redan_forwarded_calls{word}_total",] for word in ("", "_returned", "_lost")]
    assert calls == [5, 2, 1]
    assert samples["redan_forwarding_linked",] == 1
    assert (samples["redan_forwarding_pending_calls",], samples["redan_forwarding_pending_bytes",]) == (3, 4000)


def test_a_follower_does_not_tell_how_far_others_are(scraped: Scraped) -> None:
    scraped.service.group.all_members = [MemberView(name, True, "h:1", "h:2") for name in ("n1", "n2")]
    families = scraped.families()
    assert "redan_state_divergence" in families
    assert "redan_raft_peer_match_index" not in families
