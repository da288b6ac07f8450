"""What the text of each kind of EVERTUNE_* variable may be: functions that return its value.

Called by `evertune.settings`, which says which variable is of which kind. They raise ValueError with the rule alone:
their caller knows the variable. They open no file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from evertune.errors import UsageError

DATABASE_DIALECTS = ("sqlite", "mysql", "mariadb", "postgresql")
INGEST_KEYS_RULE = (
    "keys are id:hex[,id:hex], each id once, of letters, digits, - and _, each secret 16 to 64 bytes as hexadecimal"
)


def home(text: str) -> Path:
    path = Path(text).expanduser()
    if re.search(r"[?#%\x00-\x1f\x7f]", text):
        raise ValueError("a home must not contain ?, #, % or control characters, they mean something in database URLs")
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links and hide what the user wrote


def default_home(environ: Mapping[str, str]) -> Path:
    base = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises without a passwd entry
    if base == "~":
        raise UsageError("HOME is not set and this user has no home directory", hint="set EVERTUNE_HOME to a directory")
    try:
        return home(os.path.join(base, ".evertune"))  # noqa: PTH118
    except ValueError as error:
        raise UsageError(f'HOME is "{base}": {error}', hint="set EVERTUNE_HOME to another directory") from error


def namespace(text: str) -> str:
    if len(text) > 63 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text):
        raise ValueError("a namespace has at most 63 lower-case letters, digits and dashes, no dash at either end")
    return text


def temporal_name(text: str) -> str:
    if len(text) > 255 or not re.fullmatch(r"[A-Za-z0-9][-_.A-Za-z0-9]*", text):
        raise ValueError("a Temporal namespace has letters, digits, dashes, dots and underscores, at most 255")
    return text


def database_url(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    dialect = scheme.partition("+")[0]
    if not separator or dialect not in DATABASE_DIALECTS:
        raise ValueError("a database URL begins with sqlite:///, mysql+pymysql:// or postgresql+psycopg://")
    if text.startswith("sqlite") and re.fullmatch(r"sqlite(\+\w+)?://(/(:memory:)?)?", text):
        raise ValueError("a database in memory cannot be shared by processes; name a file as sqlite:////path/to/file")
    return text


def address(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if "://" in text or not separator or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("an address is host:port, as 127.0.0.1:7233")
    return text


def flag(text: str) -> bool:
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError("it is true or false")
    return text.lower() in ("true", "1")


def host(text: str) -> str:
    if len(text) > 253 or not re.fullmatch(r"[A-Za-z0-9][-.A-Za-z0-9]*|[0-9A-Fa-f:.]+", text):
        raise ValueError("a host is a name or an address without a port, as 127.0.0.1 or 0.0.0.0")
    return text


def ingest_keys(text: str) -> str:
    keys = [re.fullmatch(r"\s*([A-Za-z0-9_-]{1,32}):(?:[0-9A-Fa-f]{2}){16,64}\s*", part) for part in text.split(",")]
    if len({found[1] for found in keys if found}) < len(keys):
        raise ValueError(INGEST_KEYS_RULE)
    return text


def port(text: str) -> int:
    if not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise ValueError("a port is a whole number from 1024 to 65535")
    return int(text)


def size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15})([KMG]?)(iB|B)?", text, re.IGNORECASE | re.ASCII)
    found = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()] if match else 0
    if found < 1 << 20:
        raise ValueError("a size is a whole number of bytes, or of K, M or G, and at least 1M")
    return found


def days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= 36500:  # nan is not, either
        raise ValueError("a number of days is greater than 0, as 30 or 0.5; leave it out to keep logs for ever")
    return days


def http_url(text: str) -> str:
    if not re.match(r"https?://\S+$", text):
        raise ValueError("a URL begins with http:// or https://")
    return text.rstrip("/")


def kubeconfig(text: str) -> str:
    """Absolute, for processes that work elsewhere; several files as kubectl takes them."""
    files = [os.path.abspath(os.path.expanduser(file)) for file in text.split(os.pathsep) if file.strip()]  # noqa: PTH100, PTH111
    if not files:
        raise ValueError("it names one file, or several with colons between")
    return os.pathsep.join(files)


def image(text: str) -> str:
    if len(text) > 500 or not re.fullmatch(r"[A-Za-z0-9][-\w.:/@]*", text):
        raise ValueError("an image is a name as registry/collector:1.0, without blanks")
    return text


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"it must be one of {', '.join(choices)}")
        return text.lower()

    return parse


def without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
