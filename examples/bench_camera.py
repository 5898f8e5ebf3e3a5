"""Measure a camera's way to its captions in a program: here the drawn one, for two seconds a run.

python examples/bench_camera.py [SOURCE [SECONDS]]
"""

import sys

from edgecap.bench.measure import Bench
from edgecap.bench.options import BenchOptions
from edgecap.bench.tables import print_record
from edgecap.models import resolve

source = sys.argv[1] if len(sys.argv) > 1 else None
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
options = BenchOptions(source=source, beams=(1, 4), duration=seconds, warm_up=3)
record = Bench(resolve("default"), options, command="examples/bench_camera.py").run()
print_record(record)
for run in record.runs:
    total = run.stages.get("total")
    if total is not None and total.p99 is not None:
        print(f"{run.beams} beams: 99 of 100 captions come within {total.p99:.1f} ms")
