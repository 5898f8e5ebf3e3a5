"""A real RTSP camera for the tests: GStreamer's server with H.264 from its test pattern.

Run by the system's Python (Debian: python3-gi, gir1.2-gst-rtsp-server-1.0 and the GStreamer
plugins base, good, bad and ugly), which need not be the one that runs the tests. Prints the port
it listens on, then serves ``rtsp://127.0.0.1:PORT/camera`` until it is killed. A line
``size WIDTH HEIGHT`` on standard input changes the picture's size in the running stream.
"""

import argparse
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

LAUNCH = (
    "( videotestsrc is-live=true pattern={pattern} ! videoscale ! capsfilter name=size "
    "caps=video/x-raw,width=320,height=240,framerate=15/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 {damage}"
    "! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default="0", help="0: any free one")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--pattern", default="ball")
    parser.add_argument("--damage", type=float, default=0.0, help="share of bytes made wrong")
    arguments = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(arguments.port)
    factory = GstRtspServer.RTSPMediaFactory()
    damage = f"! breakmydata probability={arguments.damage} " if arguments.damage else ""
    factory.set_launch(LAUNCH.format(pattern=arguments.pattern, damage=damage))
    factory.set_shared(True)
    sizes = []
    factory.connect("media-configure", lambda _, media: sizes.append(media.get_element()))
    server.get_mount_points().add_factory("/camera", factory)
    if arguments.user:
        protect(server, factory, arguments.user, arguments.password)
    if not server.attach(None):
        raise SystemExit(f"port {arguments.port} cannot be bound")
    print(server.get_bound_port(), flush=True)
    threading.Thread(target=obey, args=(sizes,), daemon=True).start()
    GLib.MainLoop().run()


def obey(elements):
    """Change the size of the picture when a line says so."""
    for line in sys.stdin:
        _, width, height = line.split()
        caps = f"video/x-raw,width={width},height={height},framerate=15/1"
        elements[-1].get_by_name("size").set_property("caps", Gst.Caps.from_string(caps))


def protect(server, factory, user, password):
    """Let only ``user`` with ``password`` (basic authentication) see the camera."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    main()
