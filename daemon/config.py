"""The whole configuration: environment variables over a TOML file over defaults; unknown keys are refused.

`RATCHET_KAFKA__BOOTSTRAP=host:9092` sets `[kafka] bootstrap`. The supervisor hands what it resolved to the roles it
starts as variables of the same kind.
"""

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from daemon.serving.settings import PromotionSettings, ServingSettings
from evaluation.settings import GateSettings
from learners.settings import EMBEDDED, LearnerSettings
from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import REVEAL, FrozenModel, Secret, ServerUrl, ServerUrlIfAny
from streams.access.settings import AccessSettings
from streams.access.tokens import INTERNAL_ROLES_VARIABLE, INTERNAL_VARIABLE, TOKEN_VARIABLE
from streams.assembly.settings import AssemblySettings
from streams.branching.settings import BranchingSettings
from streams.intake.admission import AdmissionSettings
from streams.kafka.settings import KafkaSettings
from streams.otlp.settings import OtlpSettings
from streams.policy.client import BASE
from streams.redaction.settings import RedactionSettings
from streams.runtime.logs import LogSettings
from streams.runtime.tls import reached_host, use
from streams.setting_errors import told
from streams.store.settings import StoreSettings
from streams.trust.groups import AdapterSettings, home_of
from streams.trust.holdout import HoldoutSettings
from streams.trust.rules import TrustSettings

PREFIX = "RATCHET_"
DEFAULT_FILE = Path("ratchet.toml")
# Tokens that this process sends. They are not settings: no file has them, and they are never printed.
_SENT = frozenset({TOKEN_VARIABLE, INTERNAL_VARIABLE, INTERNAL_ROLES_VARIABLE})


class EngineSettings(FrozenModel):
    """The inference server that Ratchet starts, unless one is named."""

    url: ServerUrlIfAny = Field(
        default="", description="A running server, such as vLLM, with or without /v1; empty starts the embedded one."
    )
    urls: tuple[ServerUrl, ...] = Field(
        default=(), description="Several of them instead, of the same base model; gates are played on the first."
    )
    api_key: Secret = Field(default=SecretStr(""), description="The key that the running servers ask for, if any.")
    base_name: str = Field(
        default=BASE, min_length=1, description="The running servers' name for the base model, `--served-model-name`."
    )
    port: int = Field(default=8421, ge=1, le=65535, description="Port of the embedded server.")
    threads: int = Field(default=2, ge=1, description="Torch threads of the embedded server.")
    slots: int = Field(default=96, ge=1, description="Chats it keeps, per model; memory that is used again is faster.")
    max_length: int = Field(
        default=2048, ge=8, description="Longest prompt and reply together, in tokens; tools are part of the prompt."
    )

    @model_validator(mode="after")
    def _servers_are_named_once(self) -> Self:
        if self.url and self.urls and self.url not in self.urls:
            raise ValueError("url and urls name different servers: set one of the two")
        if len(set(self.urls)) < len(self.urls):
            raise ValueError("urls names a server twice: name each once")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """The servers that run already; none where Ratchet starts its own."""
        return self.urls or ((self.url,) if self.url else ())


class HealthSettings(FrozenModel):
    """Where the roles without an interface of their own answer `/healthz`, `/readyz` and `/version`."""

    host: str = Field(default="127.0.0.1", description="Where they listen.")
    branch_port: int = Field(default=8403, ge=0, le=65535, description="Port of the branch role; 0: none.")
    learn_port: int = Field(default=8404, ge=0, le=65535, description="Port of the learn role; 0: none.")


class DomainSettings(FrozenModel):
    """The agent's domain, as far as evaluation must know it: the tasks that gates are played on."""

    environment: str = Field(
        default="", description="Entry point of a sandbox environment; empty: no gate is played and nothing is learned."
    )
    recorded: bool = Field(
        default=False,
        description="Without an environment: learn, and judge by recorded states, a weaker gate that needs a canary.",
    )
    suite: str = Field(
        default="", description="The kind of tasks, as the environment names it; empty: the only one that it has."
    )
    fold: str = Field(default="train", description="The fold that production plays; gates use its held-out tasks.")
    out_of_domain_fold: str = Field(
        default="dev", description="Reported apart where gates found no fault; it decides nothing. Empty: none."
    )
    out_of_domain_tasks: int = Field(default=64, ge=0, description="How many tasks of that fold are played; 0 is none.")

    @model_validator(mode="before")
    @classmethod
    def _suite_by_its_older_name(cls, given: Any) -> Any:
        if isinstance(given, dict) and "game" in given and "suite" not in given:
            return {("suite" if key == "game" else key): value for key, value in given.items()}
        return given


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__")

    home: Path = Field(default=Path(".ratchet"), description="Folder of everything Ratchet keeps.")
    model: str = Field(default=EMBEDDED, description="The base model: the embedded one's name or a local folder.")
    seed: int = Field(default=0, description="Seed of training and of branching.")
    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()
    admission: AdmissionSettings = AdmissionSettings()
    redaction: RedactionSettings = RedactionSettings()
    trust: TrustSettings = TrustSettings()
    holdout: HoldoutSettings = HoldoutSettings()
    branching: BranchingSettings = BranchingSettings()
    learner: LearnerSettings = LearnerSettings()
    gate: GateSettings = GateSettings()
    domain: DomainSettings = DomainSettings()
    engine: EngineSettings = EngineSettings()
    serving: ServingSettings = ServingSettings()
    promotion: PromotionSettings = PromotionSettings()
    adapters: AdapterSettings = AdapterSettings()
    assembly: AssemblySettings = AssemblySettings()
    otlp: OtlpSettings = OtlpSettings()
    access: AccessSettings = AccessSettings()
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _promotion_is_set_once(self) -> Self:
        """`serving.promotion` is the older place of the same settings."""
        older, newer = self.serving.promotion, self.promotion
        for name in sorted(older.model_fields_set & newer.model_fields_set):
            if getattr(older, name) != getattr(newer, name):
                raise ValueError(f"promotion.{name} and serving.promotion.{name} differ: set promotion.{name} alone")
        return self

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """The settings of `read`, `settled`: every process works with these, and its clients use their TLS."""
        settings = cls.read(path).settled()
        urls = (settings.store_url, settings.assembly_url, settings.otlp_url, settings.control_url)
        use(settings.access.tls, urls)
        return settings

    @classmethod
    def read(cls, path: Path | None = None) -> Self:
        """Read the file (by default `ratchet.toml` if there is one) and the environment.

        Raises `ConfigurationError` with the first wrong key or value.
        """
        if path is not None and not path.is_file():
            raise ConfigurationError(f"configuration file not found: {path}")
        _refuse_unknown_variables(cls)
        source = path or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
        try:
            return cls(_build_sources=((EnvSettingsSource(cls), TomlConfigSettingsSource(cls, source)), {}))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{source} is not TOML: {error}") from error
        except SettingsError as error:
            raise ConfigurationError(f"{error}: the variable must hold JSON; {error.__cause__}") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(
                f"the setting {key!r} is wrong: {told(cls, first)}; it comes from {source or 'the environment'} "
                f"or a variable {PREFIX}{key.upper().replace('.', '__')}"
            ) from error

    def settled(self) -> Self:
        """With every path below `home` and every address of a part of Ratchet filled in, unless they were set.

        Golden tasks are pinned to the holdout, so that every process leaves them out of training. Raises
        `ConfigurationError` where their file cannot be read.
        """

        def fill(part: Any, **values: object) -> Any:
            return part.model_copy(update={k: v for k, v in values.items() if k not in part.model_fields_set})

        home = self.home.resolve()
        gate = self.gate.model_copy(update={"golden": self.gate.golden.with_file()})
        engines = self.engine.named or (f"http://127.0.0.1:{self.engine.port}",)
        engine = {
            "inference_url": engines[0],
            "replica_urls": engines[1:],
            "engine_key": self.engine.api_key,
            "base_name": self.engine.base_name if self.engine.named else BASE,
        }
        token = next(iter(self.serving.tokens.values()), self.branching.policy_token)
        policy, model = self.control_url, str(self.serving.alias)
        if self.adapters.groups and not {"policy_url", "model"} & self.branching.model_fields_set:
            # No group is to learn from what another group's adapter proposed: the base model proposes.
            policy, token, model = engines[0], self.engine.api_key, str(engine["base_name"])
        older = self.serving.promotion
        promotion = fill(self.promotion, **{name: getattr(older, name) for name in older.model_fields_set})
        return self.model_copy(
            update={
                "home": home,
                "gate": gate,
                "holdout": self.holdout.model_copy(update={"pinned": self.holdout.pinned.union(gate.golden.tasks)}),
                "store": fill(self.store, path=home / "store.duckdb"),
                "assembly": fill(
                    self.assembly,
                    path=home / "assembly.sqlite",
                    environment=self.domain.environment or self.assembly.environment,
                ),
                "promotion": promotion,
                "serving": fill(self.serving, home=home, **engine).model_copy(update={"promotion": promotion}),
                "branching": fill(self.branching, policy_url=policy, policy_token=token, model=model, seed=self.seed),
            }
        )

    def of_group(self, name: str) -> Self:
        """These settings with the home of a group; an empty name is the default one's.

        Raises `ConfigurationError` for one that is not set.
        """
        if name and name not in self.adapters.groups:
            known = ", ".join(self.adapters.groups) or "none"
            raise ConfigurationError(f"the group {name!r} is not set: adapters.groups has {known}")
        return self.model_copy(update={"home": home_of(self.home, name)})

    @property
    def store_url(self) -> str:
        return self._url(self.store.host, self.store.port)

    @property
    def assembly_url(self) -> str:
        return self._url(self.assembly.host, self.assembly.port)

    @property
    def otlp_url(self) -> str:
        return self._url(self.otlp.host, self.otlp.port)

    @property
    def control_url(self) -> str:
        return self._url(self.serving.host, self.serving.port)

    def _url(self, host: str, port: int) -> str:
        scheme = self.access.tls.scheme
        # A certificate names an address that clients can ask for.
        return f"{scheme}://{reached_host(host) if scheme == 'https' else host}:{port}"

    def to_environment(self) -> dict[str, str]:
        """Variables that make `load` in another process give these very settings."""
        variables = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            variables[PREFIX + name.upper()] = (
                value.model_dump_json(context=REVEAL) if isinstance(value, BaseModel) else str(value)
            )
        return variables


def _refuse_unknown_variables(settings: type[BaseSettings]) -> None:
    # Pydantic reads the variables that it knows and would pass over a misspelt one in silence.
    for variable in os.environ:
        name, _, key = variable.upper().removeprefix(PREFIX).lower().partition("__")
        if not variable.upper().startswith(PREFIX) or variable in _SENT:
            continue
        field = settings.model_fields.get(name)
        if field is None or (key and not isinstance(field.default, BaseModel)):
            near = [] if field is not None else get_close_matches(name, settings.model_fields, 1)
            meant = f" (did you mean {PREFIX}{near[0].upper()}?)" if near else ""
            raise ConfigurationError(
                f"the variable {variable} is not a setting{meant}: correct or unset it; there are "
                + ", ".join(PREFIX + known.upper() for known in settings.model_fields)
            )
