"""Set-up, once: runs the broker in an empty directory and lets Java keep the classes that it loaded in a file.

With that file a start takes half as long. It is a file of ours beside the jars; the machine's own archive, which
`java -Xshare:dump` would rewrite, stays as it is. Run as `python -m broker.archive`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from broker.embedded import EmbeddedBroker
from broker.jvm import ARCHIVE, LIBS


def make(libs: Path = LIBS) -> None:
    """Writes the archive for the jars in `libs`; an older one is replaced."""
    archive = libs / ARCHIVE
    archive.unlink(missing_ok=True)
    with TemporaryDirectory(prefix="tidings-broker-") as directory:
        broker = EmbeddedBroker(Path(directory), libs=libs, jvm_options=[f"-XX:ArchiveClassesAtExit={archive}"])
        broker.start()
        broker.stop(timeout=60)  # the archive is written at the end, which takes some seconds
    if not archive.exists():
        raise SystemExit(f"Java wrote no class archive to {archive}: {broker.failure()}")


if __name__ == "__main__":
    make()
