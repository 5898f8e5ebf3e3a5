"""Home Assistant itself: it finds a camera over a real broker, shows captions, and commands it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("paho.mqtt", reason="paho-mqtt speaks to the broker")
import mqtt_broker
import stream_events
from mqtt_broker import Broker

from edgecap.runtime.streams.controls import Controls
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.sinks.mqtt import Mqtt, MqttOptions
from edgecap.runtime.streams.told import Note, tell

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build/home-assistant"
WAIT = 30.0
if mqtt_broker.mosquitto() is None:
    pytest.skip("no mosquitto on this machine", allow_module_level=True)
if not (FOLDER / ".stamp").is_file():
    pytest.skip(
        "no Home Assistant here: integrations/home_assistant/from_wheels.sh makes one",
        allow_module_level=True,
    )


class Home:
    """Home Assistant in a process of its own."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        words = [str(folder), str(broker.port), broker.user, broker.password]
        self._errors = (folder.parent / "errors").open("w")
        self._process = subprocess.Popen(
            [str(FOLDER / "bin/python"), str(HERE / "home_assistant_itself.py"), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", (folder.parent / "errors").read_text()

    def ask(self, do: str, **values: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def call(self, service: str, entity: str, **data: Any) -> None:
        domain, _, name = service.partition(".")
        self.ask("call", domain=domain, service=name, data={"entity_id": entity, **data})

    def wait(self, entity: str, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT
        while True:
            states = self.ask("states")
            if entity in states and right(states[entity]):
                return dict(states[entity])
            assert time.monotonic() < deadline, states.get(entity, states)
            time.sleep(0.1)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(WAIT)
        finally:
            self._process.kill()
            self._errors.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    (tmp_path / "broker").mkdir()
    running = Broker(tmp_path / "broker")
    yield running
    running.stop()


@pytest.fixture
def home(tmp_path: Path, broker: Broker) -> Iterator[Home]:
    running = Home(tmp_path / "home", broker)
    yield running
    running.close()


@pytest.mark.slow
def test_home_assistant_finds_shows_and_commands_a_camera(home: Home, broker: Broker) -> None:
    controls = Controls()
    options = MqttOptions(
        "127.0.0.1", broker.port, broker.user, broker.password,
        camera="Front Porch", snapshots=True,
    )  # fmt: skip
    sink = Mqtt(options, controls=controls, model="default")
    try:
        caption = home.wait("sensor.front_porch_caption", lambda found: True)
        assert caption["friendly_name"] == "Front Porch Caption"
        names = {name for name in home.ask("states") if "front_porch" in name}
        assert names == {
            "sensor.front_porch_caption",
            "event.front_porch_happening",
            "image.front_porch_snapshot",
            "switch.front_porch_captions",
            "number.front_porch_least_time_between_captions",
            "button.front_porch_describe_now",
        }

        # A caption with an alert: the sensor's state and attributes, both happenings, the picture.
        image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        sink.see(Frame(image, 0, 0.0, 0.0, 0.0, "porch"), passed=True)
        note = Note("alert", "pedestrian", "man", "Careful, someone on foot.")
        text = "a man walks " + "very " * 80 + "slowly"
        sentence = f"Careful, someone on foot. {text}"
        told = tell(stream_events.event(text), sentence=sentence, notes=(note,))
        sink.write(told)
        caption = home.wait("sensor.front_porch_caption", lambda f: "walks" in f["state"])
        assert caption["state"].endswith(" ...")
        assert len(caption["state"]) <= 255
        assert caption["text"] == text  # all of it, among the attributes

        # Happenings are not kept by the broker: Home Assistant hears those after its subscription.
        def heard(found: dict[str, Any]) -> bool:
            sink.write(told)
            return bool(found.get("event_type") == "caption")

        happening = home.wait("event.front_porch_happening", heard)
        assert set(happening["event_types"]) == {"caption", "alert", "appeared", "left", "notice"}
        home.wait("image.front_porch_snapshot", lambda f: f["state"] not in ("unknown", ""))
        assert home.ask("picture", entity="image.front_porch_snapshot") > 100

        # What its user changes reaches the stream, and what the stream holds is shown.
        switch, number = (
            "switch.front_porch_captions",
            "number.front_porch_least_time_between_captions",
        )
        assert home.wait(switch, lambda f: f["state"] == "on")
        home.call("switch.turn_off", switch)
        home.wait(switch, lambda f: f["state"] == "off")
        home.call("number.set_value", number, value=2.5)
        assert float(home.wait(number, lambda f: f["state"] == "2.5")["state"]) == 2.5
        home.call("button.press", "button.front_porch_describe_now")
        deadline = time.monotonic() + WAIT
        while not controls.take_asked():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (controls.captions, controls.min_interval) == (False, 2.5)
    finally:
        sink.close()
    for name in names:
        home.wait(name, lambda found: found["state"] == "unavailable")
