"""Meters over the files and programs of machines that are not this one, laid out as their
kernels do."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from edgecap.bench import energy
from edgecap.bench.energy import Metering, Rapl, Tegrastats, find_meters, find_rails

# As NVIDIA's documentation of tegrastats and users' reports have it.
ORIN_NANO = (
    "06-04-2025 10:20:30 RAM 2448/7620MB (lfb 2x4MB) SWAP 0/3810MB (cached 0MB) CPU [4%@729,0%@729]"
    " GR3D_FREQ 0% cpu@48.5C soc2@47.8C tj@49.3C VDD_IN 4567mW/4500mW VDD_CPU_GPU_CV 612mW/610mW"
    " VDD_SOC 1425mW/1420mW"
)
AGX_ORIN = (
    "RAM 5000/30536MB (lfb 1x4MB) CPU [1%@729] GR3D_FREQ 0% VDD_GPU_SOC 2796mW/2700mW "
    "VDD_CPU_CV 399mW/399mW VIN_SYS_5V0 2423mW/2400mW NC 0mW/0mW VDDQ_VDD2_1V8AO 403mW/400mW NC "
    "0mW/0mW"
)
NANO = "RAM 1000/3956MB CPU [2%@102] POM_5V_IN 2345/2300 POM_5V_GPU 0/0 POM_5V_CPU 283/283"


@pytest.mark.parametrize(
    ("line", "watts"),
    [(ORIN_NANO, 4.567), (AGX_ORIN, 2.796 + 0.399 + 2.423), (NANO, 2.345), ("RAM 1/2MB", None)],
)
def test_the_whole_module_out_of_a_line_of_tegrastats(line: str, watts: float | None) -> None:
    found = energy.tegrastats_watts(line)
    assert found == (None if watts is None else pytest.approx(watts))


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "no programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))


def put(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_rails_of_a_jetson_are_summed_up_over_time(tmp_path: Path) -> None:
    monitor = "sys/class/hwmon/hwmon1"
    put(
        tmp_path,
        {
            "sys/class/hwmon/hwmon0/name": "thermal-fan-est",
            f"{monitor}/name": "ina3221",
            f"{monitor}/in1_label": "VDD_IN",
            f"{monitor}/in1_input": 5000,
            f"{monitor}/curr1_input": 900,
            f"{monitor}/in2_label": "VDD_CPU_GPU_CV",
            f"{monitor}/in2_input": 5000,
            f"{monitor}/curr2_input": 100,
            f"{monitor}/in7_label": "sum of shunt voltages",
        },
    )
    rails = find_rails(tmp_path)
    assert rails is not None
    assert rails.watts() == pytest.approx(4.5)
    (meter,) = find_meters(root=tmp_path)
    begin = time.monotonic()
    with Metering([meter]) as metering:
        time.sleep(0.3)
    seconds = time.monotonic() - begin
    (name, joules), *rest = metering.joules.items()
    assert not rest
    assert name == "module (VDD_IN, INA3221)"
    # Power times a time that lies within the two looks at the clock.
    assert 4.5 * 0.3 <= joules <= 4.5 * seconds


def test_rails_of_an_agx_orin_have_no_sum_of_their_own(tmp_path: Path) -> None:
    rails = {"VDD_GPU_SOC": 1, "VDD_CPU_CV": 2, "VIN_SYS_5V0": 3}
    folder = "sys/class/hwmon/hwmon3"
    put(tmp_path, {f"{folder}/name": "ina3221"})
    for name, number in rails.items():
        put(
            tmp_path,
            {
                f"{folder}/in{number}_label": name,
                f"{folder}/in{number}_input": 5000,
                f"{folder}/curr{number}_input": 100 * number,
            },
        )
    found = find_rails(tmp_path)
    assert found is not None
    assert found.watts() == pytest.approx(3.0)
    assert "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0" in found.name
    # A rail that is gone makes the sum unknown, not smaller.
    (tmp_path / folder / "curr2_input").unlink()
    assert found.watts() is None


def rapl(root: Path, *values: int) -> list[Path]:
    zones = []
    for number, value in enumerate(values):
        zone = f"sys/class/powercap/intel-rapl:{number}"
        put(
            root,
            {
                f"{zone}/name": f"package-{number}",
                f"{zone}/energy_uj": value,
                f"{zone}/max_energy_range_uj": 262143328850,
                f"{zone}:0/name": "core",
            },
        )
        zones.append(root / zone)
    return zones


def test_rapl_counts_all_packages_and_goes_round(tmp_path: Path, no_programs: None) -> None:
    zones = rapl(tmp_path, 1_000_000, 262_143_000_000)
    (meter,) = find_meters(root=tmp_path)
    assert isinstance(meter, Rapl)
    assert "2 packages" in meter.name
    meter.start()
    put(zones[0], {"energy_uj": 3_500_000})
    put(zones[1], {"energy_uj": 671_150})  # went round: 0.328850 J to the end, and these
    assert meter.stop() == pytest.approx(2.5 + 1.0)
    (zones[0] / "energy_uj").unlink()
    assert meter.stop() is None


def test_a_counter_that_only_root_may_read_is_no_meter(tmp_path: Path, no_programs: None) -> None:
    zones = rapl(tmp_path, 5)
    (zones[0] / "energy_uj").unlink()
    assert find_meters(root=tmp_path) == []
    with Metering([]) as metering:
        pass
    assert metering.joules == {}


def test_tegrastats_is_run_where_no_rail_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\nwhile :; do echo '{ORIN_NANO}'; sleep 0.05; done\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (meter,) = find_meters(root=tmp_path)
    assert isinstance(meter, Tegrastats)
    begin = time.monotonic()
    with Metering([meter]) as metering:
        time.sleep(1.0)
    seconds = time.monotonic() - begin
    (joules,) = metering.joules.values()
    assert 0 < joules <= 4.567 * seconds
