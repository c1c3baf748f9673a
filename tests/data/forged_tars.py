"""Tars whose headers have sizes that no file has, or are followed by headers without end."""

import tarfile


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)
FORGED = {
    "a file of 2^70 bytes": _header(tarfile.REGTYPE, 1 << 70) + END,
    "a name of 2^70 bytes": _header(tarfile.GNUTYPE_LONGNAME, 1 << 70) + END,
    "a name of 2^62 bytes": _header(tarfile.GNUTYPE_LONGNAME, 1 << 62) + END,
    "a name of a name of a name": (_header(tarfile.GNUTYPE_LONGNAME, 1) + b"a".ljust(512, b"\0")) * 3000 + END,
}
