"""Settings: their values, their sources, what is refused and how, and the files generated from them."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from kvservice.config import CLUSTER_MEMBERS_MAX, MUTABLE_FIELDS, SETTINGS, Config
from kvservice.config_files import HIDDEN, example_environment, example_toml, print_json, print_toml
from kvservice.config_load import ConfigError, load_config
from kvservice.config_redis import (
    MUTABLE_REDIS_NAMES,
    REDIS_SETTINGS,
    ConfigSetError,
    change_redis_settings,
    redis_settings,
)
from kvservice.config_values import HostPort, format_size, parse_address, parse_members, parse_size
from replication.core.membership import MEMBERS_MAX

ROOT = Path(__file__).resolve().parents[2]


def refused(
    flags: dict[str, str] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(flags or {}, environ or {}, file)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1048576", 1048576), ("1k", 1000), ("1kb", 1024), ("64MB", 64 << 20), ("2g", 2 * 10**9), ("7b", 7)],
)
def test_sizes_read_as_redis_reads_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "kb", "-1", "1.5gb", "1tb", "1 kb x", "１", "9" * 20, True, 1.0, None])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@given(st.integers(0, 1 << 50))
def test_a_printed_size_reads_back_as_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:6379", "node-1.redan.svc:7400", "localhost:65535"])
def test_an_address_prints_as_it_was_read(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "6379",
        ":6379",
        "host:",
        "host:65536",
        "host:-1",
        "::1:6379",
        "[::1:6379",
        "[x]:1",
        "a b:1",
        "h\n:1",
        "h:１",
        6379,
    ],
)
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_address(text)


def test_members_are_names_with_addresses_each_once() -> None:
    assert [str(member) for member in parse_members("n1=a:1, n2=b:2")] == ["n1=a:1", "n2=b:2"]
    with pytest.raises(ValueError, match="twice"):
        parse_members("n1=a:1,n1=b:2")
    with pytest.raises(ValueError, match="the address a:1 stands twice"):
        parse_members("n1=a:1,n2=a:1")
    for unreachable in ("n2=a:0", "n2=0.0.0.0:1", "n2=[::]:1"):
        with pytest.raises(ValueError, match="an address that others cannot connect to; name a host, and a port"):
            parse_members(f"n1=a:1,{unreachable}")
    with pytest.raises(ValueError, match="is not a member"):
        parse_members("a:1")


def test_a_cluster_has_no_more_first_members_than_the_core_admits() -> None:
    assert CLUSTER_MEMBERS_MAX == MEMBERS_MAX
    members = [f"n{number}=127.0.0.1:{1000 + number}" for number in range(1, MEMBERS_MAX + 2)]
    assert len(Config(initial_cluster=parse_members(",".join(members[:-1]))).initial_cluster) == MEMBERS_MAX
    with pytest.raises(ValueError, match="names 65 members, and a cluster has at most 64"):
        Config(initial_cluster=parse_members(",".join(members)))


@pytest.mark.parametrize("setting", ["join", "advertise_peer_addr", "advertise_resp_addr", "advertise_grpc_addr"])
def test_an_address_that_others_connect_to_has_a_host_and_a_port(setting: str) -> None:
    for unreachable in ("127.0.0.1:0", "0.0.0.0:7400"):
        with pytest.raises(ValueError, match="an address that others cannot connect to"):
            Config.model_validate({setting: unreachable})


def test_a_node_that_joins_says_where_it_is_reached() -> None:
    joining = {"join": "127.0.0.1:7401", "peer_addr": "0.0.0.0:7401"}
    with pytest.raises(ValueError, match=r"this node is at 0\.0\.0\.0:7401; set advertise_peer_addr"):
        Config.model_validate(joining)
    assert Config.model_validate({**joining, "advertise_peer_addr": "n4:7401"}).advertise_peer_addr is not None


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "redan.toml"
    file.write_text('maxclients = 1\nmaxmemory = "1mb"\ntimeout = 1\n')
    loaded = load_config(
        {"maxclients": "3"}, {"REDAN_MAXCLIENTS": "2", "REDAN_MAXMEMORY": "2mb", "REDAN_CONFIG": str(file)}
    )
    config = loaded.config
    assert (config.maxclients, config.maxmemory, config.timeout, config.databases) == (3, 2 << 20, 1, 16)
    assert loaded.origins["maxclients"] == "flag --maxclients"
    assert loaded.origins["maxmemory"] == "environment REDAN_MAXMEMORY"
    assert loaded.origins["timeout"] == f"file {file}"
    assert loaded.origins["databases"] == "default"


def test_every_unknown_name_is_refused_with_the_nearest_setting(tmp_path: Path) -> None:
    file = tmp_path / "redan.toml"
    file.write_text("fsink = 'always'\n[disk]\nfsync = 'os'\n")
    problems = refused({"maxmemroy": "1"}, {"REDAN_MAXCLIENT": "5", "OTHER": "x"}, file)
    assert problems == (
        "--maxmemroy: no such setting; did you mean --maxmemory?",
        "REDAN_MAXCLIENT: no such setting; did you mean REDAN_MAXCLIENTS?",
        f"{file}: fsink: no such setting; did you mean fsync?",
        f"{file}: disk: no such setting",
    )


def test_a_refused_value_is_named_with_its_source_and_what_is_allowed() -> None:
    problems = refused({"maxmemory_samples": "100", "fsync": "never"}, {"REDAN_TIMEOUT": "-1"})
    assert set(problems) == {
        "--maxmemory-samples: '100' is refused; maxmemory_samples takes a whole number from 1 to 64",
        "--fsync: 'never' is refused; fsync takes one of always, interval, os",
        "REDAN_TIMEOUT: '-1' is refused; timeout takes a whole number from 0 to 2147483647 (seconds)",
    }


def test_service_links_of_kubernetes_are_not_taken_for_settings() -> None:
    links = {
        "REDAN_SERVICE_HOST": "10.0.0.1",
        "REDAN_SERVICE_PORT": "6379",
        "REDAN_SERVICE_PORT_RESP": "6379",
        "REDAN_PORT": "tcp://10.0.0.1:6379",
        "REDAN_PORT_6379_TCP": "tcp://10.0.0.1:6379",
        "REDAN_PORT_6379_TCP_ADDR": "10.0.0.1",
        "REDAN_HEADLESS_SERVICE_HOST": "None",
    }
    assert load_config({}, links).config == Config()


def test_a_secret_comes_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("open sesame\n")
    assert load_config({}, {"REDAN_REQUIREPASS_FILE": str(secret)}).config.requirepass == "open sesame"
    assert "is set already by" in refused({}, {"REDAN_REQUIREPASS_FILE": str(secret), "REDAN_REQUIREPASS": "x"})[0]
    assert "cannot be read" in refused({"requirepass_file": str(tmp_path / "absent")})[0]
    assert "longer than" in refused({"requirepass_file": "/dev/zero"})[0]


@pytest.mark.parametrize("name", ["requirepass", "cluster_secret"])
@pytest.mark.parametrize("content", ["", "\n", "\r\n"])
def test_a_file_without_a_secret_does_not_mean_that_there_is_none(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / "empty"
    file.write_text(content)
    assert f"{file} does not hold a secret: it is empty" in refused({f"{name}_file": str(file)})[0]


def test_a_cluster_secret_that_is_too_short_is_refused_without_being_shown() -> None:
    (problem,) = refused({"cluster_secret": "hunter2-hunter2"})
    assert problem.endswith("cluster_secret has 15 characters, and 16 are the least")
    assert "hunter2" not in problem
    assert load_config({"cluster_secret": "hunter2-hunter2-"}, {}).config.cluster_secret == "hunter2-hunter2-"


def test_a_secret_never_shows(tmp_path: Path) -> None:
    assert "hunter2" not in refused({"requirepass": "hunter2" * 100})[0]
    loaded = load_config({"requirepass": "hunter2"}, {})
    for text in (print_toml(loaded, with_origin=True), print_json(loaded, with_origin=False)):
        assert "hunter2" not in text
        assert HIDDEN in text


@pytest.mark.parametrize("text", ["maxclients = ", "= 1", "\xff", "maxclients = 1\nmaxclients = 2\n"])
def test_a_file_that_is_no_toml_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "redan.toml"
    file.write_bytes(text.encode("latin-1"))
    (problem,) = refused(file=file)
    assert problem.startswith(f"{file}: not a TOML file of settings")
    assert "\n" not in problem


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(file=tmp_path / "absent.toml") == (
        f"{tmp_path}/absent.toml: cannot be read: No such file or directory",
    )


def test_the_members_of_a_new_cluster_are_those_named_or_this_node_alone() -> None:
    members = load_config({"name": "n2", "initial_cluster": "n1=a:1,n2=b:2,n3=c:3"}, {}).config.members
    assert [str(member) for member in members] == ["n1=a:1", "n2=b:2", "n3=c:3"]
    (problem,) = refused({"initial_cluster": "n2=a:1"})
    assert "this node's name is 'n1'" in problem
    assert load_config({"initial_cluster": "n1=a:1"}, {}).config.members[0].address == HostPort("a", 1)
    assert Config().members[0].address == Config().peer_addr
    advertised = load_config({"advertise_peer_addr": "redan-0.redan:7401"}, {}).config
    assert advertised.members[0].address == HostPort("redan-0.redan", 7401)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"join": "a:1", "initial_cluster": "n1=a:1,n2=b:2"}, "join and initial_cluster"),
        ({"election_timeout_ms": "150"}, "election_timeout_ms (150) is less than twice heartbeat_interval_ms (100)"),
        ({"peer_tls_cert": "node.pem"}, "are set together, or none of them"),
    ],
)
def test_settings_of_a_cluster_that_cannot_hold_together_are_refused(flags: dict[str, str], text: str) -> None:
    (problem,) = refused(flags)
    assert text in problem


def test_a_list_of_addresses_to_join_counts_each_once() -> None:
    assert load_config({"join": "a:1, b:2,a:1"}, {}).config.join == (HostPort("a", 1), HostPort("b", 2))
    assert "write host:port" in refused({"join": "a"})[0]


def test_settings_that_cannot_hold_together_are_refused() -> None:
    assert "the longest value would not fit" in refused({"value_bytes_max": "512mb"})[0]
    assert "bounds every argument" in refused({"value_bytes_max": "1kb"})[0]


def test_every_setting_is_documented_and_its_default_is_lawful() -> None:
    for setting in SETTINGS.values():
        assert setting.doc.endswith("."), setting.field
        assert setting.allowed, setting.field
        text = setting.format(setting.default)
        assert getattr(load_config({setting.field: text}, {}).config, setting.field) == setting.default, setting.field


@example({"initial_cluster": "0\n0"})
@given(st.dictionaries(st.sampled_from(sorted(SETTINGS)), st.text(max_size=20)))
def test_any_text_as_a_value_loads_or_raises_config_error_and_nothing_else(flags: dict[str, str]) -> None:
    try:
        loaded = load_config(flags, {})
    except ConfigError as error:
        problems = error.problems
    else:
        problems = ()
        assert flags.keys() == {field for field, origin in loaded.origins.items() if origin != "default"}
    assert not any("\n" in problem for problem in problems)


def test_a_change_reaches_all_fields_or_none() -> None:
    config = Config()
    config.change({"maxmemory": "1gb", "timeout": 5})
    assert (config.maxmemory, config.timeout) == (1 << 30, 5)
    with pytest.raises(ValidationError):
        config.change({"timeout": 9, "value_bytes_max": 512 << 20})
    assert (config.timeout, config.value_bytes_max) == (5, 16 << 20)
    with pytest.raises(ValidationError):
        config.timeout = 1


def test_the_generated_files_are_fresh() -> None:
    assert (ROOT / ".env.example").read_text() == example_environment()
    assert (ROOT / "redan.toml").read_text() == example_toml()


def test_the_examples_uncommented_say_the_defaults() -> None:
    toml = "\n".join(line.removeprefix("#") for line in example_toml().splitlines() if not line.startswith("# "))
    table = {name: value for name, value in tomllib.loads(toml).items() if not name.endswith("_file")}
    assert table.keys() == SETTINGS.keys()
    assert Config.model_validate(table) == Config()
    lines = [line for line in example_environment().splitlines() if line.startswith("#REDAN_") and "_FILE=" not in line]
    environ = dict(line.removeprefix("#").split("=", 1) for line in lines)
    assert len(environ) == len(SETTINGS)
    assert load_config({}, environ).config == Config()


def test_printed_settings_load_as_the_same_settings(tmp_path: Path) -> None:
    loaded = load_config({"maxmemory": "123456", "data_dir": 'a "b"\\c', "initial_cluster": "n1=[::1]:1"}, {})
    file = tmp_path / "printed.toml"
    for with_origin in (False, True):
        file.write_text(print_toml(loaded, with_origin=with_origin))
        assert load_config({}, {}, file).config == loaded.config


def test_config_get_prints_as_redis_prints() -> None:
    shown = redis_settings(load_config({"maxmemory": "100mb", "resp_addr": "127.0.0.2:7000"}, {}).config)
    assert shown["maxmemory"] == "104857600"
    assert shown["latency-tracking"] == "yes"
    assert shown["appendfsync"] == "always"
    assert (shown["bind"], shown["port"]) == ("127.0.0.2", "7000")
    assert Path(shown["dir"]).is_absolute()
    assert shown.keys() == REDIS_SETTINGS.keys()


def test_config_set_changes_and_says_what_has_changed() -> None:
    config = Config()
    changed = change_redis_settings(config, [("MaxMemory", "10mb"), ("loglevel", "warning"), ("timeout", "0")])
    assert changed == {"maxmemory", "log_level"}
    assert (config.maxmemory, config.log_level) == (10 << 20, "warning")
    assert MUTABLE_REDIS_NAMES
    assert all(REDIS_SETTINGS[name].field in MUTABLE_FIELDS for name in MUTABLE_REDIS_NAMES)


FAILED = "CONFIG SET failed (possibly related to argument '{}') - {}"


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([("maxmemory", "lots")], FAILED.format("maxmemory", "argument must be a memory value")),
        ([("maxmemory", "1mb"), ("MAXMEMORY", "2mb")], FAILED.format("maxmemory", "duplicate parameter")),
        ([("databases", "3")], FAILED.format("databases", "can't set immutable config")),
        ([("nosuch", "1")], "Unknown option or number of arguments for CONFIG SET - 'nosuch'"),
        ([("timeout", "-1")], FAILED.format("timeout", "argument must be between 0 and 2147483647 inclusive")),
        ([("timeout", "1x")], FAILED.format("timeout", "argument couldn't be parsed into an integer")),
        ([("latency-tracking", "maybe")], FAILED.format("latency-tracking", "argument must be 'yes' or 'no'")),
        (
            [("loglevel", "loud")],
            FAILED.format("loglevel", "argument(s) must be one of the following: debug, verbose, notice, warning"),
        ),
        ([("maxclients", "7"), ("nosuch", "1")], "Unknown option or number of arguments for CONFIG SET - 'nosuch'"),
    ],
)
def test_config_set_refuses_with_the_text_of_redis_and_changes_nothing(pairs: list[tuple[str, str]], text: str) -> None:
    config = Config()
    with pytest.raises(ConfigSetError) as caught:
        change_redis_settings(config, pairs)
    assert str(caught.value) == text
    assert config == Config()
