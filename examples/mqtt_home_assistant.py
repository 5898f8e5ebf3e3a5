"""Send captions to an MQTT broker, where Home Assistant finds the camera by itself.

python examples/mqtt_home_assistant.py clip.mp4 "mqtt://localhost?camera=Front Porch"
EDGECAP_MQTT_PASSWORD=... python examples/mqtt_home_assistant.py rtsp://camera/main mqtt://bob@broker
"""

import sys

import edgecap
from edgecap.runtime.streams import Pipeline
from edgecap.runtime.streams.narrator import Narrator, preparation
from edgecap.runtime.streams.profiles import load_profile
from edgecap.runtime.streams.sinks import SinkContext, open_sink


def main(address: str, broker: str) -> None:
    profile = load_profile("smart-home")
    captioner = edgecap.load()
    mqtt = open_sink(broker, SinkContext(camera="Front Porch", model=captioner.name))
    with edgecap.open_source(address) as source:
        pipeline = Pipeline(
            source,
            captioner,
            sinks=[mqtt],
            options=profile.stream_options(),
            prepare=preparation(profile, source),
            tell=Narrator(profile),
        )
        mqtt.control(pipeline.controls)  # the switch, the number and the button act on them
        print(pipeline.run())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a source and a broker: clip.mp4 mqtt://localhost")
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
