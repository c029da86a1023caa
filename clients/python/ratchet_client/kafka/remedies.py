"""From an error of a Kafka client to what an operator should do. Not every error is about the cluster's address."""

from collections.abc import Iterator

CHECK_ADDRESS = "check RATCHET_KAFKA__BOOTSTRAP"

# By the names of classes: kafka-python and aiokafka have the same ones, and share none.
_REMEDIES = {
    "grant this user the operation with kafka-acls; consumer groups are named as kafka.group_prefix and the role": (
        *("AuthorizationError", "TopicAuthorizationFailedError", "GroupAuthorizationFailedError"),
        *("ClusterAuthorizationFailedError", "TransactionalIdAuthorizationFailed"),
    ),
    "check kafka.security: its mechanism, username and password": (
        *("SaslAuthenticationFailedError", "SaslAuthenticationFailed", "AuthenticationFailedError"),
        *("UnsupportedSaslMechanismError", "AuthenticationMethodNotSupported", "IllegalSaslStateError"),
        *("IllegalSaslState", "SecurityDisabledError"),
    ),
    "check kafka.security: its protocol, cafile, certfile and keyfile": ("SSLError", "SSLCertVerificationError"),
    "create the topic, or start the role that creates it; check the names of topics in kafka": (
        *("UnknownTopicOrPartitionError", "UnknownTopicIdError", "InvalidTopicError"),
    ),
    "raise max.message.bytes of the topic, or have less sent at once": (
        *("MessageSizeTooLargeError", "RecordListTooLargeError", "RecordTooLargeError"),
    ),
    "look at the brokers' disks and at what the producers send: the records are damaged": (
        *("CorruptRecordError", "CorruptRecordException", "InvalidMessageError", "InvalidRecordError"),
        *("InvalidRecord", "KafkaStorageError"),
    ),
    "run `pip install cramjam lz4 python-snappy zstandard`, and start again": (
        *("UnsupportedCodecError", "UnsupportedCompressionTypeError"),
    ),
    "upgrade the brokers: Ratchet needs Kafka 0.11 or newer": (
        *("UnsupportedVersionError", "IncompatibleBrokerVersion", "UnrecognizedBrokerVersion"),
        *("UnsupportedForMessageFormatError",),
    ),
    "set kafka.replication to no more than there are brokers": ("InvalidReplicationFactorError",),
    "create the topics by hand: the cluster does not allow these settings": (
        *("PolicyViolationError", "InvalidPartitionsError", "InvalidConfigurationError"),
    ),
    "bring back the brokers that are down: fewer replicas are in sync than min.insync.replicas": (
        *("NotEnoughReplicasError", "NotEnoughReplicasAfterAppendError"),
    ),
    "set kafka.session_timeout_s to what the brokers allow (group.min.session.timeout.ms)": (
        *("InvalidSessionTimeoutError",),
    ),
}
_REMEDY_OF = {name: remedy for remedy, names in _REMEDIES.items() for name in names}


def remedy_for(error: BaseException, otherwise: str = CHECK_ADDRESS) -> str:
    """The sentence that ends a message about `error`: its own remedy, or that of its cause, or `otherwise`.

    >>> remedy_for(TimeoutError())
    'check RATCHET_KAFKA__BOOTSTRAP'
    """
    for each in _with_causes(error):
        for kind in type(each).__mro__:
            if kind.__name__ in _REMEDY_OF:
                return _REMEDY_OF[kind.__name__]
    return otherwise


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__
