"""A real mosquitto on a free port, that can be stopped and started again, and a listener."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAIT = 60.0  # seconds; only a failing test waits so long


def mosquitto() -> str | None:
    """The broker's program, if it is on this machine (Debian keeps it in /usr/sbin)."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Broker:
    """Mosquitto with the user bob, whose password is ``hunter22``, and a memory on disk."""

    user, password = "bob", "hunter22"

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self.port = free_port()
        self.certificate = folder / "certificate.pem"
        passwords = folder / "passwords"
        subprocess.run(
            ["mosquitto_passwd", "-b", "-c", str(passwords), self.user, self.password],
            check=True,
            capture_output=True,
        )
        self._conf = folder / "mosquitto.conf"
        self._conf.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\nuser root\n"
            f"password_file {passwords}\npersistence true\npersistence_location {folder}/\n"
        )
        if tls:
            key = folder / "key.pem"
            certify(self.certificate, key)
            with self._conf.open("a") as conf:
                conf.write(f"certfile {self.certificate}\nkeyfile {key}\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [str(mosquitto()), "-c", str(self._conf)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(self._process.communicate()[1].decode())
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError("mosquitto did not open its port")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=WAIT)
            self._process = None


class Listener:
    """Keeps every message. The broker remembers it: what comes while it is away is not lost."""

    def __init__(self, broker: Broker, name: str = "listener", topics: str = "#") -> None:
        import paho.mqtt.client as paho

        self.messages: list[tuple[str, str]] = []
        self.payloads: dict[str, bytes] = {}  # the last of each topic
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._topics = topics
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=name, clean_session=False
        )
        self.client.username_pw_set(broker.user, broker.password)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe(self._topics, qos=1)
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert self._ready.wait(WAIT)

    def _on_message(self, client: Any, _: Any, message: Any) -> None:
        with self._changed:
            text = message.payload.decode("utf-8", "replace")
            self.messages.append((message.topic, text))
            self.payloads[message.topic] = message.payload
            self._changed.notify_all()

    def of(self, topic: str) -> list[str]:
        with self._changed:
            return [text for found, text in self.messages if found == topic]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT), self.messages[-20:]

    def wait(self, topic: str, count: int = 1) -> list[str]:
        """The messages of a topic, when there are ``count``."""
        self.wait_for(lambda: len([1 for found, _ in self.messages if found == topic]) >= count)
        return self.of(topic)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def certify(certificate: Path, key: Path) -> None:
    """Write a certificate of 127.0.0.1, signed by itself, and its key."""
    made = "req -x509 -newkey rsa:2048 -nodes -days 2 -addext subjectAltName=IP:127.0.0.1"
    files = ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *made.split(), *files], check=True, capture_output=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
