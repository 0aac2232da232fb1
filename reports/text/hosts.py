"""The findings of the sniff about the hosts of a run and the links between them, for the terminal."""

from __future__ import annotations

import statistics
from typing import Any

from harness.preparation.sniffing import HostFacts, Link, Sniffed
from reports.text import listing


def told(sniffed: Sniffed) -> str:
    """One row per host, one row per link, and what is slow."""
    lines = [listing.aligned([_host(item) for item in sniffed.hosts])]
    lines += [listing.aligned([_link(item) for item in sniffed.links])]
    lines += [f"SLOW: {words}" for words in sniffed.slow]
    return "\n".join(filter(None, lines))


def _host(item: HostFacts) -> dict[str, Any]:
    return {
        "host": item.host,
        "address": item.address or "here",
        "cores": item.cores,
        "GFLOP/s": f"{statistics.median(item.flops_per_s) / 1e9:.3g}",
        "memory GB/s": f"{statistics.median(item.bytes_per_s) / 1e9:.3g}",
        "clock": f"{1e3 * item.clock_offset_s:+.2g} ms, give or take {1e3 * item.clock_within_s:.2g}",
    }


def _link(item: Link) -> dict[str, Any]:
    return {
        "link": " - ".join(item.hosts),
        "message": f"{item.message_bytes / 1e3:.3g} kB",
        "all-reduce": f"{1e3 * statistics.median(item.reduce_s):.3g} ms",
        "MB/s": f"{item.bytes_per_s / 1e6:.3g}",
    }
