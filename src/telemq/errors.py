"""Every error that telemq raises on purpose, in one tree.

::

    TelemqError
    ├── SettingError             a setting is missing or outside its range
    ├── SourceError              an input file or exporter cannot be read
    ├── RecordError              a record or batch payload is not acceptable
    ├── ProtocolError            the wire protocol was broken ...
    │   ├── LocalProtocolError   ... by the caller on this side
    │   └── RemoteProtocolError  ... by the peer; has a stable wire code
    ├── StoreError               the database refuses or cannot be used
    │   ├── SlowQueryError       a query ran into its time limit
    │   ├── AggregateError       what is stored has no such aggregate
    │   └── EmbeddedError        the embedded Postgres cannot be found or started
    ├── StreamError              a stream is asked to be what it is not
    ├── KubernetesError          the Kubernetes API refuses or cannot be used
    ├── BusyError                an address or directory is already in use
    └── ChildError               a child process refuses to run

Catch by what to do next: ``SettingError``, ``SourceError``, ``StreamError``, ``BusyError`` and
``ChildError`` are for the person who started the command; ``RecordError`` ends one batch;
``ProtocolError`` ends one session; ``StoreError`` is retried or ends the process.
"""

__all__ = [
    "AggregateError",
    "BusyError",
    "ChildError",
    "EmbeddedError",
    "KubernetesError",
    "LocalProtocolError",
    "ProtocolError",
    "RecordError",
    "RemoteProtocolError",
    "SettingError",
    "SlowQueryError",
    "SourceError",
    "StoreError",
    "StreamError",
    "TelemqError",
]


class TelemqError(Exception):
    """Base of all; its text is fit to be shown to the person who ran the command."""


class SettingError(TelemqError):
    """A setting has a value that is not accepted.

    Args:
        name: the flag, such as ``--lease-s``.
        value: what was given; never a secret.
        accepted: the range or the form that is accepted, in words.
    """

    def __init__(self, name: str, value: object, accepted: str) -> None:
        self.name = name
        self.value = value
        self.accepted = accepted
        super().__init__(f"{name}: {value!r} is not accepted; it must be {accepted}")


class SourceError(TelemqError):
    """An input cannot be read; the text names the file and, where there is one, the row."""


class RecordError(TelemqError):
    """A payload does not decode to records; the text says what was found and what is accepted."""


class ProtocolError(TelemqError):
    """The wire protocol was broken."""


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol does not allow now; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; its session ends.

    Args:
        code: one of the codes of docs/protocol.md, section Errors.
        detail: what was wrong, in words, without any of the payload.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class StoreError(TelemqError):
    """The database cannot be used; nothing of the transaction was kept."""


class SlowQueryError(StoreError):
    """A query ran into its time limit; whoever asked can ask for less."""


class AggregateError(StoreError):
    """What is stored has no such aggregate; whoever asked can ask for another."""


class EmbeddedError(StoreError):
    """The embedded Postgres cannot be found, initialised or started."""


class StreamError(TelemqError):
    """A stream already exists with another source, or is not what the caller takes it for."""


class KubernetesError(TelemqError):
    """The Kubernetes API refuses, or did not answer in time; what it had done before stays."""


class BusyError(TelemqError):
    """An address or a data directory is in use by somebody else."""


class ChildError(TelemqError):
    """A child process of a supervisor refuses to run, every time; the text tells its reason."""
