"""No file speaks of one machine: neither its directories nor the hosts that its packages came from."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Written with [.] and the like so that this file does not find itself.
MACHINE = re.compile(
    r"(?<![\w.~-])/(?:[r]oot|[w]ork|[h]ome/[a-z]+)/"
    r"|[p]ypi[.]org|[p]ythonhosted[.]org|[n]pmjs[.]org|[r]epo1?[.]maven|[d]eb[.]debian[.]org|[p]roxy[.]golang"
    r"|--[f]ind-links |--[i]ndex-url "
)


def test_no_file_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = [
        f"{name}:{number}: {match.group()}"
        for name in filter(None, listed.split("\0"))
        if (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1)
        for match in MACHINE.finditer(line)
    ]
    assert found == []


def test_every_pinned_dependency_has_its_hash() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        pinned = re.split(r"\n(?=[a-z])", (ROOT / lock).read_text())
        assert [entry.split(" ")[0] for entry in pinned if "--hash=sha256:" not in entry] == []
