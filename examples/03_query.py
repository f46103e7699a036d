"""Ask the gateway, with nothing but the standard library.

    python examples/03_query.py http://127.0.0.1:8080

Lists the GPUs and prints the last ten minutes of the first one, one line a metric.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode
from urllib.request import urlopen


def main(gateway: str) -> None:
    """Ask for the GPUs, then for the telemetry of one."""
    gpus = json.load(urlopen(f"{gateway}/api/v1/gpus", timeout=30))
    print(f"{len(gpus)} GPUs")
    if not gpus:
        return
    since = (datetime.now(UTC) - timedelta(minutes=10)).isoformat()
    window = urlencode({"start_time": since})
    url = f"{gateway}/api/v1/gpus/{quote(gpus[0])}/telemetry?{window}"
    records = json.load(urlopen(url, timeout=30))
    print(f"{gpus[0]}: {len(records)} records in the last ten minutes")
    latest = {record["metric_name"]: record for record in records}
    for name, record in sorted(latest.items()):
        print(f"  {name:32} {record['value']:>10g}  {record['timestamp']}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080")
