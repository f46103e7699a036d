"""Reading a DCGM CSV: what is accepted, what is one bad row, and what stops the start."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from telemq.errors import SourceError
from telemq.record import LABEL_BYTES_MAX, SeriesLabels
from telemq.sources.csv_replay import COLUMNS, SAMPLE, CsvReplay, bundled_sample, read_csv

GOOD = {
    "timestamp": "2025-07-18T20:42:34Z",
    "metric_name": "DCGM_FI_DEV_GPU_UTIL",
    "gpu_id": "0",
    "device": "nvidia0",
    "uuid": "GPU-1",
    "modelName": "H100",
    "Hostname": "host-1",
    "container": "",
    "pod": "",
    "namespace": "",
    "value": "97.5",
    "labels_raw": 'gpu="0",pod=""',
}
GOOD_US = 1_752_871_354_000_000


def line(**changed: str) -> str:
    """Spell one row, quoted as exporters' scrapes are."""
    return ",".join('"' + text.replace('"', '""') + '"' for text in (GOOD | changed).values())


def write(folder: Path, *lines: str | bytes, header: str = ",".join(COLUMNS)) -> Path:
    path = folder / "scrape.csv"
    texts = [text if isinstance(text, bytes) else text.encode() for text in (header, *lines)]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


def read(folder: Path, *lines: str | bytes, header: str = ",".join(COLUMNS)) -> CsvReplay:
    return read_csv(write(folder, *lines, header=header))


def test_row_becomes_labels_time_and_value(tmp_path: Path) -> None:
    """The usual row of an exporter's scrape."""
    replay = read(tmp_path, line())
    labels = SeriesLabels(
        "DCGM_FI_DEV_GPU_UTIL", "0", "nvidia0", "GPU-1", "H100", "host-1", "", "", "",
        'gpu="0",pod=""',
    )  # fmt: skip
    assert (labels,) == replay.series
    assert [GOOD_US] == replay.time_us.tolist()
    assert [97.5] == replay.value.tolist()
    assert {} == replay.bad


def test_a_series_is_kept_once(tmp_path: Path) -> None:
    """Several scrapes of the same GPUs in one file."""
    replay = read(tmp_path, line(), line(uuid="GPU-2"), line(value="3"))
    assert [0, 1, 0] == replay.series_index.tolist()
    assert 2 == len(replay.series)


def test_stream_is_named_after_file_and_content(tmp_path: Path) -> None:
    """Two streamers of one file must agree on the stream without being told."""
    path = write(tmp_path, line())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    replay = read_csv(path)
    assert digest == replay.fingerprint
    assert f"csv/scrape/{digest[:12]}" == replay.stream_id


def test_byte_order_mark_crlf_blank_lines_and_column_order_are_accepted(tmp_path: Path) -> None:
    """A file that went through a spreadsheet."""
    path = tmp_path / "scrape.csv"
    names = list(reversed(COLUMNS))
    row = ",".join('"' + GOOD[name].replace('"', '""') + '"' for name in names)
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([",".join(names), row, "", row]).encode())
    replay = read_csv(path)
    assert [97.5, 97.5] == replay.value.tolist()
    assert "GPU-1" == replay.series[0].uuid


def test_unknown_columns_are_ignored_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newer exporter writes one column more."""
    replay = read(tmp_path, line() + ",x", header=",".join([*COLUMNS, "err_code"]))
    assert 1 == replay.rows
    assert "err_code" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("2025-07-18T20:42:34.5Z", GOOD_US + 500_000),
        ("2025-07-18t22:42:34.000001+02:00", GOOD_US + 1),
        ("2025-07-18 20:42:34z", GOOD_US),
        ("1969-12-31T23:59:59Z", -1_000_000),
    ],
)
def test_every_form_of_rfc_3339_is_read(tmp_path: Path, text: str, expected_us: int) -> None:
    """Sources write fractions, offsets and small letters as they like."""
    assert [expected_us] == read(tmp_path, line(timestamp=text)).time_us.tolist()


@pytest.mark.parametrize(
    ("row", "column", "fault"),
    [
        (line(timestamp="yesterday"), "timestamp", "'yesterday' is not RFC 3339"),
        (line(timestamp="2025-07-18T20:42:34"), "timestamp", "is not RFC 3339"),
        (line(timestamp="2025-02-30T00:00:00Z"), "timestamp", "is no moment of the calendar"),
        (line(value="abc"), "value", "'abc' is not a number"),
        (line(value="1_000"), "value", "is not a number"),
        (line(value=" 1"), "value", "is not a number"),
        (line(value="٣"), "value", "is not a number"),
        (line(value=""), "value", "is empty"),
        (line(value="NaN"), "value", "'NaN' is not finite"),
        (line(value="-Inf"), "value", "is not finite"),
        (line(value="1e999"), "value", "is outside the range of a double"),
        (line(uuid=""), "uuid", "is empty"),
        (line(metric_name=""), "metric_name", "is empty"),
        (line(Hostname="a\0b"), "Hostname", "holds U+0000"),
        (line(pod="p" * (LABEL_BYTES_MAX + 1)), "pod", "is longer than"),
        (line() + ",more", "", "13 fields instead of the header's 12"),
        ("just one", "", "1 fields instead of the header's 12"),
        (line()[:-1], "", "a quote is not closed"),
        ('"a"b' + line(), "", "',' expected after"),
        (line(container="c" * 140_000), "", "field larger than field limit"),
        (b"," * (2**20 + 1), "", "longer than 1048576 bytes"),
        (line(pod="caf").encode().replace(b"caf", b"caf\xe9"), "", "byte 0xe9 is not UTF-8"),
    ],
)
def test_bad_row_is_kept_with_row_column_and_fault(
    tmp_path: Path, row: str | bytes, column: str, fault: str
) -> None:
    """One exporter in a fleet writes rubbish; the other rows must not suffer."""
    replay = read(tmp_path, line(value="1"), row, line(value="3"))
    assert [1] == list(replay.bad)
    assert 3 == replay.bad[1].row
    assert column == replay.bad[1].column
    assert fault in replay.bad[1].reason
    assert [0, -1, 0] == replay.series_index.tolist()
    assert [1, 0, 3] == replay.value.tolist()


def test_bad_row_stays_in_its_place_as_rejection(tmp_path: Path) -> None:
    """The ledger counts every row of the file, so a bad one needs its index."""
    replay = read(tmp_path, line(value="1"), line(value="abc"), line(value="3"))
    batch = replay.batch(0, 5, np.arange(5))
    assert [1, 3, 1] == batch.value.tolist()
    assert [0, 2, 3] == batch.time_us.tolist() == batch.offsets().tolist()
    assert [1, 4] == [rejection.offset for rejection in batch.rejected]
    assert "row 3, column value: 'abc' is not a number" == batch.rejected[0].reason
    assert line(value="abc") == batch.rejected[0].payload


def test_text_of_a_bad_row_is_shortened(tmp_path: Path) -> None:
    """A thousand dead letters of a megabyte each would not fit into a message."""
    replay = read(tmp_path, line(), "x" * 100_000)
    assert "x" * 4096 == replay.bad[1].text


def test_bad_rows_are_logged_one_line_a_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a file of NaN must not become half a million log lines."""
    read(tmp_path, line(), *[line(value="NaN")] * 90, line(uuid=""))
    logged = capsys.readouterr().out.splitlines()
    assert 2 == len(logged)
    assert all(part in logged[0] for part in ("90", "is not finite", "[3, 4, 5, 6, 7]"))


@pytest.mark.parametrize(
    ("header", "rows", "parts"),
    [
        ("", [], ["row 1", "no header", "labels_raw"]),
        (",".join(COLUMNS), [], ["no row below the header"]),
        (",".join(COLUMNS), ["", " "], ["no row below the header"]),
        ("time,value", ["1,2"], ["row 1", "missing timestamp", "found: time, value", "modelName"]),
        (",".join([*COLUMNS, "uuid"]), [line()], ["row 1", "twice uuid"]),
        ('"timestamp', [], ["row 1", "a quote is not closed"]),
        ("timestamp\xe9", [], ["row 1", "missing"]),
        (",".join(COLUMNS), [line(value="x"), line(uuid="")], ["not one of its 2 rows", "row 3"]),
    ],
)
def test_unusable_file_stops_the_start_and_is_named(
    tmp_path: Path, header: str, rows: Sequence[str], parts: Sequence[str]
) -> None:
    """Someone gives the wrong file."""
    path = write(tmp_path, *rows, header=header)
    with pytest.raises(SourceError) as caught:
        read_csv(path)
    assert all(part in str(caught.value) for part in [str(path), *parts]), str(caught.value)


def test_binary_file_stops_the_start(tmp_path: Path) -> None:
    """Someone gives the compressed file, or UTF-16 from a spreadsheet."""
    path = tmp_path / "scrape.csv"
    path.write_bytes(",".join(COLUMNS).encode("utf-16"))
    with pytest.raises(SourceError, match="row 1, the header: byte 0xff is not UTF-8"):
        read_csv(path)


def test_too_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Someone gives a core dump."""
    path = write(tmp_path, line())
    with pytest.raises(SourceError, match=r"bytes; --file-bytes-max is 100"):
        read_csv(path, bytes_max=100)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    """A typing error."""
    with pytest.raises(SourceError, match=r"none\.csv: it cannot be read: No such file"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(SourceError, match="cannot be read: Is a directory"):
        read_csv(tmp_path)


def test_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    """A process substitution of the shell cannot be read twice, so not at all."""
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SourceError, match="not a regular file"):
        read_csv(tmp_path / "pipe.csv")


@pytest.mark.parametrize("same_size", [True, False])
def test_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_size: bool
) -> None:
    """An exporter still writes the file; half of it would be another stream."""
    path = write(tmp_path, line())
    fstat, calls = os.fstat, list[int]()

    def change_after_first(fd: int) -> os.stat_result:
        result = fstat(fd)
        calls.append(fd)
        if len(calls) == 1:
            text = path.read_bytes()
            path.write_bytes(text if same_size else text + text)
            moved_ns = 10**9 if same_size else 0
            os.utime(path, ns=(result.st_atime_ns, result.st_mtime_ns + moved_ns))
        return result

    monkeypatch.setattr(os, "fstat", change_after_first)
    with pytest.raises(SourceError, match="changed while it was read"):
        read_csv(path)


def test_recorded_times_are_kept_unless_stamps_are_given(tmp_path: Path) -> None:
    """`--clock recorded` and `--clock processed`."""
    replay = read(tmp_path, line(), line(timestamp="2025-07-18T20:42:35Z"))
    assert [GOOD_US + 1_000_000, GOOD_US] == replay.batch(1, 2).time_us.tolist()
    assert [5, 6] == replay.batch(1, 2, np.array([5, 6])).time_us.tolist()


def test_sample_is_found_and_whole() -> None:
    """`telemq up` without `--csv`."""
    path = bundled_sample()
    assert SAMPLE == path.name
    assert {} == read_csv(path).bad
