"""Write ExecuTorch's own classes for Android to a file, for the app to be compiled against.

Their archive on Maven Central, org.pytorch:executorch-android, cannot be had everywhere; Software Mansion's package on
npm carries those of an earlier ExecuTorch, still in Java.
"""

import hashlib
import io
import sys
import tarfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

URL = "https://registry.npmjs.org/react-native-executorch/-/react-native-executorch-0.9.3.tgz"
SHA256 = "70a20a865b82f47ac46c82711d93c2038cf99eccbb9b287494219063f2217622"
MEMBER = "package/android/libs/classes.jar"


def write_classes(path: Path, url: str = URL, sha256: str = SHA256) -> None:
    """Write the jar to `path` unless it is there and newer than this file; says so where the registry is out of reach.

    sha256: of the package at `url`. Exits with a sentence where it is another.
    """
    if path.is_file() and path.stat().st_mtime > Path(__file__).stat().st_mtime:  # else its package may be another
        return
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            package = response.read()
    except (OSError, HTTPException) as error:
        print(f"the app is not compiled against ExecuTorch's own classes: {url} is out of reach ({error})")
        return
    if (found := hashlib.sha256(package).hexdigest()) != sha256:
        sys.exit(f"{url} is not the package with ExecuTorch's classes for Android: its SHA-256 is {found}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(package)) as archive, archive.extractfile(MEMBER) as jar:  # type: ignore[union-attr]
        path.write_bytes(jar.read())


if __name__ == "__main__":
    write_classes(Path(sys.argv[1]))
