"""What a caption would take on devices that are not here: projections, not measurements.

python examples/project_latency.py [MODEL]
"""

import sys

from edgecap.bench.devices import DEVICES
from edgecap.bench.project import project
from edgecap.models import resolve
from edgecap.runtime.bundle import read_bundle

bundle = read_bundle(resolve(sys.argv[1] if len(sys.argv) > 1 else "default"))
for device in DEVICES:
    found = project(bundle, device, beams=4, tokens=12)
    stages = ", ".join(f"{stage.name} {stage.projected_ms:.1f}" for stage in found.stages)
    print(f"{device.name}: projected {found.projected_ms:.0f} ms a caption ({stages})")
print(found.error)
