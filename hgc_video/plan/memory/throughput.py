"""How fast a device computes and copies: what turns MACs and bytes into seconds.

Data only. Where a device is present its throughput is measured (measure/device_speed.py); otherwise these are
assumed, and whoever prints a figure that rests on them says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """MACs a second in dense layers, bytes a second between device and host, each way; `source` says
    where the numbers come from."""

    macs_per_s: float
    bus_nbytes_per_s: float
    source: str

    def __str__(self) -> str:
        return (
            f"{self.macs_per_s / 1e12:.3g} TMACs/s and {self.bus_nbytes_per_s / 1e9:.3g} GB/s, "
            f"{self.source}"
        )


# What a 2022 desktop GPU reaches in half precision in large layers, half of its peak, and what pinned
# copies reach on its 16 lanes of PCIe 4.0 (31.5 GB/s by the standard).
ASSUMED_GPU = Throughput(4e13, 2e10, "assumed: a desktop GPU on PCIe 4.0 x16")
# One core with AVX2 in single precision, and a file on an SSD: the CPU's second tier is a mapped file.
ASSUMED_CPU = Throughput(3e10, 1e9, "assumed: one CPU core and a file on an SSD")
