"""Where a setting comes from, and what becomes of an unknown one."""

from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.registry.approval import Approval
from ratchet_client.errors import ConfigurationError
from streams.policy.client import PolicyClient


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a `ratchet.toml`, and no variables but the test's."""
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "ratchet.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    write("seed = 3\n[kafka]\nbootstrap = 'file:9092'\npartitions = 7\n")
    monkeypatch.setenv("RATCHET_KAFKA__BOOTSTRAP", "env:9092")
    settings = Settings.load()
    assert (settings.seed, settings.kafka.bootstrap, settings.kafka.partitions) == (3, "env:9092", 7)
    assert settings.kafka.events_topic == "ratchet.events"


def test_a_named_file_is_read_instead_of_the_one_in_the_folder() -> None:
    write("seed = 3")
    assert Settings.load(write("seed = 4", "other.toml")).seed == 4
    assert Settings.load().seed == 3
    with pytest.raises(ConfigurationError, match=r"configuration file not found: missing\.toml"):
        Settings.load(Path("missing.toml"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sede = 1", "sede"),
        ("_env_file = 'other'", "_env_file"),
        ("[kafka]\nbootstrp = 'a:1'", "kafka.bootstrp"),
        ("[learner.lora]\nrnk = 4", "learner.lora.rnk"),
        ("[serving]\nport = 70000", "serving.port"),
        ("[[learner.stages]]\nobjective = 'magic'\nupdates = 1", "learner.stages.0.objective"),
    ],
)
def test_a_wrong_key_or_value_in_the_file_is_refused_by_its_name(text: str, key: str) -> None:
    write(text)
    with pytest.raises(ConfigurationError, match=f"the setting '{key}' is wrong: .*ratchet.toml"):
        Settings.load()


@pytest.mark.parametrize("content", [b"seed 3", b"home = '\xff'"])
def test_a_file_that_is_not_toml_is_refused(content: bytes) -> None:
    Path("ratchet.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"ratchet\.toml is not TOML"):
        Settings.load()


@pytest.mark.parametrize("variable", ["RATCHET_KAFKA_BOOTSTRAP", "RATCHET_SEDE", "RATCHET_SEED__VALUE", "ratchet_sede"])
def test_an_unknown_variable_is_refused_by_its_name(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ConfigurationError, match=f"the variable {variable} is not a setting.*: .*RATCHET_KAFKA"):
        Settings.load()


def test_a_misspelt_variable_is_told_the_one_that_is_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_STOR__PATH", "store.duckdb")
    with pytest.raises(ConfigurationError, match=r"STOR__PATH is not a setting \(did you mean RATCHET_STORE\?\)"):
        Settings.load()


def test_an_unknown_key_and_a_wrong_value_in_a_variable_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_KAFKA__BOOTSTRP", "a:1")
    with pytest.raises(ConfigurationError, match=r"'kafka\.bootstrp' is wrong"):
        Settings.load()
    monkeypatch.delenv("RATCHET_KAFKA__BOOTSTRP")
    monkeypatch.setenv("RATCHET_SEED", "many")
    with pytest.raises(ConfigurationError, match="RATCHET_SEED"):
        Settings.load()


@pytest.mark.parametrize("variable", ["RATCHET_KAFKA", "RATCHET_LEARNER__STAGES"])
def test_a_variable_that_should_hold_json_and_does_not_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "{no json")
    with pytest.raises(ConfigurationError, match="JSON"):
        Settings.load()


def test_paths_and_addresses_follow_the_home_and_the_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATCHET_HOME", "data")
    monkeypatch.setenv("RATCHET_SERVING__PORT", "9001")
    monkeypatch.setenv("RATCHET_ENGINE__PORT", "9002")
    monkeypatch.setenv("RATCHET_STORE__PORT", "9003")
    settings = Settings.load()
    assert settings.home == tmp_path / "data"
    assert settings.store.path == tmp_path / "data" / "store.duckdb"
    assert settings.serving.home == settings.home
    assert settings.serving.inference_url == "http://127.0.0.1:9002"
    assert settings.branching.policy_url == settings.control_url == "http://127.0.0.1:9001"
    assert settings.branching.model == settings.serving.alias
    assert settings.store_url == "http://127.0.0.1:9003"


def test_a_value_that_was_set_is_not_derived(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATCHET_STORE__PATH", str(tmp_path / "elsewhere.duckdb"))
    monkeypatch.setenv("RATCHET_ENGINE__URL", "http://gpu:8000")
    monkeypatch.setenv("RATCHET_BRANCHING__SEED", "5")
    settings = Settings.load()
    assert settings.store.path == tmp_path / "elsewhere.duckdb"
    assert settings.serving.inference_url == "http://gpu:8000"
    assert settings.branching.seed == 5


URL_SETTINGS = ("ENGINE__URL", "SERVING__INFERENCE_URL", "BRANCHING__POLICY_URL")


@pytest.mark.parametrize("variable", URL_SETTINGS)
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *((f"http://gpu:8000{end}", "http://gpu:8000") for end in ("", "/", "/v1", "/v1/", "/v1//", "//")),
        *((f"https://gpu/proxy{end}", "https://gpu/proxy") for end in ("", "/", "/v1", "/v1/")),
        *((" http://gpu:8000/v1 ", "http://gpu:8000"), ("HTTP://GPU:8000/v1", "http://gpu:8000")),
        *(("http://[::1]:8000/v1", "http://[::1]:8000"), ("http://v1:8000/v1", "http://v1:8000")),
        ("http://gpu:8000/v10", "http://gpu:8000/v10"),
    ],
)
def test_the_url_of_a_server_may_end_as_openais_clients_write_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, written: str, meant: str
) -> None:
    monkeypatch.setenv(f"RATCHET_{variable}", written)
    settings = Settings.load()
    found = settings.branching.policy_url if variable.startswith("BRANCHING") else settings.serving.inference_url
    assert found == meant
    # The roles read it again, from the variables that the supervisor gives them.
    monkeypatch.setenv("RATCHET_SERVING", settings.to_environment()["RATCHET_SERVING"])
    assert Settings.load().serving.inference_url == settings.serving.inference_url


@pytest.mark.parametrize("variable", URL_SETTINGS)
@pytest.mark.parametrize(
    "url",
    [
        *(
            "gpu:8000",
            "gpu",
            "127.0.0.1:8000/v1",
            "/v1",
            "ftp://gpu",
            "ws://gpu/v1",
            "http://",
            "http:///v1",
            "http:gpu",
        ),
        *("http://gpu:99999", "http://gpu:port", "http://gpu/v1?key=1", "http://gpu?", "http://gpu/#v1", "http://g pu"),
    ],
)
def test_what_is_not_the_url_of_a_server_is_refused_by_its_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str
) -> None:
    monkeypatch.setenv(f"RATCHET_{variable}", url)
    setting = variable.lower().replace("__", ".")
    with pytest.raises(ConfigurationError, match=f"the setting '{setting}' is wrong: .* write it as http://127"):
        Settings.load()


async def test_a_client_of_the_policy_reads_its_url_as_the_settings_do() -> None:
    async with PolicyClient("http://gpu:8000/v1/") as policy:
        assert policy.base_url == "http://gpu:8000"
    for url in ("gpu:8000", "http://gpu?key=1", ""):
        with pytest.raises(ConfigurationError, match="write it as http://127"):
            PolicyClient(url)


@pytest.mark.parametrize("key", ["temperatures = [0.5, 2.5]", "recovery.temperature = 2.5"])
def test_a_temperature_that_no_server_would_take_is_refused_before_it_is_asked(key: str) -> None:
    write(f"[branching]\n{key}")
    with pytest.raises(ConfigurationError, match=r"the setting 'branching\..*temperature.*less than or equal to 2"):
        Settings.load()


def test_an_engine_without_url_is_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in ("", " "):
        monkeypatch.setenv("RATCHET_ENGINE__URL", empty)
        assert Settings.load().engine.url == ""


def test_several_engines_their_key_and_their_name_for_the_base_reach_the_serve_role(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write("[engine]\nurls = ['http://one:8000/v1', 'http://two:8000/']\napi_key = 'sk-1'\nbase_name = 'my/model'\n")
    settings = Settings.load()
    assert settings.engine.named == ("http://one:8000", "http://two:8000")
    serving = settings.serving
    assert (serving.inference_url, serving.replica_urls) == ("http://one:8000", ("http://two:8000",))
    assert (serving.engine_key.get_secret_value(), serving.base_name) == ("sk-1", "my/model")
    assert "sk-1" not in settings.model_dump_json()
    monkeypatch.setenv("RATCHET_SERVING", settings.to_environment()["RATCHET_SERVING"])
    assert Settings.load().serving == serving


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("url = 'http://one'\nurls = ['http://two']", "set one of the two"),
        ("urls = ['http://one', 'http://one/v1']", "names a server twice"),
    ],
)
def test_engines_that_contradict_each_other_are_refused(text: str, words: str) -> None:
    write(f"[engine]\n{text}\n")
    with pytest.raises(ConfigurationError, match=words):
        Settings.load()


def test_another_process_reads_the_very_same_settings_from_its_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write("seed = 9\n[learner]\nlearning_rate = 1e-3\n[learner.lora]\nlayers = 4\n[kafka]\nbootstrap = 'a:1,b:2'\n")
    settings = Settings.load()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for variable, value in settings.to_environment().items():
        monkeypatch.setenv(variable, value)
    assert Settings.load() == settings


def test_promotion_is_set_in_one_place_and_its_older_one_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[promotion]\napproval = 'always'\n[serving.promotion]\ndrain_timeout_s = 5\n")
    settings = Settings.load()
    assert settings.promotion == settings.serving.promotion
    assert (settings.promotion.approval, settings.promotion.drain_timeout_s) == (Approval.ALWAYS, 5)
    assert settings.promotion.approval_age_s == 7 * 86_400
    monkeypatch.setenv("RATCHET_SERVING__PROMOTION__APPROVAL", "always")
    assert Settings.load() == settings
    monkeypatch.setenv("RATCHET_SERVING__PROMOTION__APPROVAL", "never")
    with pytest.raises(ConfigurationError, match=r"promotion\.approval and serving\.promotion\.approval differ"):
        Settings.load()
    monkeypatch.setenv("RATCHET_PROMOTION__APPROVAL", "never")
    assert Settings.load().promotion.approval is Approval.NEVER


@pytest.mark.parametrize(
    "text", ["approval = 'sometimes'", "approval_age_s = 0", "approval_age_s = inf", "approval_age_s = nan"]
)
def test_a_wrong_setting_of_approval_is_refused(text: str) -> None:
    write(f"[promotion]\n{text}")
    with pytest.raises(ConfigurationError, match=r"the setting 'promotion\.approval"):
        Settings.load()


def test_the_branch_role_asks_the_gateway_with_one_of_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().branching.policy_token.get_secret_value() == ""
    monkeypatch.setenv("RATCHET_SERVING__TOKENS", '{"anna": "aaaaaaaaaaaaaaaa"}')
    assert Settings.load().branching.policy_token.get_secret_value() == "a" * 16


@pytest.mark.parametrize(("own", "environment"), [("", "toolbox"), ("other", "other")])
def test_calls_that_name_no_environment_are_of_the_domains(
    monkeypatch: pytest.MonkeyPatch, own: str, environment: str
) -> None:
    monkeypatch.setenv("RATCHET_DOMAIN__ENVIRONMENT", "toolbox")
    if own:
        monkeypatch.setenv("RATCHET_ASSEMBLY__ENVIRONMENT", own)
    settings = Settings.load()
    assert settings.assembly.environment == environment


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[learner]\nmin_new_episode = 3",
            "unknown setting min_new_episode in [learner]; did you mean min_new_episodes?",
        ),
        ("sed = 3", "unknown setting sed; did you mean seed?"),
        ("[gate.rollouts]\nzzz = 1", "unknown setting zzz in [gate.rollouts]"),
        ("[engine]\nport = 'many'", "'engine.port' is wrong: it must be a whole number"),
        ("[domain]\nrecorded = 'perhaps'", "it must be true or false"),
    ],
)
def test_a_wrong_setting_is_told_in_plain_words_with_its_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "ratchet.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        Settings.load(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
