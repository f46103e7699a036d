"""What DCGM's fields are: unit, kind and meaning of those that people export.

Names, units and meanings are those of NVIDIA's field list (DCGM API reference, "Field
Identifiers") as far as exporters export it (dcgm-exporter, ``etc/default-counters.csv``).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FIELDS", "Field", "field"]


class Field(NamedTuple):
    """One field.

    Attributes:
        kind: ``gauge``; or ``counter`` for what only grows while a driver is loaded.
        unit: ``%``, ``MHz``, ``°C``, ``W``, ``MiB`` …; empty for a number, or where not known.
        help: one sentence.
    """

    kind: str
    unit: str
    help: str


def _gauge(unit: str, help: str) -> Field:
    return Field("gauge", unit, help)


def _counter(unit: str, help: str) -> Field:
    return Field("counter", unit, help)


FIELDS: dict[str, Field] = {
    "DCGM_FI_DEV_SM_CLOCK": _gauge("MHz", "SM clock."),
    "DCGM_FI_DEV_MEM_CLOCK": _gauge("MHz", "Memory clock."),
    "DCGM_FI_DEV_VIDEO_CLOCK": _gauge("MHz", "Clock of the video encoder and decoder."),
    "DCGM_FI_DEV_GPU_TEMP": _gauge("°C", "Temperature of the GPU."),
    "DCGM_FI_DEV_MEMORY_TEMP": _gauge("°C", "Temperature of the memory."),
    "DCGM_FI_DEV_POWER_USAGE": _gauge("W", "Power drawn."),
    "DCGM_FI_DEV_POWER_MGMT_LIMIT": _gauge("W", "Power limit that is set."),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": _counter(
        "mJ", "Energy used since the driver was loaded."
    ),
    "DCGM_FI_DEV_FAN_SPEED": _gauge("%", "Fan speed."),
    "DCGM_FI_DEV_PSTATE": _gauge("", "Performance state: 0 is the fastest, 15 the slowest."),
    "DCGM_FI_DEV_GPU_UTIL": _gauge("%", "Share of time in which a kernel ran."),
    "DCGM_FI_DEV_MEM_COPY_UTIL": _gauge("%", "Share of time in which memory was read or written."),
    "DCGM_FI_DEV_ENC_UTIL": _gauge("%", "Utilisation of the video encoder."),
    "DCGM_FI_DEV_DEC_UTIL": _gauge("%", "Utilisation of the video decoder."),
    "DCGM_FI_DEV_FB_TOTAL": _gauge("MiB", "Frame buffer memory that there is."),
    "DCGM_FI_DEV_FB_FREE": _gauge("MiB", "Frame buffer memory that is free."),
    "DCGM_FI_DEV_FB_USED": _gauge("MiB", "Frame buffer memory in use."),
    "DCGM_FI_DEV_FB_RESERVED": _gauge("MiB", "Frame buffer memory that the driver reserved."),
    "DCGM_FI_DEV_FB_USED_PERCENT": _gauge("", "Share of the frame buffer in use, 0 to 1."),
    "DCGM_FI_DEV_BAR1_TOTAL": _gauge("MiB", "BAR1 memory that there is."),
    "DCGM_FI_DEV_BAR1_USED": _gauge("MiB", "BAR1 memory in use."),
    "DCGM_FI_DEV_BAR1_FREE": _gauge("MiB", "BAR1 memory that is free."),
    "DCGM_FI_DEV_XID_ERRORS": _gauge("", "Number of the last XID error; 0 for none."),
    # No unit for times of throttling: some sources say microseconds, some nanoseconds.
    "DCGM_FI_DEV_POWER_VIOLATION": _counter("", "Time throttled because of the power limit."),
    "DCGM_FI_DEV_THERMAL_VIOLATION": _counter("", "Time throttled because of heat."),
    "DCGM_FI_DEV_SYNC_BOOST_VIOLATION": _counter("", "Time throttled because of sync boost."),
    "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION": _counter("", "Time throttled by the board's limit."),
    "DCGM_FI_DEV_LOW_UTIL_VIOLATION": _counter("", "Time throttled because of low utilisation."),
    "DCGM_FI_DEV_RELIABILITY_VIOLATION": _counter("", "Time throttled for reliability."),
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": _gauge("", "Why clocks are reduced: a set of bits."),
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": _counter("", "Single-bit ECC errors since the last reset."),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": _counter("", "Double-bit ECC errors since the last reset."),
    "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL": _counter("", "Single-bit ECC errors in the GPU's life."),
    "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL": _counter("", "Double-bit ECC errors in the GPU's life."),
    "DCGM_FI_DEV_RETIRED_SBE": _counter("", "Pages retired because of single-bit errors."),
    "DCGM_FI_DEV_RETIRED_DBE": _counter("", "Pages retired because of double-bit errors."),
    "DCGM_FI_DEV_RETIRED_PENDING": _gauge("", "Pages that wait to be retired."),
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": _counter("", "Rows remapped, correctable errors."),
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": _counter("", "Rows remapped, uncorrectable errors."),
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": _gauge("", "Whether remapping of rows failed: 0 or 1."),
    "DCGM_FI_DEV_ROW_REMAP_PENDING": _gauge("", "Whether a remapping waits for a reset: 0 or 1."),
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": _counter("", "PCIe retries."),
    "DCGM_FI_DEV_PCIE_LINK_GEN": _gauge("", "PCIe generation in use."),
    "DCGM_FI_DEV_PCIE_LINK_WIDTH": _gauge("", "PCIe lanes in use."),
    "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": _counter("", "NVLink flow-control errors."),
    "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL": _counter("", "NVLink data errors."),
    "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL": _counter("", "NVLink retries."),
    "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL": _counter("", "NVLink recoveries."),
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": _counter("", "NVLink bandwidth of all lanes."),
    "DCGM_FI_DEV_VGPU_LICENSE_STATUS": _gauge("", "Whether vGPU is licensed: 0 or 1."),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": _gauge("", "Share of time the graphics engine worked, 0-1."),
    "DCGM_FI_PROF_SM_ACTIVE": _gauge("", "Share of time an SM had a warp, 0 to 1."),
    "DCGM_FI_PROF_SM_OCCUPANCY": _gauge("", "Warps on an SM, of the most that fit, 0 to 1."),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": _gauge("", "Share of time of the tensor cores, 0 to 1."),
    "DCGM_FI_PROF_PIPE_FP64_ACTIVE": _gauge("", "Share of time of the FP64 pipes, 0 to 1."),
    "DCGM_FI_PROF_PIPE_FP32_ACTIVE": _gauge("", "Share of time of the FP32 pipes, 0 to 1."),
    "DCGM_FI_PROF_PIPE_FP16_ACTIVE": _gauge("", "Share of time of the FP16 pipes, 0 to 1."),
    "DCGM_FI_PROF_DRAM_ACTIVE": _gauge("", "Share of time memory was read or written, 0 to 1."),
    "DCGM_FI_PROF_PCIE_TX_BYTES": _gauge("B/s", "Sent over PCIe."),
    "DCGM_FI_PROF_PCIE_RX_BYTES": _gauge("B/s", "Received over PCIe."),
    "DCGM_FI_PROF_NVLINK_TX_BYTES": _gauge("B/s", "Sent over NVLink."),
    "DCGM_FI_PROF_NVLINK_RX_BYTES": _gauge("B/s", "Received over NVLink."),
}

_UNKNOWN = Field("gauge", "", "")


def field(name: str) -> Field:
    """Give what is known of a metric; of one that is not in `FIELDS`, a gauge without unit."""
    return FIELDS.get(name, _UNKNOWN)
