"""What the repository promises of itself."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_no_photograph_of_the_data_set_is_in_the_project():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert not [f for f in files if f.endswith((".csv", ".npz", ".parquet", ".jpg"))]
    assert {f for f in files if f.endswith(".png")} <= {
        "docs/runs.png",
        "docs/learning_curve.png",
        "docs/confusion_matrix.png",
        "docs/report.png",
        "docs/search_lcbench.png",
        "docs/search_taskset.png",
        "docs/soak.png",
    }


def test_every_dependency_has_its_reason():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    names = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for name in names:
        bare = name.split(">")[0].split("=")[0]
        assert f"`{bare}`" in reasons, bare
