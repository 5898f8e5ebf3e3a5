"""Captions over MQTT: for Home Assistant, for automations made for Frigate, for anything else."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import OptionsError, SinkError
from edgecap.runtime.streams.controls import Controls
from edgecap.runtime.streams.event import Event, Notice
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.sinks.home_assistant import (
    Topics,
    attributes,
    discovery,
    frigate_update,
    happenings,
    slug,
    state_text,
)
from edgecap.runtime.streams.told import Told, as_told

LOG = logging.getLogger("edgecap.streams")
FAREWELL = 1.0  # seconds to say "offline" at the end
KEPT = 4  # captioned frames kept for snapshots
REFUSED = ("Bad user name or password", "Not authorized")  # reasons that waiting does not mend


@dataclass(frozen=True)
class MqttOptions:
    """Where and how to connect.

    host, port : the broker
    user, password : None where the broker asks for none
    tls : encrypt; ``ca`` is a PEM file of the authority, None for the system's own
    camera : the name of the camera that people see, and of its topics
    root : first part of all topics
    prefix : Home Assistant's discovery prefix; empty: announce nothing
    snapshots : send the captioned frame as JPEG, too
    buffer : events that wait while the broker is away; None: as many as the stream's options say
    answer_timeout : seconds in which the broker should answer at the start
    """

    host: str = "localhost"
    port: int = 1883
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca: str | None = None
    camera: str = "camera"
    root: str = "edgecap"
    prefix: str = "homeassistant"
    snapshots: bool = False
    buffer: int | None = None
    keepalive: int = 30
    answer_timeout: float = 5.0

    def __post_init__(self) -> None:
        if not self.host or any(letter.isspace() for letter in self.host):
            raise SinkError(f"{self.host!r} is no host; give a broker such as mqtt://localhost")
        if not 1 <= self.port <= 65535:
            raise SinkError(f"port is {self.port!r}; give a whole number from 1 to 65535")
        if self.buffer is not None and not 1 <= self.buffer <= 1_000_000:
            raise SinkError(f"buffer is {self.buffer!r}; give a whole number from 1 to 1000000")
        slug(self.camera)
        if set("#+\0") & set(self.root + self.prefix) or not self.root.strip("/"):
            raise SinkError(f"{self.root!r} is no root for topics; give a name without # and +")

    @property
    def address(self) -> str:
        """Where to, without the password."""
        return f"mqtt{'s' * self.tls}://{self.host}:{self.port}"


class Mqtt:
    """Publishes each event and waits until the broker has it (quality of service 1).

    While the broker is away ``write`` waits, so that events wait in the sink's bounded queue in
    their order; what that queue cannot hold is given up, the oldest first, and counted. A message
    whose confirmation was lost with the connection is sent again: it may come twice.

    controls : what the switch, the number and the button of Home Assistant act on
    model : the model's name, shown there

    Raises SinkError where the broker refuses user and password. A broker that does not answer is
    no error: it is tried again until it is there.
    """

    def __init__(
        self,
        options: MqttOptions,
        *,
        controls: Controls | None = None,
        model: str = "",
        name: str = "mqtt",
    ) -> None:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self.name = name
        self.queue = options.buffer
        self._options = options
        self._controls = controls if controls is not None else Controls()
        self._model = model
        self._topics = Topics(f"{options.root.strip('/')}/{slug(options.camera)}")
        self._changed = threading.Condition()
        self._acknowledged: set[int] = set()
        self._frames: dict[int, npt.NDArray[np.uint8]] = {}
        self._answer: str | None = None  # what the broker said to the first connection
        self._lost = False
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"edgecap-{slug(options.camera)[:40]}-{secrets.token_hex(3)}",
        )
        self._set_up()
        self._begin()

    def _set_up(self) -> None:
        options, client = self._options, self._client
        if options.user is not None:
            client.username_pw_set(options.user, options.password)
        if options.tls:
            try:
                client.tls_set(ca_certs=options.ca)
            except (OSError, ValueError) as error:
                raise SinkError(
                    f"{options.ca} is no file of certificates ({error}); give a PEM file"
                ) from None
        client.will_set(self._topics.availability, "offline", qos=1, retain=True)
        client.reconnect_delay_set(1, 30)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message

    def _begin(self) -> None:
        options = self._options
        self._client.connect_async(options.host, options.port, options.keepalive)
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._answer is not None, options.answer_timeout)
            answer = self._answer
        if answer in REFUSED:
            self._client.loop_stop()
            who = "anybody without a name" if options.user is None else f"the user {options.user!r}"
            raise SinkError(
                f"{options.address} refuses {who} ({answer}); give the user and password that the "
                "broker knows: mqtt://user@host with EDGECAP_MQTT_PASSWORD set"
            )
        if answer is None:
            LOG.warning("%s does not answer yet; events wait until it does", options.address)
            self._lost = True

    def see(self, frame: Frame, passed: bool) -> None:
        """Keep a frame that is being captioned, for its snapshot."""
        if passed and self._options.snapshots:
            with self._changed:
                self._frames[frame.index] = frame.image
                while len(self._frames) > KEPT:
                    del self._frames[next(iter(self._frames))]

    def write(self, event: Event) -> None:
        """Publish one event and wait until the broker has confirmed all of it."""
        self._deliver(self.messages(as_told(event)))

    def _deliver(self, messages: list[tuple[str, str | bytes, bool]]) -> None:
        with self._changed:
            self._acknowledged.clear()
        # No lock is held here: paho calls back under a lock of its own that publishing takes.
        sent = {
            self._client.publish(topic, payload, qos=1, retain=retain).mid
            for topic, payload, retain in messages
        }
        with self._changed:
            self._changed.wait_for(lambda: sent <= self._acknowledged)

    def notice(self, notice: Notice) -> None:
        """Publish something that is no caption: a lost camera, a changed model."""
        payload = {"event_type": "notice", **notice.to_dict()}
        self._deliver([(self._topics.happening, json.dumps(payload, default=str), False)])

    def control(self, controls: Controls) -> None:
        """Let commands act on ``controls`` from now on."""
        self._controls = controls
        self._tell_settings()

    def messages(self, told: Told) -> list[tuple[str, str | bytes, bool]]:
        """Topic, payload and whether the broker keeps it, in the order in which they are sent.

        Attributes go before the state, so that an automation on the state finds its own.
        """
        topics = self._topics
        sent: list[tuple[str, str | bytes, bool]] = []
        if (image := self._snapshot(told.frame)) is not None:
            sent.append((topics.image, image, True))
        sent.append((topics.attributes, _json(attributes(told)), True))
        sent.append((topics.state, state_text(told), True))
        sent += [(topics.happening, _json(event), False) for event in happenings(told)]
        update = frigate_update(self._options.camera, told)
        sent.append((topics.description, _json(update), False))
        return sent

    def close(self) -> None:
        """Say "offline" and leave."""
        farewell = self._client.publish(self._topics.availability, "offline", qos=1, retain=True)
        with self._changed:
            self._changed.wait_for(lambda: farewell.mid in self._acknowledged, FAREWELL)
        self._client.disconnect()
        self._client.loop_stop()

    def _snapshot(self, index: int) -> bytes | None:
        with self._changed:
            image = self._frames.pop(index, None)
        if image is None:
            return None
        import cv2

        taken, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
        return bytes(encoded) if taken else None

    def _on_connect(self, client: Any, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        answer = str(reason)
        with self._changed:
            first, self._answer = self._answer is None, answer
            self._changed.notify_all()
        if reason.is_failure:
            if not first and not self._lost:
                LOG.warning("%s refuses: %s", self._options.address, answer)
            return
        if self._lost:
            self._lost = False
            LOG.warning("%s answers again", self._options.address)
        client.subscribe([(self._topics.command("+"), 1)])
        if self._options.prefix:
            client.subscribe([(f"{self._options.prefix}/status", 1)])
        self._announce()

    def _announce(self) -> None:
        """Availability, settings and entities; again whenever Home Assistant comes up."""
        from importlib.metadata import version

        publish = self._client.publish
        if self._options.prefix:
            announced = discovery(
                self._options.camera,
                self._topics,
                model=self._model or "EdgeCap",
                version=version("edgecap"),
                prefix=self._options.prefix,
                snapshots=self._options.snapshots,
            )
            for topic, payload in announced.items():
                publish(topic, "" if payload is None else _json(payload), qos=1, retain=True)
        publish(self._topics.availability, "online", qos=1, retain=True)
        self._tell_settings()

    def _tell_settings(self) -> None:
        captions = "ON" if self._controls.captions else "OFF"
        interval = f"{self._controls.min_interval:g}"
        for name, value in (("captions", captions), ("min_interval", interval)):
            self._client.publish(self._topics.setting(name), value, qos=1, retain=True)

    def _on_disconnect(self, client: Any, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure and not self._lost:
            self._lost = True
            LOG.warning("%s was lost (%s); events wait", self._options.address, reason)

    def _on_publish(self, client: Any, _: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._acknowledged.add(mid)
            self._changed.notify_all()

    def _on_message(self, client: Any, _: Any, message: Any) -> None:
        text = message.payload[:100].decode("utf-8", "replace").strip()
        if message.topic == f"{self._options.prefix}/status":
            if text == "online":
                self._announce()
            return
        command = message.topic.removeprefix(f"{self._topics.base}/").removesuffix("/set")
        try:
            self._obey(command, text)
        except (ValueError, OptionsError):
            LOG.warning("%s: %r is no value for %s", self._options.address, text, command)
        self._tell_settings()

    def _obey(self, command: str, text: str) -> None:
        if command == "captions":
            if text.upper() not in ("ON", "OFF"):
                raise ValueError(text)
            self._controls.captions = text.upper() == "ON"
        elif command == "min_interval":
            self._controls.min_interval = float(text)
        elif command == "describe":
            self._controls.describe_now()


def _json(payload: Any) -> str:
    return json.dumps(payload, ensure_ascii=False, allow_nan=False)
