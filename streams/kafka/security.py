"""Arguments of Kafka clients for the address of the cluster and for authentication."""

import ssl

from streams.errors import ConfigurationError
from streams.kafka.settings import KafkaSecurity


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
