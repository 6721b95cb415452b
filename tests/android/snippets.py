"""Write the Kotlin of bundles' README.md as source files into a folder: gray, and with colors and class labels."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bundles import write_fake_bundle

from rdd_edge.bundle import read_bundle
from rdd_edge.targets.android.usage import snippets

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
with tempfile.TemporaryDirectory() as parent:
    for name, channels, classes in (("gray", 1, None), ("labelled", 3, 10)):
        folder = write_fake_bundle(
            Path(parent), name=name, channels=channels, classes=classes, target="android", batch=2
        )
        code = snippets(read_bundle(folder).manifest)["Kotlin"]
        (out / f"{name}.kt").write_text(f"package snippets.{name}\n{code}\n")
