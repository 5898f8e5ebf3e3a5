"""The process behind ``RtspServer``: raw pictures from standard input to GStreamer's RTSP server.

Run by a Python that has GStreamer's bindings (Debian: python3-gi, gir1.2-gst-rtsp-server-1.0, and
the GStreamer plugins base, good and ugly), which need not be the one that runs EdgeCap. Prints the
port it serves, or one line that begins with ``error:``.

    python3 rtsp_serving.py PORT NAME WIDTH HEIGHT

Each picture is WIDTH * HEIGHT * 3 bytes of BGR, its time the moment at which it came.
"""

import sys
import threading
from typing import Any


def main(port: int, name: str, width: int, height: int) -> None:
    """Serve until standard input ends."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    encoder = next((e for e in ENCODERS if Gst.ElementFactory.find(e.split()[0])), None)
    if encoder is None:
        print("error: GStreamer has no H.264 encoder (gstreamer1.0-plugins-ugly)", flush=True)
        return
    launch = (
        "( appsrc name=pictures is-live=true do-timestamp=true format=time block=false "
        "leaky-type=downstream max-buffers=2 "
        f"caps=video/x-raw,format=BGR,width={width},height={height},framerate=0/1 "
        f"! videoconvert ! video/x-raw,format=I420 ! {encoder} ! h264parse "
        "! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    server = GstRtspServer.RTSPServer()
    server.set_service(str(port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch)
    factory.set_shared(True)
    sources: set[Any] = set()

    def configure(_: Any, media: Any) -> None:
        source = media.get_element().get_by_name("pictures")
        sources.add(source)
        media.connect("unprepared", lambda *_: sources.discard(source))

    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory(f"/{name}", factory)
    if not server.attach(None):
        print(f"error: port {port} is in use", flush=True)
        return
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()

    def feed() -> None:
        size = width * height * 3
        while len(data := sys.stdin.buffer.read(size)) == size:
            for source in tuple(sources):
                source.emit("push-buffer", Gst.Buffer.new_wrapped(data))
        loop.quit()

    threading.Thread(target=feed, daemon=True).start()
    loop.run()


# The first that GStreamer has.
ENCODERS = (
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30",
    "openh264enc",
)

if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
