"""Write ExecuTorch's own classes for Android to a file, for the app to be compiled against.

Their archive on Maven Central, org.pytorch:executorch-android, cannot be had everywhere; Software Mansion's package on
npm carries those of an earlier ExecuTorch, still in Java.
"""

import hashlib
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

URL = "https://registry.npmjs.org/react-native-executorch/-/react-native-executorch-0.9.3.tgz"
MEMBER = "package/android/libs/classes.jar"
SHA256 = "d6b63816ac0831759ee79835ee1546191551bc0b58ac8f85396b8a6d121320b1"


def write_classes(path: Path, url: str = URL, sha256: str = SHA256) -> None:
    """Write the jar, of this SHA-256, to `path` unless it is there. Exits with a sentence where it cannot be had."""
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return
    try:
        with tempfile.TemporaryFile() as file:
            with urllib.request.urlopen(url, timeout=60) as response:
                while part := response.read(1 << 20):
                    file.write(part)
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:
                content = archive.extractfile(MEMBER).read()  # type: ignore[union-attr]  # a file, where it is there
    except (OSError, KeyError, tarfile.TarError) as error:
        sys.exit(f"ExecuTorch's classes for Android cannot be had from {url}: {error}")
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        sys.exit(f"{MEMBER} in {url} is not ExecuTorch's classes for Android: its SHA-256 is {found}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    write_classes(Path(sys.argv[1]))
