"""How answers about the fleet look in the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["Idle", "Trouble", "Troubled", "Usage"]

_Uuid = Annotated[
    str,
    Meta(
        description="The GPU's identity.",
        examples=["GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8"],
    ),
]
_Hostname = Annotated[str, Meta(description="The host.", examples=["hopper-001"])]
_GpuId = Annotated[str, Meta(description="The GPU's index on its host.", examples=["0"])]
_Model = Annotated[str, Meta(description="The GPU's model.", examples=["NVIDIA H100 80GB HBM3"])]
_Percent = Annotated[float, Meta(description="Mean utilisation, %.", ge=0, examples=[1.5])]


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU that a pod has and does not use."""

    uuid: _Uuid
    hostname: _Hostname
    gpu_id: _GpuId
    model_name: _Model
    namespace: Annotated[str, Meta(description="The pod's namespace.", examples=["research"])]
    pod: Annotated[str, Meta(description="The pod.", examples=["notebook-0"])]
    container: Annotated[str, Meta(description="The container, or empty.", examples=["main"])]
    mean_utilization: _Percent
    idle_minutes: Annotated[
        float, Meta(description="For how long without a break, min.", ge=0, examples=[95.0])
    ]
    since: Annotated[
        datetime,
        Meta(
            description="The first sample that was below; at the earliest the start of the window.",
            examples=["2025-07-18T20:42:34Z"],
        ),
    ]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a namespace, a pod or a host had of the GPUs."""

    group: Annotated[
        str,
        Meta(
            description="The namespace, namespace/pod or host; empty for GPUs that no pod had.",
            examples=["research"],
        ),
    ]
    gpu_hours: Annotated[
        float, Meta(description="Time that GPUs were assigned, h.", ge=0, examples=[191.98])
    ]
    mean_utilization: Annotated[
        float | None,
        Meta(
            description="Mean utilisation over that time, %; null if no GPU measured it.",
            examples=[63.5],
        ),
    ]
    energy_kwh: Annotated[
        float | None,
        Meta(description="Energy drawn, kWh; null if no GPU measured it.", examples=[88.2]),
    ]
    gpus: Annotated[int, Meta(description="GPUs that it had at any time.", ge=0, examples=[8])]
    gpus_without_utilization: Annotated[
        int,
        Meta(description="GPUs of these that the mean knows nothing of.", ge=0, examples=[0]),
    ]
    gpus_without_energy: Annotated[
        int,
        Meta(description="GPUs of these that the energy knows nothing of.", ge=0, examples=[0]),
    ]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a GPU."""

    kind: Annotated[
        Literal["hot", "xid", "ecc", "silent"],
        Meta(
            description="Too hot; an XID error; double-bit ECC errors; no samples any more.",
            examples=["hot"],
        ),
    ]
    detail: Annotated[
        str, Meta(description="In words.", examples=["up to 93 °C; the limit is 85 °C"])
    ]
    value: Annotated[
        float,
        Meta(
            description="Hot: highest temperature, °C; xid: the last code; ecc: most errors "
            "counted; silent: time since the last sample, s.",
            examples=[93.0],
        ),
    ]
    since: Annotated[
        datetime,
        Meta(
            description="The first sample of the window that shows it; of a silent GPU its last.",
            examples=["2025-07-18T20:42:34Z"],
        ),
    ]


class Troubled(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU with whom something is wrong."""

    uuid: _Uuid
    hostname: _Hostname
    gpu_id: _GpuId
    model_name: _Model
    problems: Annotated[
        list[Trouble],
        Meta(
            description="At least one, in the order hot, xid, ecc, silent.",
            examples=[
                [
                    {
                        "kind": "xid",
                        "detail": "XID 79",
                        "value": 79.0,
                        "since": "2025-07-18T20:42:34Z",
                    }
                ]
            ],
        ),
    ]
    not_measured: Annotated[
        list[str],
        Meta(
            description="Kinds of which this GPU measures nothing: it may have these too.",
            examples=[["ecc"]],
        ),
    ]
