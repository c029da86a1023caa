"""TLS and SASL: the settings, and the arguments that Kafka clients take for them."""

import ssl
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, Field, SecretStr, model_validator

from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import FrozenModel, Secret


class KafkaSecurity(FrozenModel):
    """Authentication of clients and of the cluster. Certificates and keys are PEM files."""

    model_config = ConfigDict(hide_input_in_errors=True)

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="What the cluster's listener speaks."
    )
    cafile: Path | None = Field(
        default=None, description="Authorities that may sign the brokers' certificates; none means the system's."
    )
    certfile: Path | None = Field(default=None, description="The client's certificate, where brokers ask for one.")
    keyfile: Path | None = Field(default=None, description="The key of `certfile`, not encrypted.")
    check_hostname: bool = Field(default=True, description="Whether a broker's certificate must bear its host's name.")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="The SASL mechanism."
    )
    username: str = Field(default="", description="The SASL user.")
    password: Secret = Field(default=SecretStr(""), description="The SASL user's password; never shown.")

    @property
    def encrypted(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def authenticated(self) -> bool:
        """Return whether clients authenticate by SASL."""
        return self.protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    @model_validator(mode="after")
    def _nothing_is_missing_or_ignored(self) -> Self:
        if {bool(self.username), bool(self.password.get_secret_value())} != {self.authenticated}:
            raise ValueError("username and password belong to SASL_PLAINTEXT and SASL_SSL, which need both")
        if not self.encrypted and (self.cafile or self.certfile or self.keyfile):
            raise ValueError("cafile, certfile and keyfile belong to the protocols SSL and SASL_SSL")
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile need each other")
        return self


def client_options(bootstrap: str, security: KafkaSecurity) -> dict[str, object]:
    """Keyword arguments for any client of kafka-python.

    Raises `ConfigurationError` when a file that `security` names cannot be used.
    """
    options: dict[str, object] = {
        "bootstrap_servers": [server.strip() for server in bootstrap.removeprefix("kafka://").split(",")],
        "security_protocol": security.protocol,
    }
    if security.encrypted:
        options["ssl_context"] = tls_context(security)
    if security.authenticated:
        options["sasl_mechanism"] = security.mechanism
        options["sasl_plain_username"] = security.username
        options["sasl_plain_password"] = security.password.get_secret_value()
    return options


def tls_context(security: KafkaSecurity) -> ssl.SSLContext:
    """A context that verifies the brokers' certificates and, where there is one, presents the client's.

    Raises `ConfigurationError` when a file that `security` names cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=security.cafile)
        context.check_hostname = security.check_hostname
        if security.certfile is not None:
            # A function in place of a passphrase, so that OpenSSL does not ask for one at the terminal.
            context.load_cert_chain(security.certfile, security.keyfile, password=lambda: "")
    except OSError as error:
        files = ", ".join(str(file) for file in (security.cafile, security.certfile, security.keyfile) if file)
        raise ConfigurationError(
            f"the TLS files of kafka.security cannot be used ({files}): {error}; they must be PEM, the key unencrypted"
        ) from error
    return context
