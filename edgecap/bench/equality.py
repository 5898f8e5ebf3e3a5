"""Whether an engine says what the reference says: nothing is timed that says something else.

The reference is ONNX Runtime on the CPU with the beam search that is written as the specification,
in numpy. Run as a program, this is the check in a process of its own: what it loads is then in
nobody's memory peak and warms nothing up.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgecap.bench.record import Equality
from edgecap.doctor.trials import LEAST_EQUAL, PICTURES, Pictures, special_of, trial_pictures
from edgecap.runtime.bundle import Bundle
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.engines.base import Engine
from edgecap.runtime.engines.choose import ON_CPU, choose_engine
from edgecap.runtime.errors import EdgeCapError, EngineError, SourceError

REFERENCE = "ONNX Runtime on the CPU, beam search in numpy"
OF_SOURCE = 5  # pictures that come from a file or folder that is measured; the others are drawn


def check_equality(
    bundle: Bundle,
    engine: Engine,
    name: str,
    pictures: Pictures,
    beams: int | None = None,
) -> Equality:
    """Compare the captions of pictures, uint8 RGB [H, W, 3], token by token.

    name : of ``engines.choose``. On the CPU in the bundle's own precision all must be the same;
        another precision may turn a close choice between two captions, and most must be the same
    """
    from edgecap.runtime.captioner import Captioner
    from edgecap.runtime.decoding.loop import generate
    from edgecap.runtime.decoding.reference import ReferenceSearch
    from edgecap.runtime.engines.onnx import OnnxEngine

    captioner = Captioner(bundle, engine=OnnxEngine(bundle))
    options: DecodingOptions = captioner.options(beams=beams)
    special = special_of(bundle)
    same = 0
    for picture in pictures:
        pixels = captioner.resize(picture)[None]
        expected = generate(
            captioner.engine,
            captioner.engine.encode(pixels),
            options,
            special,
            make=ReferenceSearch,
        ).hypotheses[0][0]
        found = generate(engine, engine.encode(pixels), options, special).hypotheses[0][0]
        same += tuple(found.tokens) == tuple(expected.tokens)
    count = len(pictures)
    exact = name in ON_CPU and getattr(engine, "precision", "fp32") == "fp32"
    least = count if exact else math.ceil(LEAST_EQUAL * count)
    return Equality(reference=REFERENCE, pictures=count, same=same, needed=least)


def check_apart(
    model: str, source: str | None, beams: int | None, threads: int | None, engine: str | None
) -> Equality:
    """``check_equality`` in a process of its own.

    model : path of a bundle; source : a file or folder whose first pictures are taken, too.
    Raises ``EngineError`` with the reason where the engine does not run.
    """
    asked = {"source": source, "beams": beams, "threads": threads, "engine": engine}
    done = subprocess.run(
        [sys.executable, "-m", __name__, model, json.dumps(asked)],
        capture_output=True,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is for the measurement, which then keeps what it has
    )
    told = done.stdout.strip().splitlines()
    answer = json.loads(told[-1]) if done.returncode == 0 and told else {}
    if "same" in answer:
        return Equality(**answer)
    last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
    raise EngineError(
        str(answer.get("error") or f"the check of the engine ended with {done.returncode}: {last}")
    )


def some_pictures(source: str | None) -> Pictures:
    """Ten pictures, uint8 RGB [H, W, 3]: the first of a source, if one is given, and drawn ones."""
    from edgecap.runtime.streams import open_source

    found: list[npt.NDArray[np.uint8]] = []
    if source is not None:
        try:
            with open_source(source, realtime=False) as frames:
                while len(found) < OF_SOURCE and (frame := frames.read()) is not None:
                    image = frame.image
                    found.append(image[..., ::-1] if frame.channels == "BGR" else image)
        except SourceError:
            pass  # told when it is measured
    return [*found, *trial_pictures(None)][:PICTURES]


def main(words: Sequence[str]) -> None:
    """Check the model at the path ``words[0]`` as ``words[1]`` asks, in JSON; print the answer."""
    import msgspec

    from edgecap.runtime.bundle import read_bundle

    asked = json.loads(words[1])
    try:
        bundle = read_bundle(words[0])
        engine, choice = choose_engine(bundle, asked["engine"], threads=asked["threads"])
        pictures = some_pictures(asked["source"])
        found = check_equality(bundle, engine, choice.engine, pictures, asked["beams"])
    except EdgeCapError as error:
        print(json.dumps({"error": str(error)}))
    else:
        print(json.dumps(msgspec.to_builtins(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
