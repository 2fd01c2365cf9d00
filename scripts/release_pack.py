#!/usr/bin/env python3
"""Packs a folder for a release, and writes the checksum beside it: the same bytes whenever and wherever that is done.

    scripts/release_pack.py FOLDER ARCHIVE SECONDS

ARCHIVE ends in .tar.gz or .zip; SECONDS since 1970 are the time of all files in it. Commands (powerinfer-*) may be executed.
"""
import gzip
import hashlib
import io
import sys
import tarfile
import time
import zipfile
from pathlib import Path


def mode(path: Path) -> int:
    return 0o755 if path.is_dir() or path.parent.name.startswith("powerinfer-rs-") and path.name.startswith("powerinfer-") else 0o644


def tar(folder: Path, names: list[Path], seconds: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, mtime=0, filename="") as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for path in names:
                entry = tarfile.TarInfo(path.relative_to(folder.parent).as_posix())
                entry.mode, entry.mtime = mode(path), seconds
                if path.is_dir():
                    entry.type = tarfile.DIRTYPE
                    archive.addfile(entry)
                else:
                    data = path.read_bytes()
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def zipped(folder: Path, names: list[Path], seconds: int) -> bytes:
    packed = io.BytesIO()
    # The format begins in 1980 and knows no time zone.
    when = time.gmtime(max(seconds, 315_532_800))[:6]
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in names:
            if path.is_dir():
                continue
            entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), when)
            entry.create_system, entry.external_attr = 3, (0o100000 | mode(path)) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return packed.getvalue()


def main() -> None:
    folder, archive, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    names = [folder, *sorted(folder.rglob("*"), key=lambda path: path.as_posix())]
    data = (zipped if archive.suffix == ".zip" else tar)(folder, names, seconds)
    archive.write_bytes(data)
    Path(f"{archive}.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {archive.name}\n", newline="\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main()
