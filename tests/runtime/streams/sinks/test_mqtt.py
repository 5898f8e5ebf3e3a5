"""MQTT against a real mosquitto that is stopped, started, and asks for a password."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("paho.mqtt", reason="paho-mqtt speaks to the broker")
import mqtt_broker
from mqtt_broker import WAIT, Broker, Listener

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.controls import Controls
from edgecap.runtime.streams.event import Event, Notice
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.sinks import open_sink
from edgecap.runtime.streams.sinks.base import Outlet
from edgecap.runtime.streams.sinks.mqtt import Mqtt, MqttOptions
from edgecap.runtime.streams.told import Note, tell

if mqtt_broker.mosquitto() is None:
    pytest.skip("no mosquitto on this machine", allow_module_level=True)

Make = Callable[..., Event]
Connect = Callable[..., Mqtt]
BASE = "edgecap/front_porch"
LAST = f"{BASE}/tracked_object_update"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    listening = Listener(broker)
    yield listening
    listening.close()


@pytest.fixture
def connect(broker: Broker) -> Connect:
    def make(controls: Controls | None = None, **options: object) -> Mqtt:
        values = {
            "host": "127.0.0.1",
            "port": broker.port,
            "user": broker.user,
            "password": broker.password,
            "camera": "Front Porch",
        }
        return Mqtt(MqttOptions(**(values | options)), controls=controls, model="default")

    return make


def test_one_event_reaches_every_topic(
    listener: Listener, connect: Connect, make_event: Make
) -> None:
    sink = connect(snapshots=True)
    image = np.full((48, 64, 3), 77, np.uint8)
    sink.see(Frame(image, 0, 0.0, 0.0, 0.0, "porch"), passed=True)
    sink.see(Frame(image // 2, 1, 0.0, 0.0, 0.0, "porch"), passed=False)
    note = Note("alert", "pedestrian", "man", "Careful: a man.")
    event = make_event("ein Bär & a man", score=float("-inf"))
    sink.write(tell(event, sentence="A bear and a man.", notes=(note,)))
    sink.notice(Notice("porch", "lost", "the camera was lost", 0.0))
    sink.close()
    listener.wait_for(lambda: listener.payloads.get(f"{BASE}/availability") == b"offline")

    assert listener.of(f"{BASE}/availability") == ["online", "offline"]
    assert listener.of(f"{BASE}/caption") == ["A bear and a man."]
    attributes = json.loads(listener.of(f"{BASE}/attributes")[0])
    assert attributes["text"] == "ein Bär & a man"
    assert attributes["score"] is None
    assert "tokens" not in attributes
    happened = [json.loads(text) for text in listener.of(f"{BASE}/event")]
    assert [event["event_type"] for event in happened] == ["alert", "caption", "notice"]
    assert happened[0]["what"] == "pedestrian"
    (update,) = (json.loads(text) for text in listener.of(LAST))
    assert update["type"] == "description"
    assert update["description"] == "A bear and a man."
    assert update["id"] == "1772323200.000000-front_porch-0"
    data = np.frombuffer(listener.payloads[f"{BASE}/image"], np.uint8)
    assert abs(float(cv2.imdecode(data, cv2.IMREAD_COLOR).mean()) - 77) < 2
    topics = [topic for topic, _ in listener.messages]
    assert topics.index(f"{BASE}/attributes") < topics.index(f"{BASE}/caption")


def test_events_wait_for_the_broker_and_come_in_order(
    broker: Broker,
    listener: Listener,
    connect: Connect,
    make_event: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Thirty events while the broker is down: all arrive, in their order, when it is back."""
    outlet = Outlet(connect(), 64, patient=False)
    for frame in range(3):
        outlet.offer(make_event(f"caption {frame}", frame), lambda: False)
    listener.wait(f"{BASE}/caption", 3)
    broker.stop()
    for frame in range(3, 33):
        outlet.offer(make_event(f"caption {frame}", frame), lambda: False)
    broker.start()
    # The description is the last message of an event: when it is here, all of the event is.
    listener.wait_for(lambda: b"caption 32" in listener.payloads.get(LAST, b""))
    outlet.close(time.monotonic() + WAIT)
    assert outlet.undelivered == 0
    for topic in ("caption", "tracked_object_update"):
        came = listener.of(f"{BASE}/{topic}")
        if topic == "tracked_object_update":
            came = [json.loads(text)["description"] for text in came]
        once = list(dict.fromkeys(came))
        assert once == [f"caption {frame}" for frame in range(33)]
        # QoS 1: what the broker had not acknowledged when it went may come again, no later event.
        again = {text for text in came if came.count(text) > 1}
        assert again <= {f"caption {frame}" for frame in range(4)}
    assert caplog.text.count("was lost") == 1
    assert caplog.text.count("answers again") == 1


def test_beyond_the_bound_the_oldest_are_counted_as_lost(
    broker: Broker, listener: Listener, connect: Connect, make_event: Make
) -> None:
    outlet = Outlet(connect(), 10, patient=False)
    outlet.offer(make_event("caption 0", 0), lambda: False)
    listener.wait(f"{BASE}/caption", 1)
    broker.stop()
    for frame in range(1, 51):
        outlet.offer(make_event(f"caption {frame}", frame), lambda: False)
    lost = outlet.undelivered
    assert 39 <= lost <= 40  # ten wait, one may be in the sink's hands
    broker.start()
    listener.wait_for(lambda: listener.payloads.get(f"{BASE}/caption") == b"caption 50")
    outlet.close(time.monotonic() + WAIT)
    came = list(dict.fromkeys(listener.of(f"{BASE}/caption")))
    assert came[-10:] == [f"caption {frame}" for frame in range(41, 51)]
    assert len(came) == 51 - lost
    assert outlet.undelivered == lost


def test_the_buffer_is_an_option_of_the_address(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECAP_MQTT_PASSWORD", broker.password)
    address = f"mqtt://{broker.user}@127.0.0.1:{broker.port}"
    sink = open_sink(f"{address}?buffer=500")
    assert isinstance(sink, Mqtt)
    assert sink.queue == 500
    sink.close()
    for bad in ("0", "many"):
        with pytest.raises(SinkError, match="buffer"):
            open_sink(f"{address}?buffer={bad}")


def test_a_broker_that_comes_late_is_waited_for(
    broker: Broker, connect: Connect, make_event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener(broker)
    broker.stop()
    outlet = Outlet(connect(answer_timeout=0.2), 10, patient=False)
    assert "does not answer yet" in caplog.text
    outlet.offer(make_event("early"), lambda: False)
    broker.start()
    assert listener.wait(f"{BASE}/caption") == ["early"]
    outlet.close(time.monotonic() + WAIT)
    listener.close()
    assert outlet.undelivered == 0


def test_the_last_will_says_offline(
    broker: Broker, listener: Listener, connect: Connect, make_event: Make
) -> None:
    sink = connect()
    sink.write(make_event())
    sink._client.socket().close()  # as when the process is killed or the cable pulled
    listener.wait_for(lambda: "offline" in [text for _, text in listener.messages])
    availability = listener.wait(f"{BASE}/availability", 3)
    assert availability[:3] == ["online", "offline", "online"]  # and it comes back by itself
    sink.close()


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [("bob", "wrong", "the user 'bob'"), ("eve", "hunter22", "'eve'"), (None, None, "anybody")],
)
def test_a_wrong_password_is_one_clear_line(
    connect: Connect, user: str | None, password: str | None, said: str
) -> None:
    with pytest.raises(SinkError, match=said) as error:
        connect(user=user, password=password)
    assert "EDGECAP_MQTT_PASSWORD" in str(error.value)
    assert "hunter22" not in str(error.value)
    assert "wrong" not in str(error.value)


def test_encrypted(tmp_path: Path, make_event: Make, caplog: pytest.LogCaptureFixture) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    broker = Broker(tmp_path, tls=True)
    try:
        login = f"{broker.user}:{broker.password}@127.0.0.1:{broker.port}"
        sink = open_sink(f"mqtts://{login}/root?camera=Tor&ca={broker.certificate}")
        sink.write(make_event())  # returns when the broker has it
        sink.close()
        options = MqttOptions(
            "127.0.0.1", broker.port, broker.user, broker.password, tls=True, answer_timeout=1.0
        )
        stranger = Mqtt(options)  # the system's authorities do not know the broker
        assert "does not answer yet" in caplog.text
        stranger.close()
    finally:
        broker.stop()


def test_home_assistant_finds_and_commands_it(
    listener: Listener, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    controls = Controls(min_interval=1.5)
    sink = connect(controls)
    listener.wait(f"{BASE}/min_interval/state")
    listener.wait(f"{BASE}/captions/state")
    found = {
        topic.split("/")[1]: json.loads(text)
        for topic, text in listener.messages
        if topic.startswith("homeassistant/") and text
    }
    assert set(found) == {"sensor", "event", "switch", "number", "button"}
    assert listener.of("homeassistant/image/edgecap_front_porch/snapshot/config") == [""]
    assert listener.of(f"{BASE}/captions/state") == ["ON"]
    assert listener.of(f"{BASE}/min_interval/state") == ["1.5"]

    publish = listener.client.publish  # as Home Assistant would, to the topics it was given
    publish(found["switch"]["command_topic"], "OFF", qos=1)
    publish(found["number"]["command_topic"], "2.5", qos=1)
    publish(found["button"]["command_topic"], found["button"]["payload_press"], qos=1)
    listener.wait_for(lambda: listener.payloads.get(f"{BASE}/min_interval/state") == b"2.5")
    listener.wait(f"{BASE}/captions/state", 4)
    assert listener.payloads[f"{BASE}/captions/state"] == b"OFF"
    assert (controls.captions, controls.min_interval) == (False, 2.5)
    assert controls.take_asked()
    assert not controls.take_asked()

    for value in ("-3", "nan", "soon"):
        publish(found["number"]["command_topic"], value, qos=1)
    publish(found["switch"]["command_topic"], "maybe", qos=1)
    listener.wait(f"{BASE}/captions/state", 8)
    assert (controls.captions, controls.min_interval) == (False, 2.5)
    assert caplog.text.count("is no value for min_interval") == 3

    count = len(listener.of("homeassistant/sensor/edgecap_front_porch/caption/config"))
    publish("homeassistant/status", "online", qos=1)  # Home Assistant has started anew
    listener.wait("homeassistant/sensor/edgecap_front_porch/caption/config", count + 1)
    sink.close()


def test_bad_options() -> None:
    for options, part in (
        ({"port": 0}, "port is 0"),
        ({"host": ""}, "no host"),
        ({"camera": "!!"}, "no name for a camera"),
        ({"root": "a/#"}, "no root"),
    ):
        with pytest.raises(SinkError, match=part):
            MqttOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(SinkError, match="give a PEM file"):
        Mqtt(MqttOptions(tls=True, ca="/no/such/file.pem"))
